package rig

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strings"
)

// Metrics reads some metrics of a replica, by name and labels; 0 for those that are not there.
func (b *Replica) Metrics(ctx context.Context, names ...string) ([]float64, error) {
	return metrics(ctx, b.Debug, names)
}

// Metrics reads some metrics of a rep in the same way.
func (p *Rep) Metrics(ctx context.Context, names ...string) ([]float64, error) {
	return metrics(ctx, p.Debug, names)
}

func metrics(ctx context.Context, debug string, names []string) ([]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+debug+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	defer res.Body.Close()
	values := make([]float64, len(names))
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		for i, name := range names {
			if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
				if _, err := fmt.Sscan(value, &values[i]); err != nil {
					return nil, fmt.Errorf("metric %s: %w", lines.Text(), err)
				}
			}
		}
	}
	return values, lines.Err()
}
