package task

import (
	"fmt"

	"muster/bbs/lrp"
)

// Validate checks everything about a new task that needs nothing else to check (bbs reference §2.5). It
// returns nil or an *lrp.Invalid that names every field that breaks a rule. Names of variables, volume
// mounts, metric tags, mounted files and the callback URL are not checked, as in Diego.
func (t Task) Validate() error {
	d := t.Definition
	return invalid(lrp.TaskErrors(string(t.GUID), lrp.Desired{
		Domain: t.Domain, RootFS: d.RootFS, Annotation: d.Annotation,
		MemoryMB: d.MemoryMB, DiskMB: d.DiskMB, MaxPids: d.MaxPids,
		RunInfo: lrp.RunInfo{
			Action: d.Action, EgressRules: d.EgressRules, CachedDependencies: d.CachedDependencies,
			ImageLayers: d.ImageLayers, LegacyDownloadUser: d.LegacyDownloadUser,
			ImageUsername: d.ImageUsername, ImagePassword: d.ImagePassword, LogRateLimit: d.LogRateLimit,
		},
	}))
}

// needs says what an event must carry, beside a GUID (bbs reference §2.6).
type needs struct {
	guid   bool // of letters, digits, - and _; else any text
	cell   bool
	reason bool
}

// needsOf returns what an event must carry; false for a name that is none.
func needsOf(name EventName) (n needs, known bool) {
	switch name {
	case Start, Complete, Lose:
		return needs{guid: true, cell: true}, true
	case Reject:
		return needs{reason: true}, true
	case Desire, Cancel, Fail, Resolve, Delete, Expire, Kick, Forget:
		return needs{}, true
	}
	return needs{}, false
}

// Validate checks that an event carries what it must, and nothing that cannot be stored. It returns
// nil or an *lrp.Invalid. Apply asks it first.
func (ev Event) Validate() error {
	n, known := needsOf(ev.Name)
	switch {
	case !known:
		return invalid([]lrp.FieldError{{Field: "event", Problem: fmt.Sprintf("must be one of %v", EventNames()), Value: string(ev.Name)}})
	case ev.Name == Desire && ev.Task == nil:
		return invalid([]lrp.FieldError{{Field: "task_definition", Problem: "must be set"}})
	case ev.Name == Desire && ev.Task.GUID != ev.GUID:
		return invalid([]lrp.FieldError{{Field: "task_guid", Problem: "must be that of the task", Value: string(ev.GUID)}})
	case ev.Name == Desire:
		return ev.Task.Validate()
	}
	var found []lrp.FieldError
	if n.guid {
		found = append(found, lrp.TaskGUIDErrors(string(ev.GUID))...)
	} else {
		found = append(found, lrp.NameErrors("task_guid", string(ev.GUID), true)...)
	}
	found = append(found, lrp.NameErrors("cell_id", string(ev.Cell), n.cell)...)
	if n.reason {
		found = append(found, lrp.TextErrors("rejection_reason", ev.Reason)...)
	}
	return invalid(found)
}

// invalid returns the error for what was found; nil for nothing.
func invalid(found []lrp.FieldError) error {
	if len(found) == 0 {
		return nil
	}
	return &lrp.Invalid{Fields: found}
}

// Check reports every invariant of the package that the task breaks, by number. Apply keeps them; a
// store checks what it reads and writes.
func (t Task) Check() error {
	active, ended := t.State == Pending || t.State == Running, t.State == Completed || t.State == Resolving
	for _, rule := range []struct {
		number string
		holds  bool
	}{
		{"T1", t.GUID != "" && t.Domain != "" && !t.CreatedAt.IsZero() && !t.UpdatedAt.Before(t.CreatedAt)},
		{"T2", active || ended},
		{"T3", (t.State == Running) == (t.Cell != "")},
		{"T4", ended == !t.FirstCompletedAt.IsZero() && !t.UpdatedAt.Before(t.FirstCompletedAt)},
		{"T5", ended || !t.Failed},
		{"T6", t.Result == "" || ended && !t.Failed},
		{"T7", t.FailureReason == "" || t.Failed},
		{"T8", t.RejectionCount >= 0 && (t.RejectionReason == "" || t.RejectionCount > 0)},
	} {
		if !rule.holds {
			return fmt.Errorf("task %s breaks %s: %v on cell %q, created %v, updated %v, completed %v, failed %v, rejected %d times",
				t.GUID, rule.number, t.State, t.Cell, t.CreatedAt, t.UpdatedAt, t.FirstCompletedAt, t.Failed, t.RejectionCount)
		}
	}
	return nil
}
