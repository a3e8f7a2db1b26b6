package nft

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"muster/cells/engine"
	"muster/cells/firewall"
)

func chainName(id engine.ID) string { return containerPrefix + string(id) }

// chain makes the chain of a container, or replaces what is in it.
func (b *batch) chain(id engine.ID, s sender, rules []firewall.Rule, logRate int) {
	b.lastSet = neighboursID
	name := chainName(id)
	b.empty(b.inet, name)
	b.note(id, s)
	for _, whole := range rules {
		for _, r := range parts(whole) {
			if r.Log {
				b.rule(b.inet, name, append(b.match(r), logged(id, logRate)...)...)
			}
			b.rule(b.inet, name, append(b.match(r), accept())...)
		}
	}
	b.rule(b.inet, name, leap(lastChain))
}

// logLevel is that of information.
const logLevel = expr.LogLevel(unix.NFT_LOGLEVEL_INFO)

// logged writes a line to the kernel's log that begins with the container, but not too often.
func logged(id engine.ID, rate int) []expr.Any {
	return []expr.Any{
		&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(rate), Unit: expr.LimitTimeSecond, Burst: uint32(rate)},
		&expr.Log{Level: logLevel, Key: 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_LEVEL, Data: []byte(string(id) + " ")},
	}
}

// note puts a rule into the chain of a container that counts its new connections, and whose comment
// says who the container is: what a later life of the cell must know to remove it.
func (b *batch) note(id engine.ID, s sender) {
	b.conn.AddRule(&nftables.Rule{
		Table: b.inet, Chain: &nftables.Chain{Table: b.inet, Name: chainName(id)},
		Exprs: []expr.Any{&expr.Counter{}}, UserData: userdata.AppendString(nil, userdata.TypeComment, s.String()),
	})
}

// mark makes the chain of a container that has lost its place reject everything, and says what is left.
func (b *batch) mark(id engine.ID, s sender) {
	b.empty(b.inet, chainName(id))
	b.note(id, s)
	b.rule(b.inet, chainName(id), reject())
}

func (b *batch) dropChain(id engine.ID) {
	chain := &nftables.Chain{Table: b.inet, Name: chainName(id)}
	b.conn.FlushChain(chain)
	b.conn.DelChain(chain)
}

// senders replaces who may send as whom.
func (b *batch) senders(before, after map[engine.ID]sender) {
	for id, s := range before {
		b.elements(id, s, b.conn.SetDeleteElements)
	}
	for id, s := range after {
		b.elements(id, s, b.conn.SetAddElements)
	}
}

// elements adds what a sender is to all sets, or removes it from them.
func (b *batch) elements(id engine.ID, s sender, do func(*nftables.Set, []nftables.SetElement) error) {
	if s.Device == "" {
		return
	}
	link := slices.Concat(device(s.Device), s.MAC, []byte{0, 0}) // each part ends at 4 bytes
	b.keep(do(b.ports, []nftables.SetElement{{Key: device(s.Device)}}))
	if slices.ContainsFunc(s.addresses, netip.Addr.Is6) {
		b.keep(do(b.neighbours, []nftables.SetElement{{Key: link}}))
	}
	for _, a := range s.addresses {
		b.keep(do(b.known(a.Is6()), []nftables.SetElement{{Key: slices.Concat(link, a.AsSlice())}}))
		b.keep(do(b.from(a.Is6()), []nftables.SetElement{{
			Key: a.AsSlice(), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: chainName(id)},
		}}))
	}
}

// String writes a sender as readSender reads it.
func (s sender) String() string {
	texts := make([]string, len(s.addresses))
	for i, a := range s.addresses {
		texts[i] = a.String()
	}
	return fmt.Sprintf("%s %s %s", s.Device, s.MAC, strings.Join(texts, ","))
}

func readSender(text string) (sender, error) {
	fields := strings.Split(text, " ")
	if len(fields) != 3 {
		return sender{}, fmt.Errorf("comment is %q: want a device, its MAC and addresses", text)
	}
	if fields[0] == "" {
		return sender{}, nil
	}
	mac, err := net.ParseMAC(fields[1])
	if err != nil {
		return sender{}, err
	}
	s := sender{Link: Link{Device: fields[0], MAC: mac}}
	for _, text := range strings.FieldsFunc(fields[2], func(r rune) bool { return r == ',' }) {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return sender{}, err
		}
		s.addresses = append(s.addresses, a)
	}
	return s, nil
}

// senders asks the kernel who has rules.
func (f *Firewall) senders() (map[engine.ID]sender, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	if _, err := c.ListTableOfFamily(f.tables.inet.Name, nftables.TableFamilyINet); err != nil {
		return nil, fmt.Errorf("table %s: %w", f.tables.inet.Name, err)
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	known := map[engine.ID]sender{}
	for _, chain := range chains {
		id, ours := strings.CutPrefix(chain.Name, containerPrefix)
		if !ours || chain.Table.Name != f.tables.inet.Name {
			continue
		}
		rules, err := c.GetRules(f.tables.inet, chain)
		if err != nil || len(rules) == 0 {
			return nil, fmt.Errorf("rules of chain %s: %w", chain.Name, err)
		}
		comment, _ := userdata.GetString(rules[0].UserData, userdata.TypeComment)
		if known[engine.ID(id)], err = readSender(comment); err != nil {
			return nil, fmt.Errorf("chain %s: %w", chain.Name, err)
		}
	}
	return known, nil
}
