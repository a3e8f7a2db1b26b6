package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// acceptance are the lines of the acceptance lists, by their areas: those of the BBS are its reference's §19, those of
// cells §24 of theirs. "SSH" of the latter is left out: ssh-proxy and sshd are not part of Muster (docs/differences.md).
var acceptance = map[string][]string{
	"§19": {
		"guids", "annotation", "duplicates", "missing", "required fields", "instances", "update", "remove while claimed",
		"retire", "lists", "domains", "tasks", "callback", "placement error", "crash", "crash back-off", "container vanishes",
		"task expiry, cell loss", "cell loss", "promote", "late helpers", "evacuation", "events", "lock", "encryption", "tracing",
	},
	"§24": {
		"Events", "Crash loop", "No monitor", "Codependent action", "With monitor", "Declarative checks", "Sidecar", "Scale",
		"Stop", "Delete while claimed", "Missing container", "Tasks", "Checksums", "Pids", "Env", "Egress", "Rootfs",
		"Placement tags", "Volumes, FUSE", "Identity", "Cell loss", "Auctioneer/cell order", "Trace id",
	},
}

// line is a line of an acceptance list.
type line struct{ list, area string }

func (l line) String() string { return fmt.Sprintf("%s %q", l.list, l.area) }

// mention is a line that a test function names.
type mention struct {
	line
	path     string
	function string
}

// tests are what the test files of a directory say.
type tests struct {
	mentions []mention
	used     map[string]bool // names of functions that something refers to
}

// read adds the lines that the test functions of a file name, in their comment or in their body. A comment
// anywhere else proves nothing.
func (s *tests) read(path string) error {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	if err != nil {
		return err
	}
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		ast.Inspect(f.Body, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				s.used[id.Name] = true
			}
			return true
		})
		if !takesT(f) {
			continue
		}
		for _, c := range file.Comments {
			if c != f.Doc && (c.Pos() < f.Pos() || c.End() > f.End()) {
				continue
			}
			for _, m := range mark.FindAllStringSubmatch(strings.Join(strings.Fields(c.Text()), " "), -1) {
				for _, area := range quoted.FindAllStringSubmatch(m[2], -1) {
					s.mentions = append(s.mentions, mention{line{m[1], area[1]}, path, f.Name.Name})
				}
			}
		}
	}
	return nil
}

// run tells whether a function is run by go test, or referred to by one, as subtests are.
func (s *tests) run(name string) bool { return strings.HasPrefix(name, "Test") || s.used[name] }

// takesT tells whether a function has a *testing.T, as tests and subtests do.
func takesT(f *ast.FuncDecl) bool {
	return slices.ContainsFunc(f.Type.Params.List, func(p *ast.Field) bool {
		star, ok := p.Type.(*ast.StarExpr)
		if !ok {
			return false
		}
		of, ok := star.X.(*ast.SelectorExpr)
		return ok && of.Sel.Name == "T"
	})
}

// mark is how a test names lines: §24 "Env", or several, §24 "Env", "Stop" and "Scale".
var (
	mark   = regexp.MustCompile(`(§\d+) ("[^"\n]+"(?:(?:,| and) "[^"\n]+")*)`)
	quoted = regexp.MustCompile(`"([^"]+)"`)
)

// TestAcceptanceIsNamed looks that each line of the acceptance lists has a test that says so in its comment or its
// body, as §19 "area", and that none names a line that is not there.
func TestAcceptanceIsNamed(t *testing.T) {
	t.Parallel()
	named, byDir := map[line][]string{}, map[string]*tests{}
	const self = "../../internal/arch/acceptance_test.go"
	err := filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && strings.HasPrefix(e.Name(), ".") && len(e.Name()) > 2:
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go") || path == self:
			return nil
		}
		dir := filepath.Dir(path)
		if byDir[dir] == nil {
			byDir[dir] = &tests{used: map[string]bool{}}
		}
		return byDir[dir].read(path)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range byDir {
		for _, m := range dir.mentions {
			if dir.run(m.function) {
				named[m.line] = append(named[m.line], m.path)
			}
		}
	}
	for list, areas := range acceptance {
		for _, area := range areas {
			if l := (line{list, area}); len(named[l]) == 0 {
				t.Errorf("no test names %s in its comment or body", l)
			}
		}
	}
	for l, where := range named {
		if !slices.Contains(acceptance[l.list], l.area) {
			t.Errorf("%q name %s, which is no line of it", where, l)
		}
	}
}

// Only what a test says of itself counts, and only if it is one.
func TestMentions(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x_test.go")
	const text = `package x

// §19 "file"

// §19 "doc", over
// two lines and §24 "also here", "and
// here" and "there".
func TestA(t *testing.T) {
	// §19 "body"
	t.Run("b", b)
}

// §19 "subtest"
func b(t *testing.T) {}

// §19 "dead"
func c(t *testing.T) {}

// §19 "helper"
func helper() {}

// §19 "type"
type d int
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	all := &tests{used: map[string]bool{}}
	if err := all.read(path); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range all.mentions {
		if all.run(m.function) {
			got = append(got, m.area)
		}
	}
	if want := []string{"doc", "also here", "and here", "there", "body", "subtest"}; !slices.Equal(got, want) {
		t.Errorf("mentioned are %q, want %q", got, want)
	}
}
