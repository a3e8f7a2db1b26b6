// Package credential says what the certificates of an instance hold and when they are to be renewed. It is a
// CORE; package issuer makes them and keeps them in files.
//
// An instance has two: its identity, which its own processes use and with which its TLS proxy answers routers,
// and one with which the proxy answers other containers by the names of its internal routes. Before an
// instance is stopped, its proxy gets certificates that are not the instance's any more, so that routers turn
// to others while established connections go on.
package credential

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	// Backdate is how long before its making a certificate begins to be valid: clocks of those who check it
	// may be slow.
	Backdate         = time.Minute
	MinValidity      = time.Minute          // MinValidity is the shortest time for which a certificate is valid.
	MaxValidity      = 365 * 24 * time.Hour // MaxValidity is the longest.
	MaxUnits         = 32                   // MaxUnits bounds the organizational units.
	MaxUnitBytes     = 256                  // MaxUnitBytes bounds each of them.
	MaxHostnames     = 256                  // MaxHostnames bounds the host names of internal routes.
	MaxHostnameBytes = 253                  // MaxHostnameBytes bounds each of them.
)

// Subject is the instance that certificates are for.
type Subject struct {
	Instance  string     // GUID
	Units     []string   // organizational units, as certificate_properties lists them
	Hostnames []string   // of internal routes
	Address   netip.Addr // of the container, or of the cell when it has none
}

// Check returns what is wrong with a subject.
func (s Subject) Check() error {
	if err := hostname("instance GUID", s.Instance); err != nil {
		return err
	}
	if !s.Address.IsValid() || s.Address.IsUnspecified() {
		return fmt.Errorf("address %v of instance %s: want an IP address", s.Address, s.Instance)
	}
	if len(s.Units) > MaxUnits {
		return fmt.Errorf("certificate_properties.organizational_unit: %d units: at most %d", len(s.Units), MaxUnits)
	}
	for _, u := range s.Units {
		if u == "" || len(u) > MaxUnitBytes {
			return fmt.Errorf("certificate_properties.organizational_unit %.64q has %d bytes: want 1 to %d", u, len(u), MaxUnitBytes)
		}
	}
	if len(s.Hostnames) > MaxHostnames {
		return fmt.Errorf("internal routes: %d host names: at most %d", len(s.Hostnames), MaxHostnames)
	}
	for _, h := range s.Hostnames {
		if err := hostname("host name of an internal route", h); err != nil {
			return err
		}
	}
	return nil
}

func hostname(what, h string) error {
	odd := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_')
	}
	if h == "" || h[0] == '.' || len(h) > MaxHostnameBytes || strings.ContainsFunc(h, odd) {
		return fmt.Errorf("%s %.64q with %d bytes: want 1 to %d of letters, digits, - _ and, but for the first, .", what, h, len(h), MaxHostnameBytes)
	}
	return nil
}

// Content is what a certificate says.
type Content struct {
	CommonName          string
	Units               []string
	DNSNames            []string
	Address             netip.Addr // invalid: none
	NotBefore, NotAfter time.Time
}

// Term is for how long certificates are made: from Backdate before now on, and not beyond the end of the CA.
func Term(now time.Time, validity time.Duration, caEnd time.Time) (notBefore, notAfter time.Time, err error) {
	notAfter = now.Add(validity)
	if caEnd.Before(notAfter) {
		notAfter = caEnd
	}
	if notAfter.Sub(now) < MinValidity {
		return now, now, fmt.Errorf("the CA of instance certificates ends at %s: replace it", caEnd.Format(time.RFC3339))
	}
	return now.Add(-Backdate), notAfter, nil
}

// Identity is the certificate of the instance itself.
func Identity(s Subject, notBefore, notAfter time.Time) Content {
	return Content{
		CommonName: s.Instance, Units: s.Units, DNSNames: []string{s.Instance}, Address: s.Address,
		NotBefore: notBefore, NotAfter: notAfter,
	}
}

// Internal is the certificate for other containers.
func Internal(s Subject, notBefore, notAfter time.Time) Content {
	c := Identity(s, notBefore, notAfter)
	c.Address = netip.Addr{}
	for _, h := range s.Hostnames {
		if !slices.Contains(c.DNSNames, h) {
			c.DNSNames = append(c.DNSNames, h)
		}
	}
	return c
}

// Disowned is a certificate that does not name its instance any more.
func Disowned(c Content) Content {
	guid := c.CommonName
	c.CommonName = ""
	c.DNSNames = slices.DeleteFunc(slices.Clone(c.DNSNames), func(n string) bool { return n == guid })
	return c
}

// Margins of renewal.
const (
	longTerm   = 4 * time.Hour
	longMargin = 30 * time.Minute
)

// RenewAt is when a certificate is to be replaced: half an hour before its end if it is valid for more than
// four hours, else after seven eighths of its time.
func (c Content) RenewAt() time.Time {
	made := c.NotBefore.Add(Backdate)
	if v := c.NotAfter.Sub(made); v <= longTerm {
		return made.Add(v / 8 * 7)
	}
	return c.NotAfter.Add(-longMargin)
}

// Says tells whether two certificates say the same, apart from for how long.
func (c Content) Says(o Content) bool {
	return c.CommonName == o.CommonName && c.Address == o.Address && sameSet(c.Units, o.Units) && sameSet(c.DNSNames, o.DNSNames)
}

// sameSet compares without order: certificates keep names in an order of their own.
func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}
