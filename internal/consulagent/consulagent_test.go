package consulagent_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster/internal/consulagent"
	"muster/internal/consultest"
)

// Several that need the program get the same one, which is of the version that the module pins.
func TestBinary(t *testing.T) {
	t.Parallel()
	paths := make(chan string, 4)
	for range cap(paths) {
		go func() {
			path, err := consulagent.Binary(context.Background(), nil, ".")
			if err != nil {
				t.Error(err)
			}
			paths <- path
		}()
	}
	path := <-paths
	for range cap(paths) - 1 {
		if other := <-paths; other != path {
			t.Errorf("%s and %s", path, other)
		}
	}
	out, err := exec.Command(path, "version").Output()
	if err != nil {
		t.Fatal(err)
	}
	pin, err := os.ReadFile("../../tools/consul/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	version := strings.TrimPrefix(strings.Fields(string(out))[1], "v")
	if !strings.Contains(string(pin), "github.com/hashicorp/consul v"+version) {
		t.Errorf("it is version %s", version)
	}
}

func TestBinaryOutsideOfTheSources(t *testing.T) {
	t.Parallel()
	if _, err := consulagent.Binary(t.Context(), nil, t.TempDir(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "tools/consul/go.mod") {
		t.Errorf("got %v", err)
	}
}

// A build that cannot succeed says why, and leaves nothing that looks like a program.
func TestBrokenSources(t *testing.T) {
	cache, src := t.TempDir(), t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	dir := filepath.Join(src, "tools", "consul")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("module broken\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	said := ""
	path, err := consulagent.Binary(t.Context(), func(what string) { said = what }, dir)
	if err == nil || !strings.Contains(err.Error(), "build Consul in "+dir) {
		t.Errorf("got %q, %v", path, err)
	}
	if said == "" {
		t.Error("it began without a word")
	}
	left, err := filepath.Glob(filepath.Join(cache, "muster", "*"))
	if err != nil || len(left) != 1 || !strings.HasSuffix(left[0], ".lock") {
		t.Errorf("left %v (%v)", left, err)
	}
}

// The agent listens on loopback only, asks for its token, and is not ready before it can be used.
func TestAgent(t *testing.T) {
	t.Parallel()
	a := consultest.Own(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := a.Config.Check(ctx); err != nil {
		t.Error(err)
	}
	stranger := a.Config
	stranger.Token = ""
	if err := stranger.Check(ctx); err == nil {
		t.Error("it answers without a token")
	}
	text, err := a.Config.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var settings map[string]any
	if err := json.Unmarshal(text, &settings); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"bind_addr", "client_addr", "advertise_addr"} {
		if settings[key] != "127.0.0.1" {
			t.Errorf("%s is %v", key, settings[key])
		}
	}
	a.Kill()
	if err := a.Config.Check(ctx); err == nil {
		t.Error("a dead one is ready")
	}
}
