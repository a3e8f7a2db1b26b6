package lrp

import "time"

// State is the state of an instance; its text is what goes over the wire.
type State string

// The states of an instance.
const (
	Unclaimed State = "UNCLAIMED" // wanted, no cell has it
	Claimed   State = "CLAIMED"   // a cell is starting it
	Running   State = "RUNNING"   // it runs and passed its startup checks
	Crashed   State = "CRASHED"   // it crashed too often; waits for its back-off
)

// Presence says what is known about the cell of an instance.
type Presence int32

// The presences; the numbers go over the wire.
const (
	Ordinary   Presence = 0 // the normal case
	Evacuating Presence = 1 // its cell is drained
	Suspect    Presence = 2 // its cell went silent
)

// PreferredAddress says which address of an instance a router should use.
type PreferredAddress int32

// The preferences; the numbers go over the wire.
const (
	PreferUnknown  PreferredAddress = 0
	PreferInstance PreferredAddress = 1
	PreferHost     PreferredAddress = 2
)

// PortMapping says how one container port can be reached. 0 means that there is no such port.
type PortMapping struct {
	ContainerPort         uint32
	HostPort              uint32
	ContainerTLSProxyPort uint32
	HostTLSProxyPort      uint32
}

// NetInfo says where an instance can be reached.
type NetInfo struct {
	Address             string // of the cell
	InstanceAddress     string // of the container
	InstanceIPv6Address string
	Preferred           PreferredAddress
	Ports               []PortMapping
}

// Actual is the record of one instance, or of the wish for one.
type Actual struct {
	Key
	InstanceKey
	Presence       Presence
	State          State
	NetInfo        NetInfo
	PlacementError string       // why it could not be placed last
	Explanation    *Explanation // of the placement error; nil when there is none
	CrashCount     int32        // crashes in a row
	CrashReason    string
	Since          time.Time // of the last change of state or content
	Tag            ModificationTag

	// What the cell reported in the last Start; stale unless RUNNING.
	InternalRoutes   []string
	MetricTags       map[string]string
	Routable         bool
	AvailabilityZone string

	// Retiring is set when the instance is to be stopped. Its cell stops it and then removes it;
	// routers drop it at once.
	Retiring bool
}

// Serves tells whether an ordinary record, or none, is one of the instances that a process wants, which is
// so many: it is RUNNING and to stay. One that is retiring, or beyond the last index that is wanted, is
// about to go, so nobody may leave on the strength of it.
func (a *Actual) Serves(instances int32) bool {
	return a != nil && a.State == Running && !a.Retiring && a.Index < instances
}

// Group is everything known about one slot. An absent instance is nil.
type Group struct {
	// Wanted tells whether the slot is desired: its process exists and wants more instances than
	// the slot's index. A wanted slot is never left without an ordinary instance.
	Wanted bool
	// Domain is that of the DesiredLRP, for records that are made anew: a process can be removed and
	// desired again in another domain while its old instances stop. Empty: that of the old record.
	Domain Domain
	// Strategy is that of the process: how its instances are replaced while a cell is drained.
	Strategy UpdateStrategy
	// Complete tells whether as many ordinary instances of the process serve as are desired. It
	// decides whether one may be taken down by an evacuation that must not run two of a slot.
	Complete bool

	Ordinary   *Actual
	Evacuating *Actual
	Suspect    *Actual
}
