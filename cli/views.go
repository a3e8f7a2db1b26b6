package cli

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"time"

	"muster/bbs/event"
	"muster/bbs/lrp"
	"muster/bbs/lrp/cfroute"
	"muster/cells"
)

// What --json prints. The names are those of the wire messages, so that a program that knows one
// knows the other.

type processView struct {
	ProcessGUID   string                     `json:"process_guid"`
	Domain        string                     `json:"domain"`
	Instances     int32                      `json:"instances"`
	Running       int32                      `json:"running"`
	RootFS        string                     `json:"root_fs"`
	MemoryMB      int32                      `json:"memory_mb"`
	DiskMB        int32                      `json:"disk_mb"`
	PlacementTags []string                   `json:"placement_tags,omitempty"`
	Annotation    string                     `json:"annotation,omitempty"`
	Routes        map[string]json.RawMessage `json:"routes,omitempty"`
	Actual        []actualView               `json:"actual_lrps"`
}

type actualView struct {
	ProcessGUID     string     `json:"process_guid"`
	Index           int32      `json:"index"`
	Domain          string     `json:"domain"`
	State           string     `json:"state"`
	Presence        string     `json:"presence"`
	InstanceGUID    string     `json:"instance_guid,omitempty"`
	CellID          string     `json:"cell_id,omitempty"`
	Zone            string     `json:"availability_zone,omitempty"`
	Address         string     `json:"address,omitempty"`
	InstanceAddress string     `json:"instance_address,omitempty"`
	Ports           []portView `json:"ports,omitempty"`
	Routable        bool       `json:"routable"`
	Retiring        bool       `json:"retiring"`
	CrashCount      int32      `json:"crash_count"`
	CrashReason     string     `json:"crash_reason,omitempty"`
	PlacementError  string     `json:"placement_error,omitempty"`
	Explanation     *whyView   `json:"placement_explanation,omitempty"`
	Since           time.Time  `json:"since"`
}

type whyView struct {
	Cells       int64       `json:"cells"`
	Away        int64       `json:"away"`
	RootFS      int64       `json:"rootfs"`
	Drivers     int64       `json:"volume_drivers"`
	Tags        int64       `json:"placement_tags"`
	Memory      int64       `json:"memory"`
	Disk        int64       `json:"disk"`
	Containers  int64       `json:"containers"`
	Refused     int64       `json:"refused"`
	Starting    int64       `json:"starting,omitempty"`
	MaxStarting int64       `json:"max_starting,omitempty"`
	Closest     *lackedView `json:"closest,omitempty"`
	Remedy      string      `json:"remedy,omitempty"`
}

type lackedView struct {
	CellID     string `json:"cell_id"`
	Zone       string `json:"zone"`
	MemoryMB   int64  `json:"memory_mb"`
	DiskMB     int64  `json:"disk_mb"`
	Containers int64  `json:"containers"`
}

func viewWhy(x *lrp.Explanation) *whyView {
	if x == nil {
		return nil
	}
	v := &whyView{
		Cells: x.Cells, Away: x.Away, RootFS: x.RootFS, Drivers: x.Drivers, Tags: x.Tags,
		Memory: x.Memory, Disk: x.Disk, Containers: x.Containers, Refused: x.Refused,
		Starting: x.Starting, MaxStarting: x.MaxStarting, Remedy: x.Remedy,
	}
	if c := x.Closest; c.Cell != "" {
		v.Closest = &lackedView{string(c.Cell), c.Zone, c.MemoryMB, c.DiskMB, c.Containers}
	}
	return v
}

type portView struct {
	ContainerPort uint32 `json:"container_port"`
	HostPort      uint32 `json:"host_port"`
}

func viewActual(a lrp.Actual) actualView {
	v := actualView{
		ProcessGUID: string(a.Process), Index: a.Index, Domain: string(a.Domain),
		State: string(a.State), Presence: presenceName(a.Presence),
		InstanceGUID: string(a.Instance), CellID: string(a.Cell), Zone: a.AvailabilityZone,
		Address: a.NetInfo.Address, InstanceAddress: a.NetInfo.InstanceAddress,
		Routable: a.Routable, Retiring: a.Retiring,
		CrashCount: a.CrashCount, CrashReason: a.CrashReason, PlacementError: a.PlacementError, Explanation: viewWhy(a.Explanation),
		Since: a.Since,
	}
	for _, p := range a.NetInfo.Ports {
		v.Ports = append(v.Ports, portView{p.ContainerPort, p.HostPort})
	}
	return v
}

func presenceName(p lrp.Presence) string {
	switch p {
	case lrp.Ordinary:
		return "ORDINARY"
	case lrp.Evacuating:
		return "EVACUATING"
	case lrp.Suspect:
		return "SUSPECT"
	}
	return fmt.Sprintf("PRESENCE_%d", p)
}

func viewProcess(d lrp.SchedulingInfo, actuals []lrp.Actual) processView {
	v := processView{
		ProcessGUID: string(d.Process), Domain: string(d.Domain), Instances: d.Instances,
		RootFS: d.RootFS, MemoryMB: d.MemoryMB, DiskMB: d.DiskMB,
		PlacementTags: d.PlacementTags, Annotation: d.Annotation, Actual: []actualView{},
	}
	for group, value := range d.Routes {
		if v.Routes == nil {
			v.Routes = map[string]json.RawMessage{}
		}
		if !json.Valid(value) { // kept byte for byte by the BBS, so it can be anything
			value, _ = json.Marshal(string(value))
		}
		v.Routes[group] = value
	}
	for _, a := range actuals {
		v.Actual = append(v.Actual, viewActual(a))
	}
	v.Running = running(actuals)
	return v
}

// running counts the slots that have a running instance that stays.
func running(actuals []lrp.Actual) int32 {
	slots := map[int32]bool{}
	for _, a := range actuals {
		if a.State == lrp.Running && !a.Retiring {
			slots[a.Index] = true
		}
	}
	return int32(len(slots))
}

// sortActuals sorts by process, index and presence.
func sortActuals(actuals []lrp.Actual) {
	sort.SliceStable(actuals, func(i, j int) bool {
		a, b := actuals[i], actuals[j]
		if a.Process != b.Process {
			return a.Process < b.Process
		}
		if a.Index != b.Index {
			return a.Index < b.Index
		}
		return a.Presence < b.Presence
	})
}

// hostnames returns the HTTP routes as text; routes that cannot be read are shown as such.
func hostnames(routes map[string][]byte) string {
	parsed, err := cfroute.FromRoutes(routes)
	if err != nil {
		return "unreadable"
	}
	var names []string
	for _, r := range parsed {
		names = append(names, r.Hostnames...)
	}
	return orDash(strings.Join(names, " "))
}

type cellView struct {
	CellID                string    `json:"cell_id"`
	RepURL                string    `json:"rep_url"`
	Zone                  string    `json:"zone"`
	Capacity              resources `json:"capacity"`
	Used                  resources `json:"used"`
	Instances             int       `json:"instances"`
	RootFSProviders       []string  `json:"rootfs_providers"`
	PlacementTags         []string  `json:"placement_tags,omitempty"`
	OptionalPlacementTags []string  `json:"optional_placement_tags,omitempty"`
}

type resources struct {
	MemoryMB   int32 `json:"memory_mb"`
	DiskMB     int32 `json:"disk_mb"`
	Containers int32 `json:"containers"`
}

func viewCell(p cells.Presence) cellView {
	v := cellView{
		CellID: string(p.Cell), RepURL: p.RepURL, Zone: p.Zone,
		Capacity:        resources{p.Capacity.MemoryMB, p.Capacity.DiskMB, p.Capacity.Containers},
		RootFSProviders: []string{},
		PlacementTags:   p.PlacementTags, OptionalPlacementTags: p.OptionalPlacementTags,
	}
	for scheme := range p.RootFSProviders {
		v.RootFSProviders = append(v.RootFSProviders, scheme)
	}
	sort.Strings(v.RootFSProviders)
	return v
}

// eventView is one line of "muster events --json".
type eventView struct {
	Revision uint64     `json:"revision"`
	At       time.Time  `json:"at"`
	Kind     string     `json:"kind"` // desired_lrp, actual_lrp, crash, cell, unknown
	What     string     `json:"what"` // created, changed, removed, crashed
	TraceID  string     `json:"trace_id,omitempty"`
	Subject  string     `json:"subject"`
	Text     string     `json:"text"`
	Before   any        `json:"before,omitempty"`
	After    any        `json:"after,omitempty"`
	Crash    *crashView `json:"crash,omitempty"`
}

type crashView struct {
	CellID       string `json:"cell_id"`
	InstanceGUID string `json:"instance_guid"`
	Count        int32  `json:"crash_count"`
	Reason       string `json:"crash_reason"`
}

func viewEvent(e event.Event) eventView {
	v := eventView{Revision: e.Revision, At: e.At, TraceID: e.TraceID}
	switch {
	case e.Desired != nil:
		v.desired(e.Desired)
	case e.Actual != nil:
		v.actual(e.Actual)
	case e.Crash != nil:
		c := e.Crash
		v.Kind, v.What, v.Subject = "crash", "crashed", c.Key.Slot.String()
		v.Text = fmt.Sprintf("on %s, %d in a row: %s", c.By.Cell, c.Count, c.Reason)
		v.Crash = &crashView{string(c.By.Cell), string(c.By.Instance), c.Count, c.Reason}
	case e.Cell != nil:
		v.cell(e.Cell)
	default:
		v.Kind, v.What, v.Text = "unknown", "changed", "something that this version of muster does not know"
	}
	return v
}

func changeName(before, after bool) string {
	switch {
	case !before:
		return "created"
	case !after:
		return "removed"
	}
	return "changed"
}

func (v *eventView) desired(c *event.DesiredChange) {
	v.Kind, v.What = "desired_lrp", changeName(c.Before != nil, c.After != nil)
	if c.Before != nil {
		v.Before, v.Subject = viewProcess(*c.Before, nil), string(c.Before.Process)
	}
	if c.After == nil {
		return
	}
	v.After, v.Subject = viewProcess(*c.After, nil), string(c.After.Process)
	v.Text = fmt.Sprintf("%d instances", c.After.Instances)
	if c.Before != nil && c.Before.Instances != c.After.Instances {
		v.Text = fmt.Sprintf("%d → %d instances", c.Before.Instances, c.After.Instances)
	}
	if r := hostnames(c.After.Routes); r != "-" {
		v.Text += ", routes " + r
	}
}

func (v *eventView) actual(c *lrp.Change) {
	v.Kind, v.What = "actual_lrp", changeName(c.Before != nil, c.After != nil)
	if c.Before != nil {
		v.Before, v.Subject, v.Text = viewActual(*c.Before), c.Before.Slot.String(), describe(*c.Before)
	}
	if c.After == nil {
		return
	}
	v.After, v.Subject, v.Text = viewActual(*c.After), c.After.Slot.String(), describe(*c.After)
	if c.Before != nil && c.Before.State != c.After.State {
		v.Text = string(c.Before.State) + " → " + v.Text
	}
}

func (v *eventView) cell(c *event.CellChange) {
	v.Kind, v.What = "cell", changeName(c.Before != nil, c.After != nil)
	if c.Before != nil {
		v.Before, v.Subject = viewCell(*c.Before), string(c.Before.Cell)
	}
	if c.After != nil {
		v.After, v.Subject = viewCell(*c.After), string(c.After.Cell)
		v.Text = fmt.Sprintf("zone %s, %s", c.After.Zone, c.After.RepURL)
	}
}

// describe says in one line what an instance is up to.
func describe(a lrp.Actual) string {
	text := string(a.State)
	if a.Presence != lrp.Ordinary {
		text += " " + strings.ToLower(presenceName(a.Presence))
	}
	if a.Retiring {
		text += " retiring"
	}
	if a.Cell != "" {
		text += " on " + string(a.Cell)
	}
	if n := note(a); n != "" {
		text += ": " + n
	}
	return text
}

// times says how often.
func times(n int32) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// note says what is wrong with an instance, if something is.
func note(a lrp.Actual) string {
	switch {
	case a.PlacementError != "":
		return a.PlacementError
	case a.State == lrp.Crashed || a.CrashCount > 0 && a.State != lrp.Running:
		return fmt.Sprintf("crashed %s: %s", times(a.CrashCount), a.CrashReason)
	case a.CrashCount > 0:
		return fmt.Sprintf("crashed %s before", times(a.CrashCount))
	case a.State == lrp.Running && !a.Routable:
		return "not ready"
	}
	return ""
}
