package cells

import "muster/bbs/lrp"

// Resources are amounts of what a cell hands out.
type Resources struct {
	MemoryMB   int32
	DiskMB     int32
	Containers int32
}

// Sub returns r without o.
func (r Resources) Sub(o Resources) Resources {
	return Resources{r.MemoryMB - o.MemoryMB, r.DiskMB - o.DiskMB, r.Containers - o.Containers}
}

// Add returns r and o together.
func (r Resources) Add(o Resources) Resources {
	return Resources{r.MemoryMB + o.MemoryMB, r.DiskMB + o.DiskMB, r.Containers + o.Containers}
}

// Provider says which root file systems of one URL scheme a cell can run.
type Provider struct {
	Names []string // empty: any
}

// Presence is a cell as it announces itself.
type Presence struct {
	Cell                  lrp.CellID
	RepURL                string // https://host:port, where the rep answers gRPC
	Zone                  string
	Capacity              Resources
	RootFSProviders       map[string]Provider // by URL scheme
	PlacementTags         []string            // required of the work
	OptionalPlacementTags []string
}

// Instance is one instance on a cell, or to be placed on one.
type Instance struct {
	Key           lrp.Key
	InstanceGUID  lrp.InstanceGUID // empty when it is to be placed
	State         InstanceState    // empty when it is to be placed
	Resources     Resources        // Containers is 1
	MaxPids       int32
	RootFS        string
	PlacementTags []string
	VolumeDrivers []string
	TraceID       string // request id of the call that made it necessary, for logs; may be empty
}

// TaskGUID names a task; it is the GUID of the task's record.
type TaskGUID string

// TaskKey identifies a task.
type TaskKey struct {
	GUID   TaskGUID
	Domain lrp.Domain
}

// Task is one task on a cell, or to be placed on one.
type Task struct {
	Key           TaskKey
	Resources     Resources // Containers is 1
	MaxPids       int32
	RootFS        string
	PlacementTags []string
	VolumeDrivers []string
	TraceID       string // request id of the call that made it necessary, for logs; may be empty
}

// InstanceState is the state of an instance as a cell reports it to the auctioneer.
type InstanceState string

// The states; the texts are Diego's.
const (
	InstanceClaimed  InstanceState = "CLAIMED"
	InstanceRunning  InstanceState = "RUNNING"
	InstanceCrashed  InstanceState = "CRASHED"
	InstanceShutdown InstanceState = "SHUTDOWN"
)

// State is all that the auctioneer knows of a cell.
type State struct {
	Presence
	Index                   int32 // for bin packing
	Available               Resources
	Instances               []Instance
	Tasks                   []Task
	StartingContainers      int32 // reserved or being made
	Evacuating              bool
	VolumeDrivers           []string
	ProxyMemoryAllocationMB int32
	UnhealthyReason         string // why it takes no work; empty: it does
}

// Refusal says that a cell does not take an instance or a task, and why.
type Refusal struct {
	Instance Instance
	Task     *Task // nil: the instance is meant
	Reason   string
}
