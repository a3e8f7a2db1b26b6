// Package recipe turns what is desired into what a cell makes: the engine's Spec of a container, and
// the Plan of how to look after it, which is kept on the container's labels so that a rep that starts
// anew can go on. It is a CORE: plain data in, plain data out.
//
// What the cell cannot do yet is refused by naming the field (Unsupported): an instance never runs
// without something that its owner asked for.
//
// CF_INSTANCE_INTERNAL_IP is not set: the address of a container is known only once it is made, and
// its environment is fixed by then.
package recipe

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"muster/bbs/lrp"
	"muster/cells"
	"muster/cells/container"
	"muster/cells/engine"
)

// Subject is the instance that a recipe is for.
type Subject struct {
	Key       lrp.Key
	Instance  lrp.InstanceGUID
	Address   string   // of the cell, where host ports are reached
	HostPorts []uint16 // as many as Ports returns, in the same order
}

// Plan is what the cell needs to know of an instance after its container was made.
type Plan struct {
	Key            lrp.Key           `json:"-"`
	Instance       lrp.InstanceGUID  `json:"-"`
	MemoryMB       int32             `json:"memory_mb,omitempty"`
	DiskMB         int32             `json:"disk_mb,omitempty"`
	MaxPids        int32             `json:"max_pids,omitempty"`
	RootFS         string            `json:"rootfs"`
	PlacementTags  []string          `json:"placement_tags,omitempty"`
	LogSource      string            `json:"log_source,omitempty"` // of the process
	Startup        []lrp.Check       `json:"startup,omitempty"`    // startup and liveness; only valid ones
	Readiness      []lrp.Check       `json:"readiness,omitempty"`  // only valid ones
	StartTimeout   time.Duration     `json:"start_timeout,omitempty"`
	MetricTags     map[string]string `json:"metric_tags,omitempty"`
	InternalRoutes []string          `json:"internal_routes,omitempty"`
}

// Resources returns what the instance costs the cell.
func (p Plan) Resources() cells.Resources {
	return cells.Resources{MemoryMB: p.MemoryMB, DiskMB: p.DiskMB, Containers: 1}
}

// Unsupported says what the cell cannot do yet.
type Unsupported struct{ Fields []string } // in the order of the message; each is named as on the wire

// Error names the fields.
func (u *Unsupported) Error() string {
	return fmt.Sprintf("the cell does not support %s: remove it from the desired LRP", strings.Join(u.Fields, ", "))
}

// Supported returns an *Unsupported when the cell cannot run the LRP.
func Supported(d lrp.Desired) error {
	r := d.RunInfo
	u := &Unsupported{}
	not := func(used bool, field string) {
		if used {
			u.Fields = append(u.Fields, field)
		}
	}
	not(r.Setup != nil, "setup")
	not(r.Action == nil || r.Action.Run == nil, "action (other than one run action)")
	if r.Action != nil && r.Action.Run != nil {
		not(len(r.Action.Run.VolumeMountedFiles) > 0, "action.volume_mounted_files")
		not(r.Action.Run.SuppressLogOutput, "action.suppress_log_output")
	}
	not(r.Monitor != nil && r.Check == nil, "monitor (use check_definition)")
	not(len(r.Sidecars) > 0, "sidecars")
	not(len(r.EgressRules) > 0, "egress_rules")
	not(len(r.CachedDependencies) > 0, "cached_dependencies")
	not(len(r.ImageLayers) > 0, "image_layers")
	not(r.TrustedSystemCertificatesPath != "", "trusted_system_certificates_path")
	not(len(r.VolumeMounts) > 0, "volume_mounts")
	not(len(r.VolumeMountedFiles) > 0, "volume_mounted_files")
	not(len(r.Network) > 0, "network")
	not(r.Certificate != nil && len(r.Certificate.OrganizationalUnits) > 0, "certificate_properties")
	not(r.LogRateLimit != nil && *r.LogRateLimit != -1, "log_rate_limit")
	if u.Fields != nil {
		return u
	}
	return nil
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
func Build(d lrp.Desired, s Subject) (engine.Spec, Plan, error) {
	plan, err := plan(d, s)
	if err != nil {
		return engine.Spec{}, Plan{}, err
	}
	labels, err := plan.Labels()
	if err != nil {
		return engine.Spec{}, Plan{}, err
	}
	spec := engine.Spec{
		ID: engine.ID(s.Instance), Labels: labels, RootFS: d.RootFS,
		Username: d.RunInfo.ImageUsername, Password: d.RunInfo.ImagePassword,
		Limits: engine.Limits{
			MemoryMB: d.MemoryMB, DiskMB: d.DiskMB, MaxPids: d.MaxPids,
			CPUWeight: max(d.RunInfo.CPUWeight, 1),
		},
		Privileged: d.RunInfo.Privileged,
	}
	ports := Ports(d)
	if len(ports) != len(s.HostPorts) {
		return engine.Spec{}, Plan{}, fmt.Errorf("%d host ports for %d container ports", len(s.HostPorts), len(ports))
	}
	for i, p := range ports {
		spec.Ports = append(spec.Ports, engine.Port{Container: p, Host: s.HostPorts[i]})
	}
	run := d.RunInfo.Action.Run
	spec.Process = engine.Process{Path: run.Path, Args: run.Args, Dir: run.Dir, User: run.User}
	if run.Nofile != nil {
		spec.Process.Nofile = *run.Nofile
	}
	spec.Process.Env, err = env(d, s, spec.Ports)
	return spec, plan, err
}

func plan(d lrp.Desired, s Subject) (Plan, error) {
	p := Plan{
		Key: s.Key, Instance: s.Instance,
		MemoryMB: d.MemoryMB, DiskMB: d.DiskMB, MaxPids: d.MaxPids,
		RootFS: d.RootFS, PlacementTags: d.PlacementTags,
		LogSource:    firstNonEmpty(d.RunInfo.Action.Run.LogSource, d.RunInfo.LogSource, container.DefaultSource),
		StartTimeout: time.Duration(d.RunInfo.StartTimeoutMS) * time.Millisecond,
	}
	if c := d.RunInfo.Check; c != nil {
		p.Startup, p.Readiness = valid(c.Checks), valid(c.ReadinessChecks)
	}
	var err error
	if p.MetricTags, err = metricTags(d, s); err != nil {
		return Plan{}, err
	}
	p.InternalRoutes, err = internalRoutes(d)
	return p, err
}

func firstNonEmpty(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
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

func metricTags(d lrp.Desired, s Subject) (map[string]string, error) {
	tags := map[string]string{}
	for name, tag := range d.MetricTags {
		switch tag.Dynamic {
		case lrp.NotDynamic:
			tags[name] = tag.Static
		case lrp.TagIndex:
			tags[name] = strconv.Itoa(int(s.Key.Index))
		case lrp.TagInstanceGUID:
			tags[name] = string(s.Instance)
		default:
			return nil, fmt.Errorf("metric_tags %q: dynamic value %d is unknown: want 1 (index) or 2 (instance GUID)", name, tag.Dynamic)
		}
	}
	if len(tags) == 0 {
		return nil, nil
	}
	return tags, nil
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

// env returns the environment of the process; later entries win.
func env(d lrp.Desired, s Subject, ports []engine.Port) ([]string, error) {
	index := strconv.Itoa(int(s.Key.Index))
	env := []string{
		"INSTANCE_GUID=" + string(s.Instance),
		"INSTANCE_INDEX=" + index,
		"CF_INSTANCE_GUID=" + string(s.Instance),
		"CF_INSTANCE_INDEX=" + index,
	}
	for _, v := range d.RunInfo.Env {
		env = append(env, v.Name+"="+v.Value)
	}
	for _, v := range d.RunInfo.Action.Run.Env {
		env = append(env, v.Name+"="+v.Value)
	}
	type mapping struct {
		External uint16 `json:"external,omitempty"`
		Internal uint16 `json:"internal"`
	}
	list := []mapping{}
	for _, p := range ports {
		list = append(list, mapping{External: p.Host, Internal: p.Container})
	}
	text, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("write CF_INSTANCE_PORTS: %w", err)
	}
	env = append(env, "CF_INSTANCE_IP="+s.Address)
	switch {
	case len(ports) == 0:
		env = append(env, "CF_INSTANCE_PORT=", "CF_INSTANCE_ADDR=")
	case ports[0].Host != 0:
		env = append(env, fmt.Sprintf("CF_INSTANCE_PORT=%d", ports[0].Host), fmt.Sprintf("CF_INSTANCE_ADDR=%s:%d", s.Address, ports[0].Host))
	}
	return append(env, "CF_INSTANCE_PORTS="+string(text)), nil
}
