package gorouter

import (
	"fmt"
	"testing"

	"muster/gorouter/internal/subscribe"
)

// BenchmarkRefresh takes in, for each operation, one message of 100,000 that come again and again.
func BenchmarkRefresh(b *testing.B) {
	r, _ := registryWorld(b)
	batch := make([]subscribe.Message, 100_000)
	for i := range batch {
		batch[i].Payload = fmt.Appendf(nil, `{"host":"10.0.%d.%d","port":61012,"uris":["app-%d.apps.example.com"],"app":"3f0ab1c2-0000-4000-8000-%012d","private_instance_id":"9d2e0000-0000-4000-8000-%012d","private_instance_index":"0","server_cert_domain_san":"9d2e0000-0000-4000-8000-%012d","tags":{"component":"route-emitter","process_id":"p-%d"},"availability_zone":"z1"}`,
			i/250%250, i%250, i, i, i, i, i)
	}
	r.messages(batch)
	for i := 0; b.Loop(); i++ {
		at := i % len(batch)
		r.messages(batch[at : at+1])
	}
}
