package hub

import (
	"muster/bbs/internal/store"
	"muster/bbs/lrp"
	"muster/bbs/task"
)

// Filter chooses changes; zero members choose all, set ones are combined with AND. With a cell only
// changes of instances and tasks pass that are or were on it; with a process, none of tasks; with a
// task, only its own; with any member set, no changes of cells do.
type Filter struct {
	Cell lrp.CellID
	// ByCell tells that the cell itself watches. What it has told is no news to it, and waits until there is
	// some, or a bookmark is due.
	ByCell  bool
	Domain  lrp.Domain
	Process lrp.ProcessGUID
	Task    task.GUID
}

// passes tells whether an entry passes the filter.
func (f Filter) passes(r *store.Record) bool {
	return (f.Cell == "" || r.CellBefore == f.Cell || r.CellAfter == f.Cell) &&
		(f.Domain == "" || r.Domain == f.Domain) &&
		(f.Process == "" || r.Process == f.Process) &&
		(f.Task == "" || r.Task == f.Task)
}

// urgent tells whether the watch is to be told of an entry at once.
func (f Filter) urgent(r *store.Record) bool { return !f.ByCell || !r.Told || r.CellAfter != f.Cell }

// shelf is where a watch is kept: by the one member of its filter that the fewest entries pass. An
// entry is shown only to the watches of the shelves that it names, so the others cost it nothing.
type shelf struct {
	kind byte
	name string
}

// The kinds of shelves.
const (
	ofAll byte = iota
	ofTask
	ofProcess
	ofCell
	ofDomain
)

// shelf returns where a watch with this filter is kept.
func (f Filter) shelf() shelf {
	switch {
	case f.Task != "":
		return shelf{ofTask, string(f.Task)}
	case f.Process != "":
		return shelf{ofProcess, string(f.Process)}
	case f.Cell != "":
		return shelf{ofCell, string(f.Cell)}
	case f.Domain != "":
		return shelf{ofDomain, string(f.Domain)}
	}
	return shelf{ofAll, ""}
}

// shelves calls visit for each shelf whose watches an entry may concern, once.
func shelves(r *store.Record, visit func(shelf)) {
	visit(shelf{ofAll, ""})
	for _, s := range [...]shelf{
		{ofTask, string(r.Task)}, {ofProcess, string(r.Process)}, {ofDomain, string(r.Domain)}, {ofCell, string(r.CellBefore)},
	} {
		if s.name != "" {
			visit(s)
		}
	}
	if r.CellAfter != "" && r.CellAfter != r.CellBefore {
		visit(shelf{ofCell, string(r.CellAfter)})
	}
}
