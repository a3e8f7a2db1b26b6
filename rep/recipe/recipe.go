// Package recipe turns what is desired into what a cell makes: the engine's Spec of a container, and
// the Plan of how to look after it, which is kept on the container's labels so that a rep that starts
// anew can go on. It is a CORE: plain data in, plain data out.
//
// What the cell cannot do yet is refused by naming the field (Unsupported): an instance never runs
// without something that its owner asked for.
package recipe

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"muster/bbs/lrp"
	"muster/cells"
	"muster/cells/engine"
	"muster/cells/step"
)

// Cell is what a recipe needs to know of the cell.
type Cell struct {
	Address  string        // where host ports are reached
	Graceful time.Duration // from SIGTERM to SIGKILL
	// Times between attempts of a health check that is an action: at most, until it passed; and then.
	StartCheckEvery, CheckEvery time.Duration
	LogLines                    int64 // the operator's bound of the log, in lines a second; 0: none
}

// Subject is the instance or the task that a recipe is for.
type Subject struct {
	Key       lrp.Key          // of an instance
	Task      cells.TaskKey    // of a task
	Instance  lrp.InstanceGUID // names the container of either
	HostPorts []uint16         // of an instance: as many as Ports returns, in the same order
}

// Plan is what the cell needs to know of an instance or a task after its container was made.
type Plan struct {
	Key            lrp.Key           `json:"-"` // of an instance
	Task           cells.TaskKey     `json:"-"` // of a task
	Instance       lrp.InstanceGUID  `json:"-"`
	MemoryMB       int32             `json:"memory_mb,omitempty"`
	DiskMB         int32             `json:"disk_mb,omitempty"`
	MaxPids        int32             `json:"max_pids,omitempty"`
	RootFS         string            `json:"rootfs"`
	PlacementTags  []string          `json:"placement_tags,omitempty"`
	LogSource      string            `json:"log_source,omitempty"`
	CheckSource    string            `json:"check_source,omitempty"` // of what health checks say
	Graceful       time.Duration     `json:"graceful"`               // from SIGTERM to SIGKILL
	Startup        []lrp.Check       `json:"startup,omitempty"`      // startup and liveness; only valid ones
	Readiness      []lrp.Check       `json:"readiness,omitempty"`    // only valid ones
	StartTimeout   time.Duration     `json:"start_timeout,omitempty"`
	MetricTags     map[string]string `json:"metric_tags,omitempty"`
	InternalRoutes []string          `json:"internal_routes,omitempty"`
}

// Resources returns what the instance costs the cell.
func (p Plan) Resources() cells.Resources {
	return cells.Resources{MemoryMB: p.MemoryMB, DiskMB: p.DiskMB, Containers: 1}
}

// Ports returns the container ports that need a host port: those declared, without repetitions.
func Ports(d lrp.Desired) []uint16 {
	var ports []uint16
	seen := map[uint32]bool{}
	for _, p := range d.RunInfo.Ports {
		if !seen[p] {
			seen[p] = true
			ports = append(ports, uint16(p))
		}
	}
	return ports
}

// Build returns what to make for an instance, and how to look after it. d is Supported.
func Build(d lrp.Desired, s Subject, c Cell) (engine.Spec, Plan, error) {
	ports, err := mappings(Ports(d), s.HostPorts)
	if err != nil {
		return engine.Spec{}, Plan{}, err
	}
	o := ofLRP(d)
	plan, err := o.plan(s, c)
	if err != nil {
		return engine.Spec{}, Plan{}, err
	}
	plan.StartTimeout = time.Duration(d.RunInfo.StartTimeoutMS) * time.Millisecond
	if def := d.RunInfo.Check; def != nil {
		plan.Startup, plan.Readiness = valid(def.Checks), valid(def.ReadinessChecks)
		plan.CheckSource = cmp.Or(def.LogSource, defaultCheckSource)
	}
	if plan.InternalRoutes, err = internalRoutes(d); err != nil {
		return engine.Spec{}, Plan{}, err
	}
	spec, err := o.spec(s, c, plan, ports)
	if err != nil {
		return engine.Spec{}, Plan{}, err
	}
	p, actions := &spec.Program, actionsOf(d)
	p.Env = slices.Concat(identity(s), p.Env)
	p.Setup, p.Sidecars, p.Monitor = actions.Setup, actions.Sidecars, actions.Monitor
	p.Checked = len(plan.Startup)+len(plan.Readiness) > 0
	if p.Monitor != nil {
		p.Monitor.StartTimeout, p.Monitor.StartEvery, p.Monitor.Every = plan.StartTimeout, c.StartCheckEvery, c.CheckEvery
	}
	return spec, plan, nil
}

// actionsOf returns a program with nothing but the actions of an LRP.
func actionsOf(d lrp.Desired) step.Program {
	r := d.RunInfo
	p := step.Program{Setup: after(ownLayers(r.ImageLayers, r.LegacyDownloadUser), r.Setup), Action: r.Action}
	for _, sidecar := range r.Sidecars {
		p.Sidecars = append(p.Sidecars, sidecar.Action)
	}
	if r.Monitor != nil && r.Check == nil {
		p.Monitor = &step.Monitor{Action: r.Monitor}
	}
	return p
}

// Transfers returns the downloads and uploads of an LRP in the order of their numbers.
func Transfers(d lrp.Desired) []*lrp.Action { return actionsOf(d).Transfers() }

// defaultCheckSource is the log source of what health checks say.
const defaultCheckSource = "HEALTH"

// mappings joins container ports with the host ports for them.
func mappings(container, host []uint16) ([]engine.Port, error) {
	if len(container) != len(host) {
		return nil, fmt.Errorf("%d host ports for %d container ports", len(host), len(container))
	}
	var ports []engine.Port
	for i, p := range container {
		ports = append(ports, engine.Port{Container: p, Host: host[i]})
	}
	return ports, nil
}

// valid returns the checks that can be made; the others are skipped, as Diego does.
func valid(checks []lrp.Check) []lrp.Check {
	var good []lrp.Check
	for _, c := range checks {
		if (c.TCP == nil) == (c.HTTP == nil) {
			continue
		}
		var port uint32
		if c.TCP != nil {
			port = c.TCP.Port
		} else {
			port = c.HTTP.Port
		}
		if port >= 1 && port <= 65535 {
			good = append(good, c)
		}
	}
	return good
}

// internalRouter is the router group whose host names go into the reports of an instance.
const internalRouter = "internal-router"

func internalRoutes(d lrp.Desired) ([]string, error) {
	raw, ok := d.Routes[internalRouter]
	if !ok {
		return nil, nil
	}
	var routes []struct {
		Hostname string `json:"hostname"`
	}
	if err := json.Unmarshal(raw, &routes); err != nil {
		return nil, fmt.Errorf("routes %q: want a list of {\"hostname\": NAME}: %w", internalRouter, err)
	}
	var names []string
	for _, r := range routes {
		names = append(names, r.Hostname)
	}
	return names, nil
}
