package cfroute

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		value string
		want  []Route
		fails bool
	}{
		"absent":     {value: ""},
		"blank":      {value: " \n"},
		"null":       {value: "null"},
		"empty list": {value: "[]"},
		"as the Cloud Controller writes it": {
			value: `[{"hostnames":["shop.apps.example.net/cart"],"port":8080,"route_service_url":null,
			  "isolation_segment":"seg-blue","protocol":"http1","options":{"loadbalancing":"hash"}}]`,
			want: []Route{{
				Hostnames: []string{"shop.apps.example.net/cart"}, Port: 8080, IsolationSegment: "seg-blue",
				Protocol: "http1", Options: json.RawMessage(`{"loadbalancing":"hash"}`),
			}},
		},
		"every member null": {
			value: `[{"hostnames":null,"port":null,"route_service_url":null,"isolation_segment":null,"protocol":null,"options":null}]`,
			want:  []Route{{}},
		},
		"only what is required":      {value: `[{"hostnames":["a","b"],"port":1}]`, want: []Route{{Hostnames: []string{"a", "b"}, Port: 1}}},
		"a member of a newer writer": {value: `[{"hostnames":["a"],"port":1,"colour":"red"}]`, want: []Route{{Hostnames: []string{"a"}, Port: 1}}},
		"not JSON":                   {value: `[{`, fails: true},
		"not a list":                 {value: `{"hostnames":["a"],"port":1}`, fails: true},
		"a port that is a text":      {value: `[{"hostnames":["a"],"port":"8080"}]`, fails: true},
		"a negative port":            {value: `[{"hostnames":["a"],"port":-1}]`, fails: true},
		"a port that is too large":   {value: `[{"hostnames":["a"],"port":4294967296}]`, fails: true},
		"a list of texts":            {value: `["a"]`, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := FromRoutes(map[string][]byte{Group: []byte(tt.value), "tcp-router": []byte("not read")})
			if (err != nil) != tt.fails {
				t.Fatalf("error: %v", err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("routes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMarshal(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		routes []Route
		want   string
	}{
		"no routes": {nil, "[]"},
		"one": {
			[]Route{{Hostnames: []string{"a.example.com"}, Port: 8080}},
			`[{"hostnames":["a.example.com"],"port":8080,"route_service_url":null,"isolation_segment":null}]`,
		},
		"no hostnames": {[]Route{{Port: 1}}, `[{"hostnames":[],"port":1,"route_service_url":null,"isolation_segment":null}]`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Marshal(tt.routes)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("value (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := Marshal([]Route{{Options: json.RawMessage("{")}}); err == nil {
		t.Error("options that are not JSON were written")
	}
}

// TestRoundTrip checks that whatever is written is read back.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	options := []json.RawMessage{nil, json.RawMessage(`{}`), json.RawMessage(`{"loadbalancing":"round-robin"}`)}
	route := rapid.Custom(func(t *rapid.T) Route {
		return Route{
			Hostnames: rapid.SliceOfN(rapid.String(), 1, 3).Draw(t, "hostnames"), Port: rapid.Uint32().Draw(t, "port"),
			RouteServiceURL: rapid.String().Draw(t, "service"), IsolationSegment: rapid.String().Draw(t, "segment"),
			Protocol: rapid.String().Draw(t, "protocol"), Options: rapid.SampledFrom(options).Draw(t, "options"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(route, 1, 3).Draw(t, "routes")
		value, err := Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse(value)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("routes (-written +read):\n%s", diff)
		}
	})
}
