package nft

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"muster/cells/engine"
)

func TestALaterLifeFindsContainers(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	c.outside.serve(t, 80)
	a, b, f := c.newHost(t), c.newHost(t), c.open(t)
	a.apply(t, f, rule("tcp 80", c.addr("203.N.0.2")))
	b.apply(t, f, rule("tcp 80", c.addr("203.N.0.2")))
	wantList(t, f, a.id, b.id)

	f = c.open(t)
	wantList(t, f, a.id, b.id)
	if diff := cmp.Diff(sender{b.link, b.addresses, f.known[a.id].chain}, f.known[b.id], cmp.AllowUnexported(sender{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	answered(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	for range 2 { // the second finds nothing
		if err := f.Remove(a.id); err != nil {
			t.Fatal(err)
		}
	}
	wantList(t, f, b.id)
	refused(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	answered(t, b.space, "tcp", c.addr("203.N.0.2:80"))
	b.apply(t, f)
	refused(t, b.space, "tcp", c.addr("203.N.0.2:80"))
	if err := f.Remove(b.id); err != nil {
		t.Fatal(err)
	}
	wantList(t, f)
	for is6, set := range map[bool]*nftables.Set{false: f.tables.from4, true: f.tables.from6} {
		for _, s := range []*nftables.Set{set, f.tables.known(is6), f.tables.ports, f.tables.neighbours} {
			conn, err := dial()
			if err != nil {
				t.Fatal(err)
			}
			if left, err := conn.GetSetElements(s); err != nil || len(left) > 0 {
				t.Errorf("%s has %v, %v", s.Name, left, err)
			}
		}
	}
}

// chains returns how many chains there are for containers.
func TestContainersWithTheSameRulesShareAChain(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	c.outside.serve(t, 80)
	a, b, f := c.newHost(t), c.newHost(t), c.open(t)
	want := func(n int) {
		t.Helper()
		if got := chains(t, c.cfg.Table); got != n {
			t.Errorf("there are %d chains, want %d", got, n)
		}
	}
	open := rule("tcp 80", c.addr("203.N.0.2"))
	a.apply(t, f, open)
	b.apply(t, f, open)
	want(1)
	a.apply(t, f)
	want(2)
	refused(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	answered(t, b.space, "tcp", c.addr("203.N.0.2:80"))
	f = c.open(t)
	a.apply(t, f, open)
	want(1)
	answered(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	if err := f.Remove(b.id); err != nil {
		t.Fatal(err)
	}
	want(1)
	answered(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	open.Log = true
	a.apply(t, f, open)
	want(1)
	b.apply(t, f, open)
	want(2) // the log says who it was
	for _, h := range []*host{a, b} {
		if err := f.Remove(h.id); err != nil {
			t.Fatal(err)
		}
	}
	want(0)
}

func wantList(t *testing.T, f *Firewall, want ...engine.ID) {
	t.Helper()
	if got, err := f.List(); err != nil || !slices.Equal(got, want) {
		t.Errorf("listed %q, %v; want %q", got, err, want)
	}
}

func TestTablesThatSomebodyRemoved(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	c.outside.serve(t, 80)
	a, b, f := c.newHost(t), c.newHost(t), c.open(t)
	open := rule("tcp 80", c.addr("203.N.0.2"))
	a.apply(t, f, open)
	b.apply(t, f, open)
	if err := Destroy(c.cfg.Table); err != nil {
		t.Fatal(err)
	}
	wantList(t, f)
	a.apply(t, f, open)
	wantList(t, f, a.id)
	answered(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	refused(t, b.space, "tcp", c.addr("203.N.0.2:80"))
	if err := Destroy(c.cfg.Table); err != nil {
		t.Fatal(err)
	}
	if err := f.Remove(a.id); err != nil { // without a List before
		t.Error(err)
	}
	wantList(t, f)
}

// Who has opened the tables earlier removes, and lists, what a later life has made.
func TestWhatAnEarlierLifeDoesNotKnow(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	c.outside.serve(t, 80)
	a, b, early := c.newHost(t), c.newHost(t), c.open(t)
	open := rule("tcp 80", c.addr("203.N.0.2"))
	a.apply(t, early, open)
	late := c.open(t)
	b.apply(t, late, open)
	if got, err := Containers(c.cfg.Table); err != nil || !slices.Equal(got, []engine.ID{a.id, b.id}) {
		t.Errorf("the kernel has %q, %v", got, err)
	}
	if err := early.Remove(a.id); err != nil { // their chain stays, for the other one
		t.Fatal(err)
	}
	answered(t, b.space, "tcp", c.addr("203.N.0.2:80"))
	late.mu.Lock() // as if it had never seen it
	delete(late.known, b.id)
	late.mu.Unlock()
	if err := late.Remove(b.id); err != nil {
		t.Fatal(err)
	}
	refused(t, b.space, "tcp", c.addr("203.N.0.2:80"))
	if err := Destroy(c.cfg.Table); err != nil {
		t.Fatal(err)
	}
	if got, err := Containers(c.cfg.Table); err != nil || len(got) > 0 {
		t.Errorf("without tables there are %q, %v", got, err)
	}
}

func TestAnAddressThatAnotherContainerHad(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	c.outside.serve(t, 80)
	a, f := c.newHost(t), c.open(t)
	open := rule("tcp 80", c.addr("203.N.0.2"))
	a.apply(t, f, open)
	next := *a
	next.id += "-next"
	next.apply(t, f)
	wantList(t, f, next.id)
	refused(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	if err := f.Remove(a.id); err != nil { // late; it must not hit the next
		t.Fatal(err)
	}
	next.apply(t, f, open)
	answered(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	wantList(t, f, next.id)
}

func TestAContainerWithAnotherAddress(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	c.outside.serve(t, 80)
	a, f := c.newHost(t), c.open(t)
	open := rule("tcp 80", c.addr("203.N.0.2"))
	a.apply(t, f, open)
	old := a.addresses[0]
	a.addresses = []netip.Addr{netip.MustParseAddr(c.addr("10.N.0.99"))}
	move := func(from, to netip.Addr) {
		a.do(func() {
			ip(t, "addr del %s/16 dev eth0", from)
			ip(t, "addr add %s/16 dev eth0", to)
			ip(t, "route replace default via 10.%d.0.1", c.n)
		})
	}
	move(old, a.addresses[0])
	silent(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	a.do(func() { ip(t, "neigh flush dev eth0") }) // it gave up on the cell
	a.apply(t, f, open)
	answered(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	move(a.addresses[0], old)
	silent(t, a.space, "tcp", c.addr("203.N.0.2:80"))
	a.do(func() { ip(t, "neigh flush dev eth0") }) // it gave up on the cell

	next := *a // the device of a container that is gone
	next.id, next.addresses = "next", []netip.Addr{old}
	next.apply(t, f, open)
	wantList(t, f, next.id)
	answered(t, next.space, "tcp", c.addr("203.N.0.2:80"))
}

func TestOtherTablesStay(t *testing.T) {
	t.Parallel()
	c := newCell(t, policy())
	conn, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	// One of another cell with a name that begins alike, and one of the same name in another family.
	other := []*nftables.Table{
		{Name: c.cfg.Table + "0", Family: nftables.TableFamilyINet}, {Name: c.cfg.Table, Family: nftables.TableFamilyIPv4},
	}
	for _, table := range other {
		conn.AddTable(table)
		chain := conn.AddChain(&nftables.Chain{Table: table, Name: containerPrefix + "foreign"})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Counter{}}})
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	a, f := c.newHost(t), c.open(t)
	a.apply(t, f)
	wantList(t, f, a.id)
	if err := f.Remove(a.id); err != nil {
		t.Fatal(err)
	}
	if err := Destroy(c.cfg.Table); err != nil {
		t.Fatal(err)
	}
	for _, table := range other {
		if rules, err := conn.GetRules(table, &nftables.Chain{Name: containerPrefix + "foreign"}); err != nil || len(rules) != 1 {
			t.Errorf("%s of family %d has rules %v, %v", table.Name, table.Family, rules, err)
		}
		conn.DelTable(table)
	}
	if err := conn.Flush(); err != nil {
		t.Error(err)
	}
}

func chains(t *testing.T, table string) int {
	t.Helper()
	conn, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	all, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, c := range all {
		if c.Table.Name == table && (strings.HasPrefix(c.Name, containerPrefix) || strings.HasPrefix(c.Name, sharedPrefix)) {
			n++
		}
	}
	return n
}
