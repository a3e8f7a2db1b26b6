package task

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"muster/bbs/lrp"
)

// document is the file that TestDocument writes from the rules.
const document = "../../docs/task.md"

// TestDocument writes the rules as a page for people, and fails when the page says anything else.
func TestDocument(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(introduction)
	b.WriteString("```\n" + picture(t) + "```\n\n")
	writeMatrix(t, &b)
	writeRules(t, &b)
	writePolicy(&b)
	writeInvariants(t, &b)
	compare(t, document, b.String())
}

const introduction = `# The life of a task

This page is written by a test from the rule table of ` + "`bbs/task/machine.go`" + `, which is also what the BBS runs. To change it,
change the rules and run ` + "`go test ./bbs/task -update`" + `.

A task runs **at most once**. The one way back from RUNNING is a Reject by the cell that has it, which says so only of a
task of which nothing has run. An event that no rule covers is refused and changes nothing.

`

// picture returns the drawing above the rules, so that it exists once.
func picture(t *testing.T) string {
	t.Helper()
	var lines []string
	for _, line := range strings.Split(source(t, "machine.go"), "\n") {
		drawn, inside := strings.CutPrefix(line, "//\t")
		if inside {
			lines = append(lines, drawn)
		} else if len(lines) > 0 {
			break
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

func source(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// writeMatrix writes what each event does in each state.
func writeMatrix(t *testing.T, b *strings.Builder) {
	t.Helper()
	b.WriteString("## At a glance\n\n*Same* and *other* say whether the calling cell runs the task; — means accepted, but nothing is written.\n" +
		"What convergence does (Expire, Lose, Kick, Forget) is shown for tasks whose time is over.\n\n")
	columns := []struct {
		name  string
		state State
		cell  lrp.CellID
	}{
		{"no task", NoTask, "a"}, {"PENDING", Pending, "a"}, {"RUNNING, same", Running, "a"}, {"RUNNING, other", Running, "b"},
		{"COMPLETED", Completed, "a"}, {"RESOLVING", Resolving, "a"},
	}
	b.WriteString("| event |")
	for _, c := range columns {
		fmt.Fprintf(b, " %s |", c.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	for _, on := range EventNames() {
		fmt.Fprintf(b, "| **%s** |", title(on))
		for _, c := range columns {
			s := meeting(on, c.state, c.state != NoTask, 0, c.cell)
			out, err := Apply(s.task, s.event, DefaultPolicy(), testNow)
			var refused *Refusal
			switch change := Diff(s.task, out.Task); {
			case errors.As(err, &refused):
				fmt.Fprintf(b, " *%s* |", refused.Why)
			case err != nil:
				t.Fatalf("%s: %v", s.name, err)
			case change == nil:
				b.WriteString(" — |")
			case out.Task == nil:
				b.WriteString(" gone |")
			case out.Task.Failed:
				fmt.Fprintf(b, " %s, failed |", capitals(out.Task.State))
			default:
				fmt.Fprintf(b, " %s |", capitals(out.Task.State))
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
}

func writeRules(t *testing.T, b *strings.Builder) {
	t.Helper()
	b.WriteString("## All rules\n\nNo two overlap. The caller is the cell that the event names: *nobody* when it names none, *holder* the cell that runs the\n" +
		"task, *stranger* any other.\n\n| event | task | caller | if | what is done | task then |\n|---|---|---|---|---|---|\n")
	for _, r := range rules {
		var from, callers, facts []string
		for _, s := range r.From {
			from = append(from, capitals(s))
		}
		for i, name := range []string{"nobody", "holder", "stranger"} {
			if r.By&(1<<i) != 0 && r.By != Anyone {
				callers = append(callers, name)
			}
		}
		if r.By == Anyone {
			callers = []string{"anyone"}
		}
		for i, name := range []string{"rejected too often", "time over"} {
			if r.If&(1<<i) != 0 {
				facts = append(facts, name)
			}
			if r.Not&(1<<i) != 0 {
				facts = append(facts, "not "+name)
			}
		}
		then := capitals(r.To)
		if r.Do == DoNothing {
			then = "as before"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s |\n", title(r.On), strings.Join(from, ", "), strings.Join(callers, ", "),
			strings.Join(facts, ", "), meaning(t, r.Do), then)
	}
	b.WriteString("\n")
}

// meaning returns what a deed does, from the comment beside it.
func meaning(t *testing.T, d Deed) string {
	t.Helper()
	found := regexp.MustCompile(`Deed = "` + string(d) + `" +// (.*)`).FindStringSubmatch(source(t, "machine.go"))
	if found == nil {
		t.Fatalf("no word about %q", d)
	}
	for name, text := range map[string]string{"ReasonCancelled": ReasonCancelled, "ReasonExpired": ReasonExpired, "ReasonLost": ReasonLost} {
		found[1] = strings.ReplaceAll(found[1], name, `"`+text+`"`)
	}
	return found[1]
}

func writePolicy(b *strings.Builder) {
	p := DefaultPolicy()
	fmt.Fprintf(b, "## Times and limits\n\n| what | default |\n|---|---|\n")
	fmt.Fprintf(b, "| rejections that leave a task PENDING; the next one fails it | %d |\n", p.MaxRejections)
	fmt.Fprintf(b, "| PENDING since its creation, then it fails | %v |\n", p.ExpirePending)
	fmt.Fprintf(b, "| RESOLVING since its last change, then it is COMPLETED again | %v |\n", p.Kick)
	fmt.Fprintf(b, "| COMPLETED since its last change, then its callback is tried again | %v |\n", p.Kick)
	fmt.Fprintf(b, "| COMPLETED since it ended, then it is forgotten | %v |\n", p.ExpireCompleted)
	fmt.Fprintf(b, "| longest stored reason | %d bytes |\n\n", lrp.MaxReasonBytes)
}

// writeInvariants takes the invariants from the package comment.
func writeInvariants(t *testing.T, b *strings.Builder) {
	t.Helper()
	b.WriteString("## Invariants\n\n")
	found := regexp.MustCompile(`(?m)^//\t(T\d+)  (.*)$`).FindAllStringSubmatch(source(t, "doc.go"), -1)
	if len(found) == 0 {
		t.Fatal("doc.go lists no invariants")
	}
	for _, m := range found {
		fmt.Fprintf(b, "- **%s** %s\n", m[1], m[2])
	}
}

func title(on EventName) string { return strings.ToUpper(string(on[:1])) + string(on[1:]) }

func capitals(s State) string {
	if s == NoTask {
		return "none"
	}
	return strings.ToUpper(s.String())
}
