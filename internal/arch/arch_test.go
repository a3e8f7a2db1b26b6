package arch

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// cores lists the pure packages and why each must be. A core decides; it never waits, looks at a
// clock, talks, or draws random numbers, so that every decision can be replayed from its arguments.
var cores = map[string]string{
	"muster/bbs/lrp":             "the rules of an instance's life",
	"muster/bbs/lrp/cfroute":     "the meaning of cf-router routes",
	"muster/bbs/task":            "the rules of a task's life",
	"muster/bbs/event":           "what a change is",
	"muster/bbs/converge":        "what must be repaired",
	"muster/cells":               "what a cell is",
	"muster/cells/container":     "the life of a container on a cell",
	"muster/cells/fetch/cache":   "what is kept of what was downloaded",
	"muster/cells/firewall":      "which packets may leave a container",
	"muster/cells/guest/record":  "what a container tells the cell",
	"muster/cells/credential":    "what an instance's certificates say, and when they are due",
	"muster/cells/ports":         "how the ports of an instance are reached",
	"muster/rep/ledger":          "what a cell may still accept",
	"muster/rep/align":           "containers against instances",
	"muster/rep/recipe":          "from what is desired to what is run",
	"muster/auctioneer/auction":  "which cell gets an instance",
	"muster/auctioneer/backlog":  "which slots wait, are on their way, or are due again",
	"muster/route-emitter/table": "which routes to announce",
	"muster/gorouter/routes":     "which endpoints a request matches",
	"muster/gorouter/balance":    "which endpoint a request gets",
	"muster/gorouter/http1":      "what bytes are a message",
}

// coreStd is what a core may import of the standard library: values, containers, text, errors, and
// time and rand for their types.
var coreStd = []string{"bytes", "cmp", "container/heap", "encoding/base64", "encoding/json", "errors", "fmt", "hash/fnv",
	"iter", "maps", "math", "math/bits", "math/rand/v2", "net/netip", "net/url", "path", "regexp", "slices", "sort", "strconv",
	"strings", "time", "unicode", "unicode/utf8", "unsafe"}

// contracts are interfaces with their plain data, and the actions of a container. They name context and io
// in signatures; cores may use their data.
var contracts = []string{"muster/cells/engine", "muster/cells/step"}

// ambient names what must come to a core as an argument, although its package may be imported.
var ambient = map[string][]string{
	"time": {"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"},
	"rand": {"Int", "IntN", "Int32", "Int32N", "Int64", "Int64N", "Uint32", "Uint64", "Float64", "Perm", "Shuffle", "N"},
}

// bans forbid imports to packages that match a prefix; an import is named by its prefix too.
var bans = []struct{ from, to, except, why string }{
	{"muster/internal/", "muster/bbs", "", "shared plumbing knows no word of the domain"},
	{"muster/internal/", "muster/cells", "", "shared plumbing knows no word of the domain"},
	{"muster/internal/", "muster/rep", "", "shared plumbing knows no word of the domain"},
	{"muster/bbs", "muster/rep", "", "the BBS does not call cells: they watch it"},
	{"muster/bbs", "muster/auctioneer", "", "the BBS does not call the auctioneer: it watches"},
	{"muster/rep", "muster/auctioneer", "", "daemons meet through clients and cores only"},
	{"muster/cells", "muster/rep", "", "what a cell is does not depend on who runs it"},
	{"muster/auctioneer/", "muster/proto", "", "only clients and wire packages speak protobuf"},
	{"muster/route-emitter/", "muster/proto", "", "only clients and wire packages speak protobuf"},
	{"muster/gorouter", "muster/bbs", "", "the router learns routes from NATS only"},
	{"muster/gorouter", "muster/proto", "", "the router learns routes from NATS only"},
	{"muster/bbs/bbsclient", "muster/bbs/internal/store", "", "a client has no database"},
	{"muster/integration/diego", "muster/bbs", "", "what checks the routes of Diego shares no code with them"},
	{"muster/integration/diego", "muster/proto", "", "what checks the routes of Diego shares no code with them"},
}

type pkg struct {
	ImportPath, Dir, Name, Doc string
	Imports, GoFiles           []string
	TestGoFiles, XTestGoFiles  []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Name,Doc,Imports,GoFiles,TestGoFiles,XTestGoFiles", "./...")
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var ps []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p pkg
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
	return ps
}

func generated(p pkg) bool { return strings.HasPrefix(p.ImportPath, "muster/proto/") }

func TestCoresImportOnlyValues(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, p := range packages(t) {
		if _, core := cores[p.ImportPath]; !core {
			continue
		}
		seen[p.ImportPath] = true
		for _, imp := range p.Imports {
			if _, core := cores[imp]; !core && !slices.Contains(coreStd, imp) && !slices.Contains(contracts, imp) {
				t.Errorf("%s is a core (%s) and must not import %s", p.ImportPath, cores[p.ImportPath], imp)
			}
		}
	}
	for c := range cores {
		if !seen[c] {
			t.Errorf("core %s does not exist", c)
		}
	}
}

func TestCoresHaveNoAmbientInputs(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if _, core := cores[p.ImportPath]; !core {
			continue
		}
		for _, name := range p.GoFiles {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					t.Errorf("%s: a core starts no goroutine", fset.Position(n.Pos()))
				case *ast.SelectorExpr:
					x, ok := n.X.(*ast.Ident)
					if ok && x.Obj == nil && slices.Contains(ambient[x.Name], n.Sel.Name) {
						t.Errorf("%s: %s.%s must be an argument of a core", fset.Position(n.Pos()), x.Name, n.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

func TestWhoImportsWhom(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		for _, imp := range p.Imports {
			for _, b := range bans {
				if under(p.ImportPath, b.from) && under(imp, b.to) && !under(p.ImportPath, b.to) && (b.except == "" || !under(imp, b.except)) {
					t.Errorf("%s must not import %s: %s", p.ImportPath, imp, b.why)
				}
			}
		}
	}
}

func under(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, strings.TrimSuffix(prefix, "/")+"/")
}

func TestEverythingIsDocumented(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if generated(p) {
			continue
		}
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("package %s has no doc comment", p.ImportPath)
		}
		if p.Name == "main" {
			continue
		}
		for _, name := range p.GoFiles {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if what := undocumented(d); what != "" {
					t.Errorf("%s: exported %s has no comment", fset.Position(d.Pos()), what)
				}
			}
		}
	}
}

// undocumented names the exported thing that d declares without a comment, if any.
func undocumented(d ast.Decl) string {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && (d.Recv == nil || exportedReceiver(d.Recv)) {
			return d.Name.Name
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
					return s.Name.Name
				}
			case *ast.ValueSpec:
				for _, n := range s.Names {
					if n.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
						return n.Name
					}
				}
			}
		}
	}
	return ""
}

func exportedReceiver(r *ast.FieldList) bool {
	typ := r.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if idx, ok := typ.(*ast.IndexExpr); ok {
		typ = idx.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && id.IsExported()
}

func TestFilesStayReadable(t *testing.T) {
	t.Parallel()
	const maxLines = 600
	for _, p := range packages(t) {
		if generated(p) {
			continue
		}
		for _, name := range slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles) {
			text, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(text), "\n"); n > maxLines {
				t.Errorf("%s/%s has %d lines, more than %d: split it", p.ImportPath, name, n, maxLines)
			}
		}
	}
}

func TestNoSleepsInTests(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		for _, name := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			text, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			virtual := strings.Contains(string(text), `"testing/synctest"`)
			if !virtual && strings.Contains(string(text), "time."+"Sleep(") {
				t.Errorf("%s/%s sleeps: wait for a signal, or run the clock with testing/synctest", p.ImportPath, name)
			}
			if strings.Contains(string(text), "t."+"Skip") {
				t.Errorf("%s/%s skips: a missing part is a failure", p.ImportPath, name)
			}
		}
	}
}
