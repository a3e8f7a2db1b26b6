package lrp

// What tasks have in common with processes is checked by the rules for processes: this file is the door
// through which bbs/task asks. It adds no rule of its own.

// TaskErrors checks what a task has in common with a process (bbs reference §2.5). The caller puts into
// d what a task is checked for, which is domain, root file system, resources, annotation, and of the
// run info action, egress rules, cached dependencies, image layers with the user who downloads them,
// image credentials and log rate. Nothing else of d is looked at, but for the rest of the run info,
// which must be empty.
func TaskErrors(guid string, d Desired) []FieldError {
	c := newChecker()
	c.guid("task_guid", guid)
	c.required("domain", string(d.Domain))
	c.name("domain", string(d.Domain))
	c.rootFS(d.RootFS)
	c.notNegative("memory_mb", d.MemoryMB)
	c.notNegative("disk_mb", d.DiskMB)
	c.notNegative("max_pids", d.MaxPids)
	c.annotation(d.Annotation)
	c.recipe(d.RunInfo)
	return *c.found
}

// TaskGUIDErrors checks the GUID of a task as a process GUID is checked.
func TaskGUIDErrors(guid string) []FieldError {
	c := newChecker()
	c.guid("task_guid", guid)
	return *c.found
}

// NameErrors checks a value that is stored in a column of bounded width, such as a cell id.
func NameErrors(field, value string, required bool) []FieldError {
	c := newChecker()
	if required {
		c.required(field, value)
	}
	c.name(field, value)
	return *c.found
}

// TextErrors checks a text that must be there.
func TextErrors(field, value string) []FieldError {
	c := newChecker()
	c.required(field, value)
	return *c.found
}

// StorableReason returns a reason that fits its column: of at most MaxReasonBytes, cut between
// characters and marked, and without what PostgreSQL refuses.
func StorableReason(reason string) string { return storable(reason) }

// StorableText returns a text without what PostgreSQL refuses, of any length.
func StorableText(s string) string { return text(s) }
