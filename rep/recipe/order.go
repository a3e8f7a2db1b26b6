package recipe

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells/engine"
	"muster/cells/step"
)

// order is what an LRP and a task have in common.
type order struct {
	rootFS, username, password string
	action                     *lrp.Action
	env                        []lrp.EnvVar
	limits                     engine.Limits
	privileged                 bool
	placementTags              []string
	logSource                  string
	logRate                    *int64
	metricTags                 map[string]lrp.MetricTag
	egress                     []lrp.EgressRule
	dependencies               []lrp.CachedDependency
	layers                     []lrp.ImageLayer
	trusted                    string
	volumes                    []lrp.VolumeMount
	files                      []lrp.File
	network                    map[string]string
	certificate                *lrp.CertificateProperties
}

func ofLRP(d lrp.Desired) order {
	r := d.RunInfo
	return order{
		rootFS: d.RootFS, username: r.ImageUsername, password: r.ImagePassword, action: r.Action, env: r.Env,
		limits:     engine.Limits{MemoryMB: d.MemoryMB, DiskMB: d.DiskMB, MaxPids: d.MaxPids, CPUWeight: max(r.CPUWeight, 1)},
		privileged: r.Privileged, placementTags: d.PlacementTags, logSource: r.LogSource, logRate: r.LogRateLimit, metricTags: d.MetricTags,
		egress: r.EgressRules, dependencies: r.CachedDependencies, layers: r.ImageLayers, trusted: r.TrustedSystemCertificatesPath,
		volumes: r.VolumeMounts, files: r.VolumeMountedFiles, network: r.Network, certificate: r.Certificate,
	}
}

func ofTask(d task.Definition) order {
	return order{
		rootFS: d.RootFS, username: d.ImageUsername, password: d.ImagePassword, action: d.Action, env: d.Env,
		limits:     engine.Limits{MemoryMB: d.MemoryMB, DiskMB: d.DiskMB, MaxPids: d.MaxPids, CPUWeight: d.CPUWeight},
		privileged: d.Privileged, placementTags: d.PlacementTags, logSource: d.LogSource, logRate: d.LogRateLimit, metricTags: d.MetricTags,
		egress: d.EgressRules, dependencies: d.CachedDependencies, layers: d.ImageLayers, trusted: d.TrustedSystemCertificatesPath,
		volumes: d.VolumeMounts, files: d.VolumeMountedFiles, network: d.Network, certificate: d.Certificate,
	}
}

// Unsupported says what the cell cannot do yet.
type Unsupported struct{ Fields []string } // each is named as on the wire

// Error names the fields.
func (u *Unsupported) Error() string {
	return fmt.Sprintf("the cell does not support %s: remove it from what is desired", strings.Join(u.Fields, ", "))
}

// Supported returns an *Unsupported when the cell cannot run the LRP.
func Supported(d lrp.Desired) error { return ofLRP(d).supported() }

// SupportedTask returns an *Unsupported when the cell cannot run the task.
func SupportedTask(d task.Definition) error { return ofTask(d).supported() }

func (o order) supported() error {
	u := &Unsupported{}
	not := func(used bool, field string) {
		if used {
			u.Fields = append(u.Fields, field)
		}
	}
	not(o.certificate != nil && len(o.certificate.OrganizationalUnits) > 0, "certificate_properties")
	if u.Fields != nil {
		return u
	}
	return nil
}

// plan returns how to look after the container.
func (o order) plan(s Subject, c Cell) (Plan, error) {
	p := Plan{
		Key: s.Key, Task: s.Task, Instance: s.Instance,
		MemoryMB: o.limits.MemoryMB, DiskMB: o.limits.DiskMB, MaxPids: o.limits.MaxPids,
		RootFS: o.rootFS, PlacementTags: o.placementTags, LogSource: o.logSource, Graceful: c.Graceful,
	}
	var err error
	p.MetricTags, err = o.tags(s)
	return p, err
}

// spec returns the container, without what only LRPs have.
func (o order) spec(s Subject, c Cell, plan Plan, ports []engine.Port) (engine.Spec, error) {
	labels, err := plan.Labels()
	if err != nil {
		return engine.Spec{}, err
	}
	last, err := networkEnv(c.Address, ports)
	if err != nil {
		return engine.Spec{}, err
	}
	spec := engine.Spec{
		ID: engine.ID(s.Instance), Labels: labels, RootFS: o.rootFS, Username: o.username, Password: o.password,
		Limits: o.limits, Ports: ports, Privileged: o.privileged, AddressEnv: "CF_INSTANCE_INTERNAL_IP",
		Egress: o.egress, Network: o.network,
		Program: step.Program{
			Action: o.action, Source: o.logSource, Graceful: c.Graceful, LastEnv: last, LogBytes: -1, LogLines: c.LogLines,
		},
	}
	for _, v := range o.env {
		spec.Program.Env = append(spec.Program.Env, v.Name+"="+v.Value)
	}
	if o.logRate != nil {
		spec.Program.LogBytes = *o.logRate
	}
	return spec, nil
}

func (o order) tags(s Subject) (map[string]string, error) {
	tags := map[string]string{}
	for name, tag := range o.metricTags {
		switch {
		case tag.Dynamic == lrp.NotDynamic:
			tags[name] = tag.Static
		case tag.Dynamic == lrp.TagIndex && s.Task.GUID == "":
			tags[name] = strconv.Itoa(int(s.Key.Index))
		case tag.Dynamic == lrp.TagInstanceGUID && s.Task.GUID == "":
			tags[name] = string(s.Instance)
		default:
			return nil, fmt.Errorf("metric_tags %q: dynamic value %d: want 1 (index) or 2 (instance GUID) for an LRP, none for a task", name, tag.Dynamic)
		}
	}
	if len(tags) == 0 {
		return nil, nil
	}
	return tags, nil
}

// identity returns the variables that name an instance; what is desired may override them.
func identity(s Subject) []string {
	index := strconv.Itoa(int(s.Key.Index))
	return []string{
		"INSTANCE_GUID=" + string(s.Instance),
		"INSTANCE_INDEX=" + index,
		"CF_INSTANCE_GUID=" + string(s.Instance),
		"CF_INSTANCE_INDEX=" + index,
	}
}

// networkEnv returns the variables that say where a container is reached; nothing overrides them.
func networkEnv(address string, ports []engine.Port) ([]string, error) {
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
	env := []string{"CF_INSTANCE_IP=" + address}
	switch {
	case len(ports) == 0:
		env = append(env, "CF_INSTANCE_PORT=", "CF_INSTANCE_ADDR=")
	case ports[0].Host != 0:
		env = append(env, fmt.Sprintf("CF_INSTANCE_PORT=%d", ports[0].Host), fmt.Sprintf("CF_INSTANCE_ADDR=%s:%d", address, ports[0].Host))
	}
	return append(env, "CF_INSTANCE_PORTS="+string(text)), nil
}

// TaskTransfers returns the downloads and uploads of a task in the order of their numbers.
func TaskTransfers(d task.Definition) []*lrp.Action { return actionsOfTask(d).Transfers() }

// actionsOfTask returns a program with nothing but the actions of a task.
func actionsOfTask(d task.Definition) step.Program {
	return step.Program{Setup: ownLayers(d.ImageLayers, d.LegacyDownloadUser), Action: d.Action}
}

// BuildTask returns what to make for a task, and how to look after it. d is SupportedTask.
func BuildTask(d task.Definition, s Subject, c Cell) (engine.Spec, Plan, error) {
	o := ofTask(d)
	plan, err := o.plan(s, c)
	if err != nil {
		return engine.Spec{}, Plan{}, err
	}
	spec, err := o.spec(s, c, plan, nil)
	spec.Program.Setup, spec.Program.ResultFile = actionsOfTask(d).Setup, d.ResultFile
	return spec, plan, err
}
