package lrp

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// document is the file that TestDocument writes from the rules.
const document = "../../docs/actual-lrp.md"

// TestDocument writes the rules as a page for people, and fails when the page says anything else.
func TestDocument(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(introduction)
	b.WriteString("```\n" + picture(t) + "```\n\n")
	b.WriteString(story)
	writeMatrix(&b)
	writeEvacuation(&b)
	writeSuspects(&b)
	writeRules(&b)
	writeRefusals(&b)
	writePolicy(&b)
	writeInvariants(t, &b)
	compare(t, document, b.String())
}

const introduction = `# The life of an ActualLRP

This page is written by a test from the rule table of ` + "`bbs/lrp/machine.go`" + `, which is also what the BBS runs. To change it,
change the rules and run ` + "`go test ./bbs/lrp -update`" + `.

A **slot** is a process GUID and an index. Its **group** holds up to three records: the *ordinary* instance, an *evacuating*
one on a cell that is drained, and a *suspect* one on a cell that went silent. A slot is **wanted** when its process is
desired with more instances than the slot's index. An event that no rule covers is refused and changes nothing.

`

const story = "- `Create` makes an UNCLAIMED record when a slot becomes wanted.\n" +
	"- `Retire` marks a CLAIMED or RUNNING instance as *retiring*: routers drop it at once, its cell stops it and calls\n" +
	"  `Remove`. Any other record it removes at once. Of a slot that nobody wants it winds up all instances.\n" +
	"- Whatever removes the record of a wanted slot, or moves it to another place, leaves a new UNCLAIMED one, in the same step.\n\n" +
	"**When a cell is drained** it calls `EvacuateRunning` for each instance that runs, again and again. The instance moves to\n" +
	"the *evacuating* place, where it keeps its routes, and the slot is filled anew. The answer *keep* says that the container\n" +
	"must run on. Once the replacement is RUNNING, its `Start` removes the evacuating record, and the next call is answered\n" +
	"without *keep*: the cell deletes the container. A process with the strategy *recreate* never runs two instances of a slot:\n" +
	"there the instance is stopped first, but only while all instances of the process are RUNNING, so that one is down at a time.\n\n" +
	"**When a cell falls silent**, `Lose` moves its instances to the *suspect* place: they keep their routes, because the cell may\n" +
	"be well and only unheard, and the slot is filled anew. Whichever side runs first wins. If the replacement does, its `Start`\n" +
	"removes the suspect record. If the cell is back before, `Return` gives the slot back to its instance, and the start of the\n" +
	"replacement is all that a false alarm cost. `Discard` removes what nobody waits for any more.\n\n" +
	"**A record follows its instance** from place to place with its epoch; its tag grows with each move, `since` does not change\n" +
	"unless something else does.\n\n"

// picture returns the drawing above the rules, so that it exists once.
func picture(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile("machine.go")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, line := range strings.Split(string(source), "\n") {
		drawn, inside := strings.CutPrefix(line, "//\t")
		if !inside {
			drawn = ""
		}
		if inside || line == "//" && len(lines) > 0 {
			lines = append(lines, drawn)
		} else if len(lines) > 0 {
			break
		}
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "/\n") + "\n"
}

// life are the events of a slot without siblings; the others are of evacuation and convergence.
func life() []EventName {
	return []EventName{Create, Claim, Start, Crash, Fail, Retire, Remove, Restart}
}

// writeMatrix writes what each event does in each state to a wanted slot without siblings.
func writeMatrix(b *strings.Builder) {
	b.WriteString("## At a glance\n\nWhat happens to the ordinary instance of a wanted slot. *Same* and *other* say whether the caller holds the slot;\n" +
		"*new record* means UNCLAIMED with a new epoch; — means accepted, but nothing is written.\n\n")
	type column struct {
		name  string
		state State
		by    InstanceKey
	}
	columns := []column{
		{"no record", NoInstance, bob}, {"UNCLAIMED", Unclaimed, bob}, {"CLAIMED, same", Claimed, alice}, {"CLAIMED, other", Claimed, bob},
		{"RUNNING, same", Running, alice}, {"RUNNING, other", Running, bob}, {"CRASHED", Crashed, bob},
	}
	b.WriteString("| event |")
	for _, c := range columns {
		fmt.Fprintf(b, " %s |", c.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	for _, on := range life() {
		fmt.Fprintf(b, "| **%s** |", title(on))
		for _, c := range columns {
			g := Group{Wanted: true}
			if c.state != NoInstance {
				g.Ordinary = record(c.state, Ordinary, alice)
			}
			after, crashes, err := applied(g, reportOf(on, c.by), testNow)
			text := outcome(g, after, err)
			switch {
			case text == "-":
				text = "—"
			case err != nil:
				text = "*" + text + "*"
			case len(crashes) > 0:
				text += " or CRASHED, by the crash policy"
			case after.Ordinary.Tag.Epoch == "new" && after.Ordinary.State == Unclaimed:
				text = "new record"
			case after.Ordinary.Retiring:
				text = "marked retiring"
			}
			fmt.Fprintf(b, " %s |", text)
		}
		b.WriteString("\n")
	}
	b.WriteString("\nA Start by the holder that says nothing new writes nothing. A Start that names another domain than the record is refused.\n\n")
}

// glance writes what an event by each caller does to a wanted slot, for each state of its ordinary instance.
func glance(b *strings.Builder, first string, columns []*Actual, lines []glanceLine) {
	fmt.Fprintf(b, "| %s |", first)
	for _, a := range columns {
		fmt.Fprintf(b, " %s |", a.State)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	for _, l := range lines {
		fmt.Fprintf(b, "| %s |", l.name)
		for _, a := range columns {
			g := l.group
			g.Wanted, g.Ordinary = true, a
			ev := reportOf(l.on, l.by)
			if l.by == alice && a.InstanceKey != alice {
				b.WriteString(" |")
				continue
			}
			out, err := Apply(g, ev, testNow)
			fmt.Fprintf(b, " %s |", sentence(g, out, err, ev))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
}

type glanceLine struct {
	name  string
	on    EventName
	by    InstanceKey
	group Group // without ordinary instance
}

// sentence says in words what became of the caller, of the slot and of the container.
func sentence(g Group, out Outcome, err error, ev Event) string {
	if err != nil {
		return "*" + outcome(g, g, err) + "*"
	}
	var parts []string
	if len(out.Crashes) > 0 {
		return "the crash counts, and is reported"
	}
	for _, c := range Diff(g, out.Group) {
		named := ev.By
		switch {
		case c.After == nil && c.Before.InstanceKey == named:
			parts = append(parts, "it goes")
		case c.After == nil && c.Before.Presence == Ordinary:
			parts = append(parts, "the ordinary one goes")
		case c.After == nil:
			parts = append(parts, "the "+strings.TrimSpace(showPlace(c.Before))+" one goes")
		case c.Before == nil && c.After.InstanceKey.IsZero():
			parts = append(parts, "the slot is filled anew")
		case c.After.InstanceKey.IsZero():
			parts = append(parts, "its slot is "+string(c.After.State))
		case c.After.Retiring:
			parts = append(parts, "it retires")
		case c.After.Presence == Ordinary && (c.Before == nil || c.Before.Presence != Ordinary):
			parts = append(parts, "it has the slot")
		case c.Before == nil || c.After.Presence != c.Before.Presence:
			parts = append(parts, "it is "+strings.TrimSpace(showPlace(c.After)))
		default:
			parts = append(parts, "it is "+string(c.After.State))
		}
	}
	if len(parts) == 0 {
		parts = []string{"—"}
	}
	if ev.Name == EvacuateRunning && out.Keep {
		parts = append(parts, "**keep**")
	}
	return strings.Join(parts, "; ")
}

// places are ordinary instances in the states that matter, held by alice or, where asked, by bob.
func places(by InstanceKey) []*Actual {
	return []*Actual{record(Unclaimed, Ordinary, nobody), record(Claimed, Ordinary, by), record(Running, Ordinary, by), record(Crashed, Ordinary, nobody)}
}

func writeEvacuation(b *strings.Builder) {
	evacuating, suspect := record(Running, Evacuating, evan), record(Running, Suspect, susan)
	b.WriteString("## EvacuateRunning at a glance\n\nWhat happens to the caller, by who it is, and by the state of the ordinary instance of the wanted slot: its own or, for\n" +
		"all others, another's. Where nobody wants the slot siblings go and the ordinary instance retires, without *keep*.\n\n")
	var lines []glanceLine
	for _, s := range []struct {
		name  string
		group Group
	}{
		{"rolling", Group{}}, {"recreate, all RUNNING", Group{Strategy: Recreate, Complete: true}}, {"recreate, not all RUNNING", Group{Strategy: Recreate}},
	} {
		lines = append(lines, glanceLine{"the ordinary instance, " + s.name, EvacuateRunning, alice, s.group})
	}
	glance(b, "caller", places(alice), lines)
	glance(b, "caller", places(bob), []glanceLine{
		{"the evacuating instance", EvacuateRunning, evan, Group{Evacuating: evacuating}},
		{"the evacuating instance, recreate", EvacuateRunning, evan, Group{Evacuating: evacuating, Strategy: Recreate}},
		{"the suspect instance", EvacuateRunning, susan, Group{Suspect: suspect}},
		{"the suspect instance, another evacuates", EvacuateRunning, susan, Group{Evacuating: evacuating, Suspect: suspect}},
		{"one without a record", EvacuateRunning, stray, Group{}},
		{"one without a record, another evacuates", EvacuateRunning, stray, Group{Evacuating: evacuating}},
	})
	b.WriteString("The other calls say that an instance ended or never began. Of a sibling, the record goes. Of the ordinary instance:\n\n")
	glance(b, "event", []*Actual{record(Claimed, Ordinary, alice), record(Running, Ordinary, alice)}, []glanceLine{
		{"EvacuateClaimed", EvacuateClaimed, alice, Group{}}, {"EvacuateCrashed", EvacuateCrashed, alice, Group{}}, {"EvacuateStopped", EvacuateStopped, alice, Group{}},
	})
	b.WriteString("When an event cannot be decided, because it is invalid or the store does not answer, *keep* is the answer to ")
	var kept []string
	for _, on := range EventNames() {
		if on.KeepUndecided() {
			kept = append(kept, title(on))
		}
	}
	b.WriteString(strings.Join(kept, " and ") + ".\n\n")
}

func writeSuspects(b *strings.Builder) {
	suspect := record(Running, Suspect, susan)
	b.WriteString("## Suspects at a glance\n\nOf a wanted slot, by the state of its ordinary instance. `By` names the instance that is meant; of any other, nothing happens.\n\n")
	glance(b, "event", places(alice), []glanceLine{
		{"Lose of the ordinary instance", Lose, alice, Group{}},
		{"Lose of a replacement, while another is suspect", Lose, alice, Group{Suspect: suspect}},
		{"Return of the suspect instance", Return, susan, Group{Suspect: suspect}},
		{"Discard of the suspect instance", Discard, susan, Group{Suspect: suspect}},
		{"Discard of the evacuating instance", Discard, evan, Group{Evacuating: record(Running, Evacuating, evan)}},
		{"Start by the ordinary instance", Start, alice, Group{Suspect: suspect}},
		{"Start by the suspect instance, without news", Start, susan, Group{Suspect: suspect}},
		{"Crash or Remove by the suspect instance", Crash, susan, Group{Suspect: suspect}},
	})
}

func writeRules(b *strings.Builder) {
	b.WriteString("## All rules\n\nNo two overlap. The caller is the first that fits: *suspect* and *evacuating* are these instances of the slot, *foreigner* a\n" +
		"report (Start, EvacuateRunning) of another domain, *nobody* an event without instance key, *holder* the ordinary instance,\n" +
		"*stranger* any other. *Settled*: the ordinary instance is CRASHED, or RUNNING and not retiring. *Leaving*: the caller is\n" +
		"evacuating and retiring. *Retiring* is said of the ordinary instance; an evacuating one that retires does not count as there.\n")
	group := ""
	for _, r := range rules {
		if name := titles(r.On); name != group {
			group = name
			fmt.Fprintf(b, "\n**%s**\n\n| ordinary instance | caller | if | what is done | ordinary instance then |\n|---|---|---|---|---|\n", name)
		}
		done := meaning(r.Do)
		if r.Keep {
			done += "; **keep**"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", states(r.From), callerSet(r.By), facts(r), done, then(r))
	}
	b.WriteString("\n")
}

func titles(list []EventName) string {
	var names []string
	for _, on := range list {
		names = append(names, title(on))
	}
	return strings.Join(names, ", ")
}

func title(on EventName) string {
	var b strings.Builder
	for word := range strings.SplitSeq(string(on), "_") {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}

func states(list []State) string {
	if len(list) == len(anywhere()) {
		return "any or none"
	}
	var names []string
	for _, s := range list {
		if s == NoInstance {
			s = "none"
		}
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

func callerSet(set Caller) string {
	if set == Anyone {
		return "anyone"
	}
	var names []string
	var others []string
	for i, name := range []string{"suspect", "evacuating", "foreigner", "nobody", "holder", "stranger"} {
		if set&(1<<i) != 0 {
			names = append(names, name)
		} else {
			others = append(others, name)
		}
	}
	if len(others) <= 2 {
		return "anyone but " + strings.Join(others, ", ")
	}
	return strings.Join(names, ", ")
}

func facts(r Rule) string {
	var all []string
	for i, name := range []string{
		"wanted", "retiring", "back-off over", "settled", "leaving", "has an evacuating one", "has a suspect", "has a sibling", "recreate", "all RUNNING",
	} {
		if r.If&(1<<i) != 0 {
			all = append(all, name)
		}
		if r.Not&(1<<i) != 0 {
			all = append(all, "not "+name)
		}
	}
	return strings.ReplaceAll(strings.Join(all, ", "), "not has", "has not")
}

func meaning(d Deed) string {
	return map[Deed]string{
		DoNothing:     "nothing",
		DoCreate:      "a new record",
		DoAssign:      "the caller gets the slot; addresses, placement error and its explanation go",
		DoReport:      "the record of the caller says what is reported",
		DoTakePlace:   "the caller has the slot, as reported; its siblings go",
		DoCount:       "the crash counts and is reported; crash policy",
		DoNote:        "the placement error is kept with its explanation; the same ones again write nothing",
		DoMark:        "the instance is marked retiring",
		DoWindUp:      "CLAIMED, RUNNING and evacuating instances are marked retiring; other records go",
		DoRemove:      "the record goes",
		DoCrashRemove: "the record goes, the crash is reported",
		DoDrop:        "the record of the caller goes",
		DoUnclaim:     "the slot may be filled again; the crash count stays",
		DoEvacuate:    "the caller becomes evacuating, as reported; if it had the slot, its siblings go",
		DoSuspect:     "the instance becomes suspect",
		DoReturn:      "the suspect has the slot again; the record there goes",
	}[d]
}

func then(r Rule) string {
	switch {
	case len(r.To) == len(anywhere()):
		return "as before"
	case r.Do == DoNothing || r.Do == DoMark || r.Do == DoDrop:
		return "as before"
	}
	return states(r.To)
}

func writeRefusals(b *strings.Builder) {
	b.WriteString("## Refusals\n\nWhat the caller is told when no rule applies. Events that are not here are never refused.\n\n| event | without ordinary instance | otherwise |\n|---|---|---|\n")
	for _, on := range EventNames() {
		if on == EvacuateRunning || on == Lose || on == Return || on == Discard {
			continue // there is a rule for every case
		}
		absent, otherwise := refusals(on)
		fmt.Fprintf(b, "| %s | %s | %s |\n", title(on), absent, otherwise)
	}
	b.WriteString("\n")
}

func writePolicy(b *strings.Builder) {
	fmt.Fprintf(b, "## Crash policy\n\n| what | value |\n|---|---|\n")
	fmt.Fprintf(b, "| crash count after a crash | 1 if it was RUNNING for more than %v since its record last changed, else one more |\n", CrashResetAfter)
	fmt.Fprintf(b, "| restarts at once | crashes 1 to %d in a row |\n", ImmediateRestarts)
	waits, last := []string{}, int32(0)
	for count := int32(ImmediateRestarts + 1); ; count++ {
		waits = append(waits, fmt.Sprint(BackOff(count)))
		if BackOff(count) == MaxBackOff {
			last = count
			break
		}
	}
	fmt.Fprintf(b, "| then CRASHED for | %s after crash %d to %d, and so on |\n", strings.Join(waits, ", "), ImmediateRestarts+1, last)
	fmt.Fprintf(b, "| given up | after %d crashes in a row |\n", MaxRestarts)
	fmt.Fprintf(b, "| an instance told to stop | ends; that is never a crash |\n")
	fmt.Fprintf(b, "| longest stored reason | %d bytes, cut with %q; the crash report has all of it |\n\n", MaxReasonBytes, truncated)
}

// writeInvariants takes the invariants from the package comment.
func writeInvariants(t *testing.T, b *strings.Builder) {
	t.Helper()
	source, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^//\t(I\d+) +(.+)$`).FindAllStringSubmatch(string(source), -1)
	if len(found) == 0 {
		t.Fatal("doc.go names no invariants")
	}
	b.WriteString("## Invariants\n\nNo event breaks them.\n\n| | |\n|---|---|\n")
	for _, m := range found {
		fmt.Fprintf(b, "| %s | %s |\n", m[1], m[2])
	}
}
