package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type testConfig struct {
	Common
	Address string   `json:"listen_address" help:"host:port"`
	Wait    Duration `json:"wait" help:"how long"`
	Tags    []string `json:"tags" help:"list"`
	Most    int      `json:"most" help:"bound"`
	On      bool     `json:"on" help:"switch"`
	Inner   struct {
		Password Secret `json:"password" help:"secret"`
	} `json:"inner"`
	Ready func() `json:"-"`
}

func (c *testConfig) Validate() error {
	errs := c.Problems()
	if c.Most < 0 {
		errs = append(errs, errors.New("most is negative"))
	}
	return errors.Join(errs...)
}

func defaults() *testConfig {
	return &testConfig{Common: Common{LogLevel: "info"}, Address: "a:1", Wait: Duration(time.Second), Most: 3}
}

func TestFlagsWinOverTheFileAndTheFileOverDefaults(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte("listen_address: b:2\nwait: 2m\ntags: [x, y]\ninner: {password: p}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := defaults()
	if err := load("x", []string{"-config", file, "-listen-address", "c:3", "-on", "-tags", "z", "-log-level", "debug"}, got, os.Stderr); err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.LogLevel, want.Address, want.Wait, want.Tags, want.On, want.Inner.Password = "debug", "c:3", Duration(2*time.Minute), []string{"z"}, true, "p"
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestBadConfigurationIsNamed(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ file, args, want string }{
		{"unknown: 1\n", "", "unknown"},
		{"wait: soon\n", "", "not a duration"},
		{"", "-wait soon", "not a duration"},
		{"", "-most many", "not a number"},
		{"", "-on=perhaps", "neither true nor false"},
		{"", "stray", `unexpected argument "stray"`},
		{"", "-what 1", "not defined: -what"},
		{"", "-log-level loud", `log_level "loud"`},
		{"most: -1\n", "", "most is negative"},
	} {
		args := strings.Fields(tc.args)
		if tc.file != "" {
			name := filepath.Join(t.TempDir(), "c.yaml")
			if err := os.WriteFile(name, []byte(tc.file), 0o600); err != nil {
				t.Fatal(err)
			}
			args = append(args, "-config", name)
		}
		var out bytes.Buffer
		err := start(t.Context(), "x", args, defaults(), &out, &out, func(context.Context, *slog.Logger, *testConfig) error { return nil })
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q %q: got %v, want %q", tc.file, tc.args, err, tc.want)
		}
	}
}

func TestPrintConfigMasksSecrets(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := load("x", []string{"-inner-password", "hunter2", "-print-config"}, defaults(), &out)
	if !errors.Is(err, errPrinted) || strings.Contains(out.String(), "hunter2") || !strings.Contains(out.String(), "wait: 1s") {
		t.Errorf("got %v and\n%s", err, out.String())
	}
}

func TestGroupStopsInReverseWhenOnePartEnds(t *testing.T) {
	t.Parallel()
	var g Group
	stopped := make(chan string, 3)
	for _, name := range []string{"first", "second"} {
		g.Add(name, func(ctx context.Context) error {
			<-ctx.Done()
			stopped <- name
			return ctx.Err()
		})
	}
	g.Add("third", func(context.Context) error { return errors.New("broke") })
	err := g.Run(t.Context())
	if err == nil || err.Error() != "third: broke" {
		t.Errorf("got %v", err)
	}
	if a, b := <-stopped, <-stopped; a != "second" || b != "first" {
		t.Errorf("stopped %s, then %s", a, b)
	}
}

func TestGroupEndsCleanlyWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var g Group
	g.Add("part", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	cancel()
	if err := g.Run(ctx); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestAPartThatEndsByItselfIsAnError(t *testing.T) {
	t.Parallel()
	var g Group
	g.Add("part", func(context.Context) error { return nil })
	if err := g.Run(t.Context()); err == nil || err.Error() != "part: ended by itself" {
		t.Errorf("got %v", err)
	}
}
