package task

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"muster/bbs/lrp"
)

// TestValidate breaks each rule of bbs reference §2.5 at its bound, one at a time ("guids", "annotation",
// "required fields" of §19).
func TestValidate(t *testing.T) {
	t.Parallel()
	unlimited, none, tooLow := int64(-1), int64(0), int64(-2)
	allow := func(protocol string) []lrp.EgressRule {
		return []lrp.EgressRule{{Protocol: protocol, Destinations: []string{"10.0.0.0/8"}}}
	}
	exclusive := []lrp.ImageLayer{{
		URL: "u", DestinationPath: "/", Type: lrp.LayerExclusive, Media: lrp.MediaTAR,
		DigestAlgorithm: lrp.DigestSHA256, DigestValue: "d",
	}}
	for name, c := range map[string]struct {
		change func(*Task)
		fields string // that are named, joined by commas
	}{
		"nothing wrong":            {func(*Task) {}, ""},
		"letters of a GUID":        {func(t *Task) { t.GUID = "aZ09_-" }, ""},
		"no GUID":                  {func(t *Task) { t.GUID = "" }, "task_guid"},
		"space in a GUID":          {func(t *Task) { t.GUID = "a b" }, "task_guid"},
		"slash in a GUID":          {func(t *Task) { t.GUID = "a/b" }, "task_guid"},
		"comma in a GUID":          {func(t *Task) { t.GUID = "a,b" }, "task_guid"},
		"dot in a GUID":            {func(t *Task) { t.GUID = "a.b" }, "task_guid"},
		"unicode in a GUID":        {func(t *Task) { t.GUID = "å" }, "task_guid"},
		"GUID at its limit":        {func(t *Task) { t.GUID = GUID(strings.Repeat("a", 255)) }, ""},
		"GUID above its limit":     {func(t *Task) { t.GUID = GUID(strings.Repeat("a", 256)) }, "task_guid"},
		"no domain":                {func(t *Task) { t.Domain = "" }, "domain"},
		"domain at its limit":      {func(t *Task) { t.Domain = lrp.Domain(strings.Repeat("é", 255)) }, ""},
		"domain above its limit":   {func(t *Task) { t.Domain = lrp.Domain(strings.Repeat("é", 256)) }, "domain"},
		"no rootfs":                {func(t *Task) { t.Definition.RootFS = "" }, "rootfs"},
		"rootfs without scheme":    {func(t *Task) { t.Definition.RootFS = "cflinuxfs4" }, "rootfs"},
		"no action":                {func(t *Task) { t.Definition.Action = nil }, "action"},
		"empty action":             {func(t *Task) { t.Definition.Action = &lrp.Action{} }, "inner-action"},
		"action without user":      {func(t *Task) { t.Definition.Action = &lrp.Action{Run: &lrp.RunAction{Path: "x"}} }, "user"},
		"resources at zero":        {func(t *Task) { t.Definition.MemoryMB, t.Definition.DiskMB, t.Definition.MaxPids = 0, 0, 0 }, ""},
		"resources at most":        {func(t *Task) { t.Definition.MemoryMB, t.Definition.MaxPids = math.MaxInt32, math.MaxInt32 }, ""},
		"resources below zero":     {func(t *Task) { t.Definition.MemoryMB, t.Definition.DiskMB, t.Definition.MaxPids = -1, -1, -1 }, "memory_mb,disk_mb,max_pids"},
		"unlimited logs":           {func(t *Task) { t.Definition.LogRateLimit = &unlimited }, ""},
		"no logs":                  {func(t *Task) { t.Definition.LogRateLimit = &none }, ""},
		"log rate below its limit": {func(t *Task) { t.Definition.LogRateLimit = &tooLow }, "log_rate_limit_bytes_per_second"},
		"annotation below":         {func(t *Task) { t.Definition.Annotation = strings.Repeat("x", 10_239) }, ""},
		"annotation at its limit":  {func(t *Task) { t.Definition.Annotation = strings.Repeat("x", 10_240) }, ""},
		"annotation above":         {func(t *Task) { t.Definition.Annotation = strings.Repeat("x", 10_241) }, "annotation"},
		"annotation in bytes":      {func(t *Task) { t.Definition.Annotation = strings.Repeat("é", 5_121) }, "annotation"},
		"egress rule":              {func(t *Task) { t.Definition.EgressRules = allow("all") }, ""},
		"egress rule in capitals":  {func(t *Task) { t.Definition.EgressRules = allow("TCP") }, "protocol"},
		"half of the credentials":  {func(t *Task) { t.Definition.ImageUsername = "me" }, "image_password"},
		"other half":               {func(t *Task) { t.Definition.ImagePassword = "secret" }, "image_username"},
		"dependency":               {func(t *Task) { t.Definition.CachedDependencies = []lrp.CachedDependency{{From: "a"}} }, "cached_dependency"},
		"exclusive layer": {func(t *Task) {
			t.Definition.ImageLayers, t.Definition.LegacyDownloadUser = exclusive, "vcap"
		}, ""},
		"exclusive layer without user": {func(t *Task) { t.Definition.ImageLayers = exclusive }, "legacy_download_user"},
		"both credentials":             {func(t *Task) { t.Definition.ImageUsername, t.Definition.ImagePassword = "me", "secret" }, ""},
		"what is not checked": {func(t *Task) {
			t.Definition.Env = []lrp.EnvVar{{}}
			t.Definition.VolumeMounts = []lrp.VolumeMount{{}}
			t.Definition.MetricTags = map[string]lrp.MetricTag{"x": {}}
			t.Definition.VolumeMountedFiles = []lrp.File{{Content: strings.Repeat("x", 2<<20)}}
			t.Definition.CompletionCallbackURL = "::no url"
		}, ""},
		"several at once": {func(t *Task) { *t = Task{} }, "task_guid,domain,rootfs,action"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := valid()
			c.change(&task)
			if got := fields(t, task.Validate()); got != c.fields {
				t.Errorf("named %q, want %q", got, c.fields)
			}
		})
	}
}

// TestEventsMustSayWhatTheyMean checks the rows of bbs reference §2.6 about tasks.
func TestEventsMustSayWhatTheyMean(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 256)
	other := valid()
	for name, c := range map[string]struct {
		event  Event
		fields string
	}{
		"unknown":                   {Event{Name: "explode", GUID: "task"}, "event"},
		"desire of nothing":         {Event{Name: Desire, GUID: "task"}, "task_definition"},
		"desire of another":         {Event{Name: Desire, GUID: "b", Task: &other}, "task_guid"},
		"start":                     {Event{Name: Start, GUID: "task", Cell: "a"}, ""},
		"start without cell":        {Event{Name: Start, GUID: "task"}, "cell_id"},
		"start of a bad GUID":       {Event{Name: Start, GUID: "a b", Cell: "a"}, "task_guid"},
		"start on a long cell":      {Event{Name: Start, GUID: "task", Cell: lrp.CellID(long)}, "cell_id"},
		"complete without both":     {Event{Name: Complete}, "task_guid,cell_id"},
		"reject":                    {Event{Name: Reject, GUID: "a b", Reason: "r"}, ""},
		"reject without reason":     {Event{Name: Reject, GUID: "task"}, "rejection_reason"},
		"fail without reason":       {Event{Name: Fail, GUID: "task"}, ""},
		"cancel without GUID":       {Event{Name: Cancel}, "task_guid"},
		"delete of a GUID too long": {Event{Name: Delete, GUID: GUID(long)}, "task_guid"},
		"lose without cell":         {Event{Name: Lose, GUID: "task"}, "cell_id"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := fields(t, c.event.Validate()); got != c.fields {
				t.Errorf("named %q, want %q", got, c.fields)
			}
			if c.fields == "" {
				return
			}
			if _, err := Apply(nil, c.event, DefaultPolicy(), testNow); fields(t, err) != c.fields {
				t.Errorf("applied: %v", err)
			}
		})
	}
	if _, err := Apply(desired(), Event{Name: Cancel, GUID: "another"}, DefaultPolicy(), testNow); err == nil {
		t.Error("an event met the task of another GUID")
	}
}

// fields returns the fields that an error names, in their order.
func fields(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var invalid *lrp.Invalid
	if !errors.As(err, &invalid) {
		t.Fatalf("not invalid: %v", err)
	}
	var names []string
	for _, f := range invalid.Fields {
		names = append(names, f.Field)
	}
	return strings.Join(slices.Compact(names), ",")
}
