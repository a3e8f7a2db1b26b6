package round

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// docs/metrics.md has every metric with its type, and no other.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	r := prometheus.NewRegistry()
	NewMetrics(r)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	registered := map[string]string{}
	for _, f := range families {
		registered[f.GetName()] = strings.ToLower(f.GetType().String())
	}
	page, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(auctioneer_[a-z_]+)` \\| (\\w+) \\|").FindAllStringSubmatch(string(page), -1) {
		documented[row[1]] = row[2]
	}
	if diff := cmp.Diff(registered, documented); diff != "" {
		t.Errorf("metrics and their types (-registered +documented):\n%s", diff)
	}
}
