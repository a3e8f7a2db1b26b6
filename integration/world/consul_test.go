package world

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"muster/internal/consul"
	"muster/internal/daemon"
)

// TestConsul runs everything with a private Consul: who leads, which cells are there and where components are is
// kept in it; without it what runs goes on; and a stack can go back to PostgreSQL, and be taken down.
func TestConsul(t *testing.T) {
	s := newStack(t)
	before := s.lookAtHost(t)
	s.must(t, s.upArgs("--lease", "consul")...)
	answers(t, "hello.localhost", http.StatusOK)
	d := s.directory(t)
	eventually(t, "all cells are present in Consul", func(ctx context.Context) error {
		if present, err := d.Witness(ctx); err != nil || len(present) != 3 || !present["cell-1"] {
			return fmt.Errorf("present: %v (%v)", present, err)
		}
		return nil
	})
	for component, want := range map[string]int{"bbs": 1, "auctioneer": 1, "rep": 3, "route-emitter": 1, "gorouter": 1} {
		eventually(t, "the addresses are known of "+component, func(ctx context.Context) error {
			if list, err := d.Addresses(ctx, component); err != nil || len(list) != want {
				return fmt.Errorf("%v (%v)", list, err)
			}
			return nil
		})
	}
	instances := s.mustInstances(t, "hello")
	for _, part := range []string{"consul", "auctioneer"} { // the one that is to lead next has to learn it from the new one
		if err := syscall.Kill(s.pidOf(t, part), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	answers(t, "hello.localhost", http.StatusOK)
	s.must(t, s.upArgs()...)
	s.must(t, "scale", "hello", "4")
	for index, i := range s.mustInstances(t, "hello") {
		if was, ok := instances[index]; ok && i.InstanceGUID != was.InstanceGUID {
			t.Errorf("without Consul instance %d was replaced", index)
		}
	}
	if out := s.must(t, s.upArgs("--lease", "postgres")...); strings.Contains(out, "✓ consul") {
		t.Errorf("Consul is started although it is not used:\n%s", out)
	}
	if _, err := d.Witness(t.Context()); err == nil {
		t.Error("Consul still runs")
	}
	s.must(t, "scale", "hello", "5")
	s.must(t, "down")
	if left := s.lookAtHost(t).more(before); len(left) > 0 {
		t.Errorf("down left behind: %q", left)
	}
}

// directory is the private Consul of a stack.
func (s *stack) directory(t *testing.T) *consul.Directory {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "stack.json"))
	if err != nil {
		t.Fatal(err)
	}
	var settings struct{ Ports map[string]int }
	if err := json.Unmarshal(text, &settings); err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(filepath.Join(s.dir, "consul", "token"))
	if err != nil {
		t.Fatal(err)
	}
	c := consul.Defaults()
	c.Address = fmt.Sprintf("127.0.0.1:%d", settings.Ports["consul"])
	c.Token = daemon.Secret(strings.TrimSpace(string(token)))
	d, err := consul.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
