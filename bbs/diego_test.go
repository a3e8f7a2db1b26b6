package bbs

import (
	"errors"
	"net"
	"strings"
	"testing"

	"muster/internal/identity"
	"muster/internal/pgtest"
)

// What is wrong with the settings of the door for Diego's clients is told, each by its name, before
// anything listens.
func TestSettingsOfTheDiegoDoor(t *testing.T) {
	t.Parallel()
	roles := map[string]identity.Role{"cc": identity.Client}
	for _, tc := range []struct {
		diego Diego
		want  []string
	}{
		{Diego{}, nil},
		{Diego{ListenAddress: "127.0.0.1:8889"}, nil},
		{Diego{ListenAddress: ":8889", Cert: "c", Key: "k", ClientCA: "ca", ClientRoles: roles}, nil},
		{Diego{ListenAddress: "8889"}, []string{`diego.listen_address "8889"`}},
		{Diego{Cert: "c"}, []string{`diego.cert_file "c" and diego.key_file ""`}},
		{Diego{Key: "k", ClientCA: "ca"}, []string{"diego.key_file", "diego.client_roles is empty"}},
		{Diego{ClientRoles: map[string]identity.Role{"cell": identity.Rep}}, []string{"diego.client_ca_file is empty", `diego.client_roles "cell": "rep"`}},
	} {
		problems := tc.diego.problems()
		if len(problems) != len(tc.want) {
			t.Errorf("%+v: %v, want %d problems", tc.diego, problems, len(tc.want))
			continue
		}
		for _, want := range tc.want {
			if !strings.Contains(errors.Join(problems...).Error(), want) {
				t.Errorf("%+v: %v does not say %s", tc.diego, problems, want)
			}
		}
		cfg := newWorld(t, "postgres:///x").config()
		cfg.Diego = tc.diego
		if err := cfg.Validate(); (err != nil) != (len(tc.want) > 0) {
			t.Errorf("%+v is valid: %v", tc.diego, err)
		}
	}
}

// A replica that cannot open the door does not start, and says what is in its way.
func TestADoorThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	for want, diego := range map[string]Diego{
		"diego.listen_address":            {ListenAddress: taken.Addr().String()},
		"diego: read client_ca_file":      {ListenAddress: "127.0.0.1:0", ClientCA: "/nonexistent", ClientRoles: map[string]identity.Role{"cc": identity.Client}},
		"diego: load certificate and key": {ListenAddress: "127.0.0.1:0", Cert: "/nonexistent", Key: "/nonexistent"},
	} {
		cfg := w.config()
		cfg.Diego = diego
		if err := Run(t.Context(), quiet(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: the replica ended with %v, which does not say %s", diego, err, want)
		}
	}
}
