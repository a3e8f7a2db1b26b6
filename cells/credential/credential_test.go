package credential

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var now = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

func subject() Subject {
	return Subject{
		Instance: "9d2e", Units: []string{"organization:o", "space:s", "app:a"},
		Hostnames: []string{"shop.apps.internal", "9d2e", "shop.apps.internal"}, Address: netip.MustParseAddr("10.255.0.4"),
	}
}

func TestWhatCertificatesSay(t *testing.T) {
	t.Parallel()
	notBefore, notAfter, err := Term(now, 24*time.Hour, now.Add(1000*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	identity := Content{
		CommonName: "9d2e", Units: []string{"organization:o", "space:s", "app:a"}, DNSNames: []string{"9d2e"},
		Address: netip.MustParseAddr("10.255.0.4"), NotBefore: now.Add(-time.Minute), NotAfter: now.Add(24 * time.Hour),
	}
	internal := identity
	internal.Address, internal.DNSNames = netip.Addr{}, []string{"9d2e", "shop.apps.internal"}
	disowned, disownedInternal := identity, internal
	disowned.CommonName, disowned.DNSNames = "", nil
	disownedInternal.CommonName, disownedInternal.DNSNames = "", []string{"shop.apps.internal"}
	for name, tt := range map[string]struct{ got, want Content }{
		"identity":          {Identity(subject(), notBefore, notAfter), identity},
		"internal":          {Internal(subject(), notBefore, notAfter), internal},
		"disowned":          {Disowned(identity), disowned},
		"disowned internal": {Disowned(internal), disownedInternal},
	} {
		if diff := cmp.Diff(tt.want, tt.got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	other := identity
	other.Units = []string{"space:s", "app:a", "organization:o"}
	if !identity.Says(other) {
		t.Error("the order of units makes a difference")
	}
	for name, other := range map[string]Content{"internal": internal, "disowned": disowned} {
		if identity.Says(other) {
			t.Errorf("the identity says what the %s certificate says", name)
		}
	}
}

func TestRenewal(t *testing.T) {
	t.Parallel()
	for validity, want := range map[time.Duration]time.Duration{
		24 * time.Hour:            23*time.Hour + 30*time.Minute,
		4*time.Hour + time.Second: 3*time.Hour + 30*time.Minute + time.Second,
		4 * time.Hour:             3*time.Hour + 30*time.Minute,
		8 * time.Minute:           7 * time.Minute,
	} {
		notBefore, notAfter, err := Term(now, validity, now.Add(MaxValidity))
		if err != nil {
			t.Fatal(err)
		}
		if got := Identity(subject(), notBefore, notAfter).RenewAt().Sub(now); got != want {
			t.Errorf("valid for %v: renewed after %v, want %v", validity, got, want)
		}
	}
}

func TestCertificatesEndWithTheirCA(t *testing.T) {
	t.Parallel()
	if _, end, err := Term(now, 24*time.Hour, now.Add(time.Hour)); err != nil || !end.Equal(now.Add(time.Hour)) {
		t.Errorf("end %v, %v", end, err)
	}
	if _, _, err := Term(now, 24*time.Hour, now.Add(59*time.Second)); err == nil || !strings.Contains(err.Error(), "replace it") {
		t.Errorf("a CA about to end: %v", err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	if err := subject().Check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Subject){
		"instance GUID":        func(s *Subject) { s.Instance = "a b" },
		`GUID ".."`:            func(s *Subject) { s.Instance = ".." },
		"IP address":           func(s *Subject) { s.Address = netip.Addr{} },
		"33 units: at most 32": func(s *Subject) { s.Units = slices.Repeat([]string{"u"}, MaxUnits+1) },
		"organizational_unit":  func(s *Subject) { s.Units = []string{strings.Repeat("u", MaxUnitBytes+1)} },
		"257 host names":       func(s *Subject) { s.Hostnames = slices.Repeat([]string{"h"}, MaxHostnames+1) },
		"host name of an":      func(s *Subject) { s.Hostnames = []string{""} },
	} {
		s := subject()
		change(&s)
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
