package stack

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"muster/bbs"
	"muster/internal/daemon"
)

// The key is drawn once, kept for later starts, and readable by its owner only.
func TestEncryptionKeyIsDrawnOnce(t *testing.T) {
	t.Parallel()
	s, other := fresh(t.TempDir()), fresh(t.TempDir())
	first, err := s.encryption()
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.encryption()
	if diff := cmp.Diff(first, again); err != nil || diff != "" {
		t.Errorf("the next start: %v (-first +next):\n%s", err, diff)
	}
	foreign, err := other.encryption()
	if err != nil || foreign.Keys["k1"] == first.Keys["k1"] || len(first.Keys["k1"]) < 32 {
		t.Errorf("two stacks have the keys %q and %q, %v", first.Keys["k1"], foreign.Keys["k1"], err)
	}
	info, err := os.Stat(s.path(encryptionFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; want mode 0600", info.Mode(), err)
	}
}

// The configuration that is written for the BBS has the keys themselves, and nothing else of it changes.
func TestConfigurationHasTheKeys(t *testing.T) {
	t.Parallel()
	s := fresh(t.TempDir())
	text, err := yaml.Marshal(bbs.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	if text, err = s.withEncryption(text); err != nil {
		t.Fatal(err)
	}
	var c bbs.Config
	if err := yaml.UnmarshalStrict(text, &c); err != nil {
		t.Fatal(err)
	}
	e, err := s.encryption()
	want := bbs.Encryption{ActiveKeyLabel: "k1", Keys: map[string]daemon.Secret{"k1": daemon.Secret(e.Keys["k1"])}}
	if diff := cmp.Diff(want, c.Encryption); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if c.ListenAddress != bbs.Defaults().ListenAddress {
		t.Errorf("listen_address became %q", c.ListenAddress)
	}
	if shown, err := yaml.Marshal(c); err != nil || strings.Contains(string(shown), e.Keys["k1"]) {
		t.Errorf("a printed configuration shows the key: %v\n%s", err, shown)
	}
}
