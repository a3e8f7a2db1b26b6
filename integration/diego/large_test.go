package diego_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"muster/bbs/bbsclient"
	"muster/integration/diego"
	"muster/internal/identity"
)

// These clients know no pages: a list is whole, also when it is larger than a message over gRPC may be.
func TestListsOfAnySize(t *testing.T) {
	t.Parallel()
	i := install(t)
	const records, size, atOnce = 540, 125_000, 8 // 67.5 MB
	blob := fmt.Sprintf("%q", strings.Repeat("r", size))
	desire := func(n int) error {
		record := m().Text(1, fmt.Sprintf("p%03d", n)).Text(2, "cf-apps").Text(3, "preloaded:cflinuxfs4").Message(7, run("/bin/app")).
			Message(15, m().Message(1, m().Text(1, "x").Text(2, blob))).EntryMessage(35, "source_id", m().Text(1, "s"))
		_, err := i.cc.Do(t.Context(), "/v1/desired_lrp/desire.r2", m().Message(1, record))
		return err
	}
	var wg sync.WaitGroup
	for from := range atOnce {
		wg.Go(func() {
			for n := from; n < records; n += atOnce {
				if err := desire(n); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if _, _, err := i.ours(identity.ID{Role: identity.Client}).DesiredList(t.Context(), bbsclient.DesiredFilter{}); err != nil {
		t.Errorf("our own client, which asks for pages: %v", err)
	}
	for path, guidAt := range map[string]func(diego.Message) string{
		"/v1/desired_lrps/list.r3":              func(r diego.Message) string { return r.TextAt(1) },
		"/v1/desired_lrps/list.r2":              func(r diego.Message) string { return r.TextAt(1) },
		"/v1/desired_lrp_scheduling_infos/list": func(r diego.Message) string { return r.TextAt(1, 1) },
	} {
		res, err := i.operator.Do(t.Context(), path, nil)
		must(t, err)
		list := res.All(2)
		if len(list) != records || len(res) < records*size {
			t.Errorf("%s: %d records in %d bytes, want %d", path, len(list), len(res), records)
			continue
		}
		for n, r := range list {
			if guidAt(r) != fmt.Sprintf("p%03d", n) {
				t.Errorf("%s: record %d is %s", path, n, guidAt(r))
			}
		}
	}
}
