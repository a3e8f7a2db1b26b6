package stack

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"muster/auctioneer"
)

func TestRevealedConfigurationIsReadAgain(t *testing.T) {
	t.Parallel()
	c := auctioneer.Defaults()
	c.Consul.Token = "hunter2"
	masked, err := yaml.Marshal(c)
	if err != nil || strings.Contains(string(masked), "hunter2") {
		t.Fatalf("%s, %v", masked, err)
	}
	text, err := reveal(masked, map[string]any{"consul.token": "hunter2"})
	if err != nil {
		t.Fatal(err)
	}
	again := auctioneer.Defaults()
	if err := yaml.UnmarshalStrict(text, again); err != nil {
		t.Fatal(err)
	}
	if *again != *c {
		t.Errorf("got %+v, want %+v", again, c)
	}
	if _, err := reveal(masked, map[string]any{"nothing.token": "x"}); err == nil {
		t.Error("a secret for nothing was accepted")
	}
}

func TestLeaseIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	u := &upper{Stack: fresh(dir), options: UpOptions{Lease: "consul"}}
	if err := u.chooseLease(); err != nil || !u.usesConsul() || u.parts()[0] != consulPart {
		t.Fatalf("%v, parts %v", err, u.parts())
	}
	if err := u.save(); err != nil {
		t.Fatal(err)
	}
	later := &upper{Stack: Describe(dir)}
	if err := later.chooseLease(); err != nil || !later.usesConsul() {
		t.Errorf("not as it was: %v", err)
	}
	first, err := u.consulToken()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := later.consulToken(); err != nil || again != first {
		t.Errorf("token %q, then %q (%v)", first, again, err)
	}
	later.options.Lease = "etcd"
	if err := later.chooseLease(); err == nil {
		t.Error("--lease etcd was accepted")
	}
	later.options.Lease = "postgres"
	if err := later.chooseLease(); err != nil || later.usesConsul() {
		t.Errorf("still Consul: %v", err)
	}
}
