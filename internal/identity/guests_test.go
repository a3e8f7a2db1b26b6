package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
)

// chain returns the certificates of an identity's files.
func chain(t *testing.T, f Files) []*x509.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return []*x509.Certificate{c}
}

// What a certificate says of itself counts if our own CA signed it. One of a guest's CA has the role that its
// name was given, also when it claims to be a cell of ours; a third CA's is not let in.
func TestGuestsHaveTheRoleOfTheirName(t *testing.T) {
	t.Parallel()
	own, theirs := t.TempDir(), t.TempDir()
	bbs, cell := issue(t, own, ID{Role: BBS}), issue(t, own, ID{Role: Rep, Cell: "c1"})
	named, claims, nobody := issue(t, theirs, ID{Role: Client}), issue(t, theirs, ID{Role: Rep, Cell: "c1"}), issue(t, theirs, ID{Role: NATS})
	stranger := issue(t, t.TempDir(), ID{Role: Operator})
	// The development CA gives a certificate the identity as common name, and localhost as DNS name.
	gate, err := NewGate(bbs, Guests{CA: named.CA, Roles: map[string]Role{"client": Auctioneer, "rep/c1": Operator, "operator": Operator}})
	if err != nil {
		t.Fatal(err)
	}
	alone, err := NewGate(bbs, Guests{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		what  string
		gate  *Gate
		files Files
		want  string // empty: let in without a role; -: not let in
	}{
		{"one of ours", gate, cell, "rep/c1"},
		{"a guest", gate, named, "auctioneer"},
		{"a guest that claims to be a cell", gate, claims, "operator"},
		{"a guest whose name was given no role", gate, nobody, ""},
		{"a third CA's", gate, stranger, "-"},
		{"one of ours, without guests", alone, cell, "rep/c1"},
		{"a guest where there are none", alone, named, "-"},
	} {
		client, err := Files{CA: bbs.CA, Cert: tc.files.Cert, Key: tc.files.Key}.Client(BBS)
		if err != nil {
			t.Fatal(err)
		}
		if err := handshake(t, tc.gate.TLS(), client); (err == nil) != (tc.want != "-") {
			t.Errorf("%s: handshake ends with %v", tc.what, err)
		}
		id, err := tc.gate.Of(chain(t, tc.files))
		if tc.want == "-" {
			if err == nil {
				t.Errorf("%s is %v, had it been let in", tc.what, id)
			}
			continue
		}
		if tc.want == "" && (err == nil || !strings.Contains(err.Error(), "client_roles")) || tc.want != "" && (err != nil || id.String() != tc.want) {
			t.Errorf("%s is %v (%v), want %q", tc.what, id, err, tc.want)
		}
	}
	byDNS, err := NewGate(bbs, Guests{CA: named.CA, Roles: map[string]Role{"localhost": RouteEmitter}})
	if err != nil {
		t.Fatal(err)
	}
	if id, err := byDNS.Of(chain(t, nobody)); err != nil || id.Role != RouteEmitter {
		t.Errorf("by its DNS name a guest is %v (%v), want the route-emitter", id, err)
	}
	if _, err := gate.Of(nil); err == nil {
		t.Error("nobody is somebody")
	}
}

// Each mistake in the settings is named.
func TestGuestsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		guests Guests
		want   string
	}{
		{Guests{}, ""},
		{Guests{CA: "f", Roles: map[string]Role{"cc": Client, "e": RouteEmitter, "a": Auctioneer, "o": Operator}}, ""},
		{Guests{CA: "f"}, "diego.client_roles is empty"},
		{Guests{Roles: map[string]Role{"cc": Client}}, "diego.client_ca_file is empty"},
		{Guests{CA: "f", Roles: map[string]Role{"cell": Rep}}, `"cell": "rep"`},
		{Guests{CA: "f", Roles: map[string]Role{"x": BBS}}, `"x": "bbs"`},
		{Guests{CA: "f", Roles: map[string]Role{"": Client}}, `"": "client"`},
	} {
		err := errors.Join(tc.guests.Problems("diego.")...)
		if (tc.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want %q", tc.guests, err, tc.want)
		}
	}
	files := issue(t, t.TempDir(), ID{Role: BBS})
	for _, file := range []string{"/nonexistent", files.Key} {
		if _, err := NewGate(files, Guests{CA: file}); err == nil || !strings.Contains(err.Error(), "client_ca_file") {
			t.Errorf("client_ca_file %s: %v", file, err)
		}
	}
	if _, err := NewGate(Files{CA: "/nonexistent"}, Guests{}); err == nil {
		t.Error("a CA of our own that is not there was read")
	}
}

// Who calls by other means than gRPC is who the context says.
func TestContextSaysWhoCalls(t *testing.T) {
	t.Parallel()
	want, problem := ID{Role: Rep, Cell: "c1"}, errors.New("no")
	if id, err := FromContext(NewContext(t.Context(), want, nil)); id != want || err != nil {
		t.Errorf("%v (%v), want %v", id, err, want)
	}
	if _, err := FromContext(NewContext(t.Context(), ID{}, problem)); !errors.Is(err, problem) {
		t.Errorf("%v, want %v", err, problem)
	}
	if _, err := FromContext(context.Background()); err == nil {
		t.Error("a context that says nothing says somebody")
	}
}
