package routes

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

type table = Table[int, int]

var t0 = time.Unix(1_800_000_000, 0)

var rules = Rules{StaleAfter: 2 * time.Minute, TLSStaleFactor: 10, KeepEmpty: time.Minute}

func ep(address string) Endpoint[int] { return Endpoint[int]{Info: Info{Address: address}} }

// with registers an address under each URI; a URI that ends in ! gets an empty pool.
func with(t *table, uris ...string) *table {
	for _, uri := range uris {
		empty := strings.HasSuffix(uri, "!")
		uri = strings.TrimSuffix(uri, "!")
		t, _ = t.Register(uri, ep("x:1"), 0, t0)
		if empty {
			t, _ = t.Unregister(uri, "x:1", "", t0)
		}
	}
	return t
}

func TestLookup(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		registered []string
		host, path string
		want       string
	}{
		{[]string{"a.com", "a.com/x"}, "a.com", "/x/y", "a.com/x"},
		{[]string{"a.com/x"}, "a.com", "/xy", ""},
		{[]string{"a.com/x"}, "a.com", "/", ""},
		{[]string{"a.com/x!", "a.com"}, "a.com", "/x", "a.com"},
		{[]string{"a.com/x!", "a.com!"}, "a.com", "/x", "a.com/x"},
		{[]string{"a.com/x!", "a.com!"}, "a.com", "/x/y", "a.com/x"},
		{[]string{"a.com/x/y", "a.com!"}, "a.com", "/x", ""},
		{[]string{"a.com!", "*.com"}, "a.com", "/", "a.com"},
		{[]string{"*.b.com", "*.com"}, "a.b.com", "/", "*.b.com"},
		{[]string{"*.b.com", "*.com"}, "a.c.com", "/", "*.com"},
		{[]string{"a.b.com/x", "*.b.com"}, "a.b.com", "/y", "*.b.com"},
		{[]string{"a.b.com/x", "*.b.com/x/y"}, "a.b.com", "/x/y", "a.b.com/x"},
		{[]string{"*.com/p"}, "a.b.com", "/p/q", "*.com/p"},
		{[]string{"a.com/p"}, "A.COM", "/P/", "a.com/p"},
		{[]string{"A.com/P/?q=1"}, "a.com", "/p", "A.com/P"},
		{[]string{"a.com/a%2Fb"}, "a.com", "/a%2fb", "a.com/a%2Fb"},
		{[]string{"a.com/a%2Fb"}, "a.com", "/a/b", ""},
		{[]string{"/a.com/"}, "a.com", "", "a.com"},
		{[]string{"*"}, "a", "/", ""},
		{[]string{"*.2"}, "localhost", "/v1.2", ""},
		{[]string{"*.com"}, "com", "/", ""},
		{[]string{"a.com//x"}, "a.com", "//x", "a.com//x"},
		{[]string{"a.com/x"}, "a.com", "//x", ""},
		{nil, "a.com", "/", ""},
		{[]string{"a.com"}, "a.com.evil", "/", ""},
	} {
		tab := with(New[int, int](rules), tc.registered...)
		got := ""
		if p := tab.Lookup([]byte(tc.host), []byte(tc.path)); p != nil {
			got = p.URI
		}
		if got != tc.want {
			t.Errorf("%v: %s%s: got %q, want %q", tc.registered, tc.host, tc.path, got, tc.want)
		}
	}
}

func TestRegistration(t *testing.T) {
	t.Parallel()
	tab := New[int, int](rules)
	step := func(e Endpoint[int], want Change) Outcome[int] {
		t.Helper()
		var out Outcome[int]
		if tab, out = tab.Register("a.com", e, 7, t0); out.Change != want {
			t.Errorf("%+v: got %v, want %v", e, out.Change, want)
		}
		return out
	}
	if out := step(ep("x:1"), Added); !out.NewRoute {
		t.Error("not a new route")
	}
	step(ep("x:1"), Refreshed)
	zone := ep("x:1")
	zone.Zone = "z"
	step(zone, Refreshed)
	tags := ep("x:1")
	tags.Tags = map[string]string{"a": "b"}
	step(tags, Updated)
	other := ep("x:1")
	other.InstanceID, other.Link = "new", 9
	if out := step(other, Updated); out.Replaced == nil || out.NewRoute {
		t.Errorf("got %+v", out)
	}
	step(ep("x:2"), Added)
	if tab.Routes() != 1 || tab.Endpoints() != 2 {
		t.Errorf("%d routes, %d endpoints", tab.Routes(), tab.Endpoints())
	}
	guarded := ep("x:3")
	guarded.RouteService = "https://guard"
	step(guarded, Added)
	for _, e := range []Endpoint[int]{ep("x:2"), guarded} {
		if step(e, Refreshed); tab.Lookup([]byte("a.com"), nil).RouteService != e.RouteService {
			t.Errorf("the newest registration does not decide about the route service: %q", e.RouteService)
		}
	}
	if tab, gone := tab.Unregister("a.com", "x:3", "", t0); gone == nil || tab.Endpoints() != 2 {
		t.Error("an endpoint is left")
	}
	tab, _ = tab.Unregister("a.com", "x:3", "", t0)
	if _, out := tab.Register("/", ep("x:1"), 0, t0); out.Change != Ignored {
		t.Errorf("no host: %v", out.Change)
	}
	// An unregistration meant for who had the address before.
	if same, gone := tab.Unregister("a.com", "x:1", "old", t0); gone != nil || same != tab {
		t.Error("the new instance was removed")
	}
	for _, id := range []string{"", "new"} {
		if next, gone := tab.Unregister("A.com?x", "x:1", id, t0); gone == nil || gone.Link != 9 || next.Endpoints() != 1 {
			t.Errorf("by %q: got %v", id, gone)
		}
	}
	if p := tab.Lookup([]byte("a.com"), nil); len(p.Endpoints) != 2 || p.Link != 7 {
		t.Error("a table that others may still read has changed")
	}
}

func TestPruning(t *testing.T) {
	t.Parallel()
	long, short := ep("tls:1"), ep("short:1")
	long.TLS, short.StaleAfter = true, 30*time.Second
	tab := New[int, int](rules)
	for _, e := range []Endpoint[int]{ep("x:1"), long, short} {
		tab, _ = tab.Register("a.com/p", e, 0, t0)
	}
	tab, _ = tab.Register("b.com", ep("x:1"), 0, t0)
	left := func(tab *table, after time.Duration) string {
		tab, _ = tab.Prune(t0.Add(after))
		var s []string
		for p := range tab.All() {
			for _, e := range p.Endpoints {
				s = append(s, p.URI+"="+e.Address)
			}
			if len(p.Endpoints) == 0 {
				s = append(s, p.URI+"=")
			}
		}
		slices.Sort(s)
		return strings.Join(s, " ")
	}
	all := "a.com/p=short:1 a.com/p=tls:1 a.com/p=x:1 b.com=x:1"
	for _, tc := range []struct {
		after time.Duration
		want  string
	}{
		{30 * time.Second, all},
		{31 * time.Second, "a.com/p=tls:1 a.com/p=x:1 b.com=x:1"},
		{120 * time.Second, "a.com/p=tls:1 a.com/p=x:1 b.com=x:1"},
		{121 * time.Second, "a.com/p=tls:1 b.com="},
		{1201 * time.Second, "a.com/p= b.com="},
	} {
		if got := left(tab, tc.after); got != tc.want {
			t.Errorf("after %v: got %s, want %s", tc.after, got, tc.want)
		}
	}
	if got := left(tab.Freshen(t0.Add(time.Hour)), time.Hour+30*time.Second); got != all {
		t.Errorf("freshened: %s", got)
	}
	gone, _ := tab.Prune(t0.Add(2 * time.Hour))
	gone, _ = gone.Prune(t0.Add(2*time.Hour + 59*time.Second))
	if gone.Routes() != 2 {
		t.Errorf("empty pools went too early")
	}
	if gone, _ = gone.Prune(t0.Add(2*time.Hour + time.Minute)); gone.Routes() != 0 || gone.hosts.root != nil {
		t.Errorf("%d routes are left", gone.Routes())
	}
	quick := New[int, int](Rules{StaleAfter: time.Minute})
	quick, _ = quick.Register("a.com", ep("x:1"), 0, t0)
	if quick, _ = quick.Unregister("a.com", "x:1", "", t0); quick.Routes() != 0 {
		t.Error("the empty route is kept")
	}
}

// TestAgainstAPlainMap compares every operation with a map from URI to addresses, and the lookup with
// a slow reading of its rules; and checks that no table ever changes.
func TestAgainstAPlainMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		host := rapid.SampledFrom([]string{"a.b.c", "b.c", "*.b.c", "*.c", "c", "x.b.c", "y.x.b.c"})
		path := rapid.SampledFrom([]string{"", "/p", "/p/q", "/pq", "/P/q/r"})
		address := rapid.SampledFrom([]string{"x:1", "x:2", "x:3"})
		tab := New[int, int](Rules{StaleAfter: time.Minute})
		model := map[string][]string{}
		type snapshot struct {
			table *table
			dump  string
		}
		var old []snapshot
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			uri := host.Draw(t, "host") + path.Draw(t, "path")
			key, a := strings.ToLower(uri), address.Draw(t, "address")
			old = append(old, snapshot{tab, dump(tab)})
			if rapid.Bool().Draw(t, "register") {
				e := ep(a)
				e.InstanceID = rapid.SampledFrom([]string{"i", "j"}).Draw(t, "instance")
				tab, _ = tab.Register(uri, e, 0, t0)
				at := slices.IndexFunc(model[key], func(s string) bool { return strings.HasPrefix(s, a) })
				if at < 0 {
					model[key] = append(model[key], a+e.InstanceID)
				} else {
					model[key][at] = a + e.InstanceID
				}
			} else {
				tab, _ = tab.Unregister(uri, a, "", t0)
				if model[key] = slices.DeleteFunc(model[key], func(s string) bool { return strings.HasPrefix(s, a) }); len(model[key]) == 0 {
					delete(model, key)
				}
			}
			wanted := ""
			for _, k := range slices.Sorted(mapsKeys(model)) {
				wanted += fmt.Sprintln(k, model[k])
			}
			if d := cmp.Diff(wanted, dump(tab)); d != "" {
				t.Fatal(d)
			}
			h, p := host.Draw(t, "asked host"), path.Draw(t, "asked path")
			got := ""
			if pool := tab.Lookup([]byte(h), []byte(p)); pool != nil {
				got = strings.ToLower(pool.URI)
			}
			if want := slowLookup(model, h, strings.ToLower(p)); got != want {
				t.Fatalf("%s%s: got %q, want %q", h, p, got, want)
			}
			if tab.Routes() != len(model) {
				t.Fatalf("%d routes, want %d", tab.Routes(), len(model))
			}
		}
		for _, s := range old {
			if dump(s.table) != s.dump {
				t.Fatal("an old table has changed")
			}
		}
	})
}

func mapsKeys(m map[string][]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func dump(t *table) string {
	var lines []string
	for p := range t.All() {
		var as []string
		for _, e := range p.Endpoints {
			as = append(as, e.Address+e.InstanceID)
		}
		lines = append(lines, fmt.Sprintln(strings.ToLower(p.URI), as))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// slowLookup tries every prefix of the path on the host, then on each wildcard.
func slowLookup(model map[string][]string, host, path string) string {
	for {
		for p := strings.TrimSuffix(path, "/"); ; p = p[:strings.LastIndex(p, "/")] {
			if len(model[host+p]) > 0 {
				return host + p
			}
			if p == "" {
				break
			}
		}
		rest := strings.TrimPrefix(host, "*.")
		if host == rest {
			_, rest, _ = strings.Cut(host, ".")
		} else if _, rest, _ = strings.Cut(rest, "."); rest == "" {
			return ""
		}
		if rest == "" {
			return ""
		}
		host = "*." + rest
	}
}

func TestManyHosts(t *testing.T) {
	t.Parallel()
	const n = 50_000
	tab := New[int, int](rules)
	for i := range n {
		tab, _ = tab.Register(fmt.Sprintf("app-%d.example.com", i), ep("x:1"), i, t0)
	}
	for i := range n {
		if p := tab.Lookup(fmt.Appendf(nil, "APP-%d.example.com", i), nil); p == nil || p.Link != i {
			t.Fatalf("host %d: %v", i, p)
		}
	}
	for i := range n {
		tab, _ = tab.Unregister(fmt.Sprintf("app-%d.example.com", i), "x:1", "", t0)
	}
	tab, _ = tab.Prune(t0.Add(time.Hour))
	if tab.Routes() != 0 || tab.hosts.root != nil {
		t.Errorf("%d routes are left", tab.Routes())
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	tab := with(New[int, int](rules), "*.b.com/p/q", "a.b.com/x")
	host, path := []byte("a.b.com"), []byte("/P/q/r")
	if n := testing.AllocsPerRun(100, func() {
		if tab.Lookup(host, path) == nil {
			t.Fatal("not found")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	tab := many(200_000)
	host, path := []byte("app-777.example.com"), []byte("/some/path")
	for b.Loop() {
		tab.Lookup(host, path)
	}
}

func BenchmarkRefresh(b *testing.B) {
	tab := many(100_000)
	for b.Loop() {
		tab, _ = tab.Register("app-777.example.com", ep("x:1"), 0, t0)
	}
}

func many(n int) *table {
	tab := New[int, int](rules)
	for i := range n {
		tab, _ = tab.Register(fmt.Sprintf("app-%d.example.com", i), ep("x:1"), i, t0)
	}
	return tab
}
