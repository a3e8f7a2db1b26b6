package meter

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestSumsOfAllShards(t *testing.T) {
	t.Parallel()
	m := &Meter{}
	m.Gauge("gorouter_total_routes", "Routes.", func() float64 { return 5 })
	for range 100 {
		s := m.Shard()
		s.Add(Requests, 2)
		s.Done(204, 5*time.Millisecond, time.Millisecond)
		s.Done(101, time.Hour, time.Microsecond)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(m)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, x := range f.Metric {
			name := f.GetName()
			for _, l := range x.Label {
				name += "/" + l.GetValue()
			}
			got[name] = x.GetCounter().GetValue() + x.GetGauge().GetValue()
			if h := x.GetHistogram(); h != nil {
				got[name] = float64(h.GetSampleCount())
				for _, b := range h.Bucket {
					got[fmt.Sprintf("%s<=%v", name, b.GetUpperBound())] = float64(b.GetCumulativeCount())
				}
			}
		}
	}
	for name, want := range map[string]float64{
		"gorouter_total_requests": 200, "gorouter_total_routes": 5, "gorouter_responses/2xx": 100, "gorouter_responses/3xx": 0,
		"gorouter_responses/xxx": 100, "gorouter_latency_ms": 200, "gorouter_latency_ms<=4": 0, "gorouter_latency_ms<=6": 100,
		"gorouter_latency_ms<=1000": 100, "gorouter_gorouter_time_ms<=1": 200,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s: got %v, want %v", name, v, want)
		}
	}
}
