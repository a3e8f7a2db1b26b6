package routes

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseMessage(t *testing.T) {
	t.Parallel()
	got, err := ParseMessage([]byte(`{"host":"10.0.16.5","port":61012,"tls_port":61014,"uris":["shop.test/cart"],"protocol":"http2","app":"a",
		"private_instance_id":"i","private_instance_index":"2","server_cert_domain_san":"i","isolation_segment":null,"route_service_url":null,
		"endpoint_updated_at_ns":1767225600000000000,"tags":{"component":"route-emitter"},"availability_zone":"z2","unknown":[],
		"stale_threshold_in_seconds":60,"options":{"loadbalancing":"least-connection","hash_balance":"1.3"}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := Message{
		Info: Info{Address: "10.0.16.5:61014", TLS: true, ServerName: "i", App: "a", InstanceID: "i", InstanceIndex: "2", Protocol: "http2",
			Zone: "z2", Algorithm: "least-connection", UpdatedNS: 1767225600000000000, Tags: map[string]string{"component": "route-emitter"}},
		URIs: []string{"shop.test/cart"}, StaleAfter: time.Minute,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestMessagesThatAreTolerated(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{"host":"h","port":1}`,
		`{"host":"::1","port":1,"uris":[]}`,
		`{"host":"h","port":1,"uris":["a"],"options":"what"}`,
		`{"host":"h","port":1,"uris":["a"],"options":{"loadbalancing":7}}`,
		`{"host":"h","port":1,"uris":["a"],"options":null,"tags":null,"stale_threshold_in_seconds":-5}`,
	} {
		if m, err := ParseMessage([]byte(text)); err != nil || m.Protocol != "http1" || m.Algorithm != "" || m.StaleAfter != 0 {
			t.Errorf("%s: %+v, %v", text, m, err)
		}
	}
}

func TestMessagesThatAreRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		``:                          "parse route message",
		`{`:                         "parse route message",
		`[]`:                        "parse route message",
		`{"host":"h","port":65536}`: "port",
		`{"host":"h","port":-1}`:    "port",
		`{"host":"h","port":1,"private_instance_index":2}`:                     "private_instance_index",
		`{"host":"h","port":1,"uris":"a"}`:                                     "uris",
		`{"port":1}`:                                                           "without host",
		`{"host":"h"}`:                                                         "without port",
		`{"host":"h","port":1,"route_service_url":"http://x"}`:                 "want https",
		`{"host":"h","port":1,"app":"a\r\nX: y"}`:                              "control character",
		`{"host":"h","port":1,"private_instance_id":"a\u0000"}`:                "control character",
		`{"host":"h","port":1,"uris":["a` + strings.Repeat("/b", 2048) + `"]}`: "at most 4096",
	} {
		if _, err := ParseMessage([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}
