package arch

import (
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

// acceptance are the lines of bbs reference §19, by their areas.
var acceptance = []string{
	"guids", "annotation", "duplicates", "missing", "required fields", "instances", "update", "remove while claimed",
	"retire", "lists", "domains", "tasks", "callback", "placement error", "crash", "crash back-off", "container vanishes",
	"task expiry, cell loss", "cell loss", "promote", "late helpers", "evacuation", "events", "lock", "encryption", "tracing",
}

// mention is a line of §19 that a test function names.
type mention struct {
	area, path string
	function   string
}

// tests are what the test files of a directory say.
type tests struct {
	mentions []mention
	used     map[string]bool // names of functions that something refers to
}

// read adds the lines of §19 that the test functions of a file name, in their comment or in their body. A comment
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
				s.mentions = append(s.mentions, mention{m[1], path, f.Name.Name})
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

var mark = regexp.MustCompile(`§19 "([^"\n]+)"`)

// TestAcceptanceIsNamed looks that each line of the acceptance list has a test that says so in its comment or its
// body, as §19 "area", and that none names a line that is not there.
func TestAcceptanceIsNamed(t *testing.T) {
	t.Parallel()
	named, byDir := map[string][]string{}, map[string]*tests{}
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
				named[m.area] = append(named[m.area], m.path)
			}
		}
	}
	for _, area := range acceptance {
		if len(named[area]) == 0 {
			t.Errorf("no test names §19 %q in its comment or body", area)
		}
	}
	for area, where := range named {
		if !slices.Contains(acceptance, area) {
			t.Errorf("%q name §19 %q, which is no line of it", where, area)
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
// two lines and §19 "also here".
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
	if want := []string{"doc", "also here", "body", "subtest"}; !slices.Equal(got, want) {
		t.Errorf("mentioned are %q, want %q", got, want)
	}
}
