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
	b.WriteString("- `Create` makes an UNCLAIMED record when a slot becomes wanted.\n" +
		"- `Retire` marks a CLAIMED or RUNNING instance as *retiring*: routers drop it at once, its cell stops it and calls\n" +
		"  `Remove`. Any other record it removes at once.\n" +
		"- Whatever removes the record of a wanted slot leaves a new UNCLAIMED one in its place, in the same step.\n\n")
	writeMatrix(&b)
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
		if inside || line == "//" && len(lines) > 0 {
			lines = append(lines, drawn)
		} else if len(lines) > 0 {
			break
		}
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "/\n") + "\n"
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
	for _, on := range EventNames() {
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

func writeRules(b *strings.Builder) {
	b.WriteString("## All rules\n\nNo two overlap. The caller is the first that fits: *suspect* is the suspect instance of the slot, *foreigner* a Start that\n" +
		"names another domain, *nobody* a call without instance key, *holder* the ordinary instance, *stranger* any other.\n\n" +
		"| event | ordinary instance | caller | if | what is done | ordinary instance then |\n|---|---|---|---|---|---|\n")
	for _, r := range rules {
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s |\n", title(r.On), states(r.From), callerSet(r.By), facts(r), meaning(r.Do), then(r))
	}
	b.WriteString("\n")
}

func title(on EventName) string { return strings.ToUpper(string(on[:1])) + string(on[1:]) }

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
	for i, name := range []string{"suspect", "foreigner", "nobody", "holder", "stranger"} {
		if set&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

func facts(r Rule) string {
	var all []string
	for i, name := range []string{"wanted", "retiring", "back-off over"} {
		if r.If&(1<<i) != 0 {
			all = append(all, name)
		}
		if r.Not&(1<<i) != 0 {
			all = append(all, "not "+name)
		}
	}
	return strings.Join(all, ", ")
}

func meaning(d Deed) string {
	return map[Deed]string{
		DoNothing:     "nothing",
		DoCreate:      "a new record",
		DoAssign:      "the caller gets the slot; addresses and placement error go",
		DoReport:      "what is reported is kept",
		DoTakePlace:   "what is reported is kept; evacuating and suspect instances go",
		DoCount:       "the crash counts and is reported; crash policy",
		DoNote:        "the placement error is kept; the same one again writes nothing",
		DoMark:        "the instance is marked retiring",
		DoRemove:      "the record goes",
		DoCrashRemove: "the record goes, the crash is reported",
		DoDropSuspect: "the suspect record goes",
		DoUnclaim:     "the instance may be placed again; the crash count stays",
	}[d]
}

func then(r Rule) string {
	switch {
	case len(r.To) == len(anywhere()):
		return "as before"
	case r.Do == DoNothing || r.Do == DoMark:
		return "as before"
	}
	return states(r.To)
}

func writeRefusals(b *strings.Builder) {
	b.WriteString("## Refusals\n\nWhat the caller is told when no rule applies.\n\n| event | without ordinary instance | otherwise |\n|---|---|---|\n")
	for _, on := range EventNames() {
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
	found := regexp.MustCompile(`(?m)^//\t(I\d+)  (.+)$`).FindAllStringSubmatch(string(source), -1)
	if len(found) == 0 {
		t.Fatal("doc.go names no invariants")
	}
	b.WriteString("## Invariants\n\nNo event breaks them.\n\n| | |\n|---|---|\n")
	for _, m := range found {
		fmt.Fprintf(b, "| %s | %s |\n", m[1], m[2])
	}
}
