package cells_test

import (
	"testing"
	"time"

	"muster/bbs/lrp"
	"muster/cells"
)

// TestPresences asks about cells in every kind of knowledge. It stands against the weakness that an
// empty list of cells means that all of them are lost (bbs reference §20.2).
func TestPresences(t *testing.T) {
	t.Parallel()
	const grace = 15 * time.Second
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) cells.Sight { return cells.Sight{LostAt: now.Add(-d)} }
	doubted := ago(time.Hour)
	doubted.Doubted = true
	type view = map[lrp.CellID]cells.Sight
	here := cells.Sight{}
	for name, c := range map[string]struct {
		presences           cells.Presences
		present, lost, gone bool // of cell a
	}{
		"nothing known":                    {cells.Presences{}, false, false, false},
		"no answer, old list":              {cells.Presences{Since: now.Add(-time.Hour), Cells: view{"a": ago(time.Hour), "b": here}}, false, false, false},
		"no answer, was present":           {cells.Presences{Cells: view{"a": here}}, false, false, false},
		"present":                          {cells.Presences{Known: true, Cells: view{"a": here}}, true, false, false},
		"just lost":                        {cells.Presences{Known: true, Cells: view{"a": ago(0), "b": here}}, false, true, false},
		"lost below the grace time":        {cells.Presences{Known: true, Cells: view{"a": ago(grace - 1), "b": here}}, false, true, false},
		"lost for the grace time":          {cells.Presences{Known: true, Cells: view{"a": ago(grace), "b": here}}, false, true, true},
		"lost above the grace time":        {cells.Presences{Known: true, Cells: view{"a": ago(grace + 1), "b": here}}, false, true, true},
		"lost and doubted":                 {cells.Presences{Known: true, Cells: view{"a": doubted, "b": here}}, false, true, false},
		"all lost":                         {cells.Presences{Known: true, Cells: view{"a": ago(time.Hour), "b": ago(0)}}, false, true, false},
		"no records at all":                {cells.Presences{Known: true, Since: now.Add(-time.Hour)}, false, false, false},
		"no record, others lost":           {cells.Presences{Known: true, Since: now.Add(-time.Hour), Cells: view{"b": ago(time.Hour)}}, false, false, false},
		"no record, since nobody knows":    {cells.Presences{Known: true, Cells: view{"b": here}}, false, false, false},
		"no record, others just appeared":  {cells.Presences{Known: true, Since: now, Cells: view{"b": here}}, false, false, false},
		"no record, before it settled":     {cells.Presences{Known: true, Since: now.Add(1 - cells.Settle), Cells: view{"b": here}}, false, false, false},
		"no record, once it settled":       {cells.Presences{Known: true, Since: now.Add(-cells.Settle), Cells: view{"b": here}}, false, true, false},
		"no answer, no record":             {cells.Presences{Since: now.Add(-time.Hour), Cells: view{"b": here}}, false, false, false},
		"will be lost":                     {cells.Presences{Known: true, Cells: view{"a": ago(-1), "b": here}}, false, false, false},
		"no record, below the grace time":  {cells.Presences{Known: true, Since: now.Add(1 - grace), Cells: view{"b": here}}, false, true, false},
		"no record for the grace time":     {cells.Presences{Known: true, Since: now.Add(-grace), Cells: view{"b": here}}, false, true, true},
		"a lost cell on its own, for long": {cells.Presences{Known: true, Since: now, Cells: view{"a": ago(time.Hour)}}, false, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := c.presences
			if got := p.Present("a"); got != c.present {
				t.Errorf("present: %v", got)
			}
			if got := p.Lost("a", now); got != c.lost {
				t.Errorf("lost: %v", got)
			}
			if got := p.Gone("a", now, grace); got != c.gone {
				t.Errorf("gone: %v", got)
			}
		})
	}
}
