package wire

import (
	"reflect"
	"time"

	"pgregory.net/rapid"

	"muster/bbs/event"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
)

// maxTestDepth bounds how deeply generated actions nest.
const maxTestDepth = 3

// anything generates values of any domain type: every field of it, by reflection, so that a field
// added later is covered without a change here.
func anything[T any]() *rapid.Generator[T] {
	return rapid.MakeCustom[T](rapid.MakeConfig{Types: map[reflect.Type]*rapid.Generator[any]{
		reflect.TypeFor[time.Time]():         times().AsAny(),
		reflect.TypeFor[*lrp.Action]():       actions(maxTestDepth).AsAny(),
		reflect.TypeFor[[]string]():          short(rapid.String()).AsAny(),
		reflect.TypeFor[[]uint32]():          short(rapid.Uint32()).AsAny(),
		reflect.TypeFor[[]byte]():            rapid.SliceOfN(rapid.Byte(), 0, 8).AsAny(),
		reflect.TypeFor[cells.Provider]():    providers().AsAny(),
		reflect.TypeFor[map[string]string](): rapid.MapOfN(rapid.String(), rapid.String(), 0, 3).AsAny(),
	}})
}

// times are whole nanoseconds in UTC, as they come off the wire; the zero time among them.
func times() *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		return decodeTime(rapid.Int64().Draw(t, "ns"))
	})
}

func short[E any](elem *rapid.Generator[E]) *rapid.Generator[[]E] { return rapid.SliceOfN(elem, 0, 3) }

func providers() *rapid.Generator[cells.Provider] {
	return rapid.Map(short(rapid.String()), func(names []string) cells.Provider {
		return cells.Provider{Names: names}
	})
}

// actions generates an action, or nil, with one member.
func actions(depth int) *rapid.Generator[*lrp.Action] {
	return rapid.Custom(func(t *rapid.T) *lrp.Action {
		if rapid.IntRange(0, 4).Draw(t, "absent") == 0 {
			return nil
		}
		return drawAction(t, depth)
	})
}

func drawAction(t *rapid.T, depth int) *lrp.Action {
	last := 8
	if depth == 0 {
		last = 2 // only what nests nothing
	}
	list := func() []*lrp.Action {
		var all []*lrp.Action
		for range rapid.IntRange(0, 2).Draw(t, "elements") {
			all = append(all, drawAction(t, depth-1))
		}
		return all
	}
	text := func() string { return rapid.String().Draw(t, "text") }
	switch rapid.IntRange(0, last).Draw(t, "member") {
	case 0:
		return &lrp.Action{Download: rapid.Ptr(anyPlain[lrp.DownloadAction](), false).Draw(t, "download")}
	case 1:
		return &lrp.Action{Upload: rapid.Ptr(anyPlain[lrp.UploadAction](), false).Draw(t, "upload")}
	case 2:
		return &lrp.Action{Run: rapid.Ptr(anyPlain[lrp.RunAction](), false).Draw(t, "run")}
	case 3:
		return &lrp.Action{Timeout: &lrp.TimeoutAction{
			Action: actions(depth-1).Draw(t, "inner"), TimeoutMS: rapid.Int64().Draw(t, "ms"), LogSource: text(),
		}}
	case 4:
		return &lrp.Action{EmitProgress: &lrp.EmitProgressAction{
			Action: actions(depth-1).Draw(t, "inner"), StartMessage: text(), SuccessMessage: text(),
			FailureMessagePrefix: text(), LogSource: text(),
		}}
	case 5:
		return &lrp.Action{Try: &lrp.TryAction{Action: actions(depth-1).Draw(t, "inner"), LogSource: text()}}
	case 6:
		return &lrp.Action{Parallel: &lrp.ParallelAction{Actions: list(), LogSource: text()}}
	case 7:
		return &lrp.Action{Serial: &lrp.SerialAction{Actions: list(), LogSource: text()}}
	default:
		return &lrp.Action{Codependent: &lrp.CodependentAction{Actions: list(), LogSource: text()}}
	}
}

// anyPlain generates values of types that contain no action.
func anyPlain[T any]() *rapid.Generator[T] {
	return rapid.MakeCustom[T](rapid.MakeConfig{Types: map[reflect.Type]*rapid.Generator[any]{
		reflect.TypeFor[[]string](): short(rapid.String()).AsAny(),
	}})
}

// changes generates committed changes of every kind, and of no kind.
func changes() *rapid.Generator[event.Event] {
	return rapid.Custom(func(t *rapid.T) event.Event {
		ev := event.Event{
			Revision: rapid.Uint64().Draw(t, "revision"), At: times().Draw(t, "at"),
			TraceID: rapid.String().Draw(t, "trace"),
		}
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0:
			ev.Desired = &event.DesiredChange{
				Before: rapid.Ptr(summaries(), true).Draw(t, "before"), After: rapid.Ptr(summaries(), true).Draw(t, "after"),
			}
		case 1:
			c := anything[lrp.Change]().Draw(t, "actual")
			ev.Actual = &c
		case 2:
			c := anything[lrp.CrashReport]().Draw(t, "crash")
			ev.Crash = &c
		case 3:
			ev.Cell = &event.CellChange{
				Before: rapid.Ptr(presences(), true).Draw(t, "before"), After: rapid.Ptr(presences(), true).Draw(t, "after"),
			}
		case 4:
			c := anything[task.Change]().Draw(t, "task")
			ev.Task = &c
		}
		return ev
	})
}

// summaries generates what is left of a DesiredLRP without its recipe; drivers are named once.
func summaries() *rapid.Generator[lrp.SchedulingInfo] {
	return rapid.Map(anything[lrp.Desired](), lrp.Desired.SchedulingInfo)
}

// presences generates what cells announce: a cell without URL has no address to announce either.
func presences() *rapid.Generator[cells.Presence] {
	return rapid.Map(anything[cells.Presence](), func(p cells.Presence) cells.Presence {
		if p.RepURL != "" {
			p.RepURL = "https://" + p.RepURL
		}
		return p
	})
}
