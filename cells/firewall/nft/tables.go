package nft

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
)

// Names within the tables.
const (
	forwardChain    = "forward"
	inputChain      = "input"
	outputChain     = "output"
	firstChain      = "first"
	lastChain       = "last"
	denyChain       = "deny"
	preroutingChain = "prerouting"
	containerPrefix = "c-" // of chains of one container
	sharedPrefix    = "s-" // of chains of all containers with the same rules
)

// tables are the two tables of a cell with their sets.
type tables struct {
	inet, bridge *nftables.Table

	from4, from6 *nftables.Set // inet: address → chain
	self4, self6 *nftables.Set // inet: address of a container, twice
	dead4, dead6 *nftables.Set // inet: addresses of removed containers whose connections are not forgotten yet
	ports        *nftables.Set // bridge: devices of containers
	known4       *nftables.Set // device, MAC, address
	known6       *nftables.Set
	neighbours   *nftables.Set // device, MAC of those with IPv6
}

// IDs of named sets within a transaction; those without a name get higher ones.
const (
	from4ID = iota + 1
	from6ID
	self4ID
	self6ID
	dead4ID
	dead6ID
	portsID
	known4ID
	known6ID
	neighboursID
)

func newTables(name string) tables {
	t := tables{
		inet:   &nftables.Table{Family: nftables.TableFamilyINet, Name: name},
		bridge: &nftables.Table{Family: nftables.TableFamilyBridge, Name: name},
	}
	device, mac := nftables.TypeIFName, nftables.TypeEtherAddr
	t.from4 = &nftables.Set{Table: t.inet, ID: from4ID, Name: "from4", IsMap: true, KeyType: nftables.TypeIPAddr, DataType: nftables.TypeVerdict}
	t.from6 = &nftables.Set{Table: t.inet, ID: from6ID, Name: "from6", IsMap: true, KeyType: nftables.TypeIP6Addr, DataType: nftables.TypeVerdict}
	t.dead4 = &nftables.Set{Table: t.inet, ID: dead4ID, Name: "dead4", KeyType: nftables.TypeIPAddr}
	t.dead6 = &nftables.Set{Table: t.inet, ID: dead6ID, Name: "dead6", KeyType: nftables.TypeIP6Addr}
	t.ports = &nftables.Set{Table: t.bridge, ID: portsID, Name: "ports", KeyType: device, KeyByteOrder: binaryutil.NativeEndian}
	concat := func(table *nftables.Table, id uint32, name string, types ...nftables.SetDatatype) *nftables.Set {
		return &nftables.Set{Table: table, ID: id, Name: name, Concatenation: true, KeyType: nftables.MustConcatSetType(types...)}
	}
	t.self4 = concat(t.inet, self4ID, "self4", nftables.TypeIPAddr, nftables.TypeIPAddr)
	t.self6 = concat(t.inet, self6ID, "self6", nftables.TypeIP6Addr, nftables.TypeIP6Addr)
	t.known4 = concat(t.bridge, known4ID, "known4", device, mac, nftables.TypeIPAddr)
	t.known6 = concat(t.bridge, known6ID, "known6", device, mac, nftables.TypeIP6Addr)
	t.neighbours = concat(t.bridge, neighboursID, "neighbours", device, mac)
	return t
}

func (t tables) sets() []*nftables.Set {
	return []*nftables.Set{t.from4, t.from6, t.self4, t.self6, t.dead4, t.dead6, t.ports, t.known4, t.known6, t.neighbours}
}

func (t tables) from(is6 bool) *nftables.Set {
	if is6 {
		return t.from6
	}
	return t.from4
}

func (t tables) self(is6 bool) *nftables.Set {
	if is6 {
		return t.self6
	}
	return t.self4
}

func (t tables) dead(is6 bool) *nftables.Set {
	if is6 {
		return t.dead6
	}
	return t.dead4
}

func (t tables) known(is6 bool) *nftables.Set {
	if is6 {
		return t.known6
	}
	return t.known4
}
