package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/charmbracelet/lipgloss"
	"github.com/charmbracelet/lipgloss/table"
	"golang.org/x/term"
)

// terminal returns w's width when w is a terminal, else 0.
func terminal(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 40 {
		return 80
	}
	return width
}

// grid is a table.
type grid struct {
	head []string
	rows [][]string
}

func (g *grid) add(cells ...string) { g.rows = append(g.rows, cells) }

// print draws g on a terminal, and writes plain columns, parted by two spaces at least, elsewhere.
func (g *grid) print(w io.Writer) {
	width := terminal(w)
	if width == 0 {
		g.plain(w)
		return
	}
	head := lipgloss.NewStyle().Bold(true).Padding(0, 1)
	cell := lipgloss.NewStyle().Padding(0, 1)
	t := table.New().Headers(g.head...).Rows(g.rows...).
		Border(lipgloss.NormalBorder()).BorderTop(false).BorderBottom(false).BorderLeft(false).BorderRight(false).
		BorderColumn(false).BorderStyle(lipgloss.NewStyle().Faint(true)).
		StyleFunc(func(row, col int) lipgloss.Style {
			switch {
			case row == table.HeaderRow:
				return head
			case col < len(g.rows[row]):
				return cell.Foreground(colourOf(g.rows[row][col]))
			}
			return cell
		})
	drawn := t.String()
	if lipgloss.Width(drawn) > width {
		drawn = t.Width(width).String()
	}
	fmt.Fprintln(w, drawn)
}

// colourOf marks the few words that an eye looks for.
func colourOf(text string) lipgloss.TerminalColor {
	word, _, _ := strings.Cut(text, " ")
	switch word {
	case "RUNNING", "up", "running":
		return lipgloss.ANSIColor(2)
	case "CRASHED", "down", "crashed":
		return lipgloss.ANSIColor(1)
	case "CLAIMED", "UNCLAIMED", "starting", "waiting", "stopping":
		return lipgloss.ANSIColor(3)
	}
	return lipgloss.NoColor{}
}

func (g *grid) plain(w io.Writer) {
	widths := make([]int, len(g.head))
	all := append([][]string{g.head}, g.rows...)
	for _, row := range all {
		for i, c := range row {
			widths[i] = max(widths[i], lipgloss.Width(c))
		}
	}
	for _, row := range all {
		var line strings.Builder
		for i, c := range row {
			line.WriteString(c)
			line.WriteString(strings.Repeat(" ", widths[i]-lipgloss.Width(c)+2))
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// printJSON writes v as one document.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// printLine writes v as one line.
func printLine(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// ago prints how long something lasts, in its two largest units at most.
func ago(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

// mib prints an amount of MiB; 0 means no limit.
func mib(n int32) string {
	switch {
	case n == 0:
		return "-"
	case n >= 10240 && n%1024 == 0:
		return fmt.Sprintf("%dG", n/1024)
	}
	return fmt.Sprintf("%dM", n)
}

// orDash returns s, or a dash for nothing.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
