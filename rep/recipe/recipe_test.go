package recipe

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells"
	"muster/cells/engine"
	"muster/cells/step"
)

func desired() lrp.Desired {
	return lrp.Desired{
		Process: "app", Domain: "apps", RootFS: "docker:///app", MemoryMB: 64, DiskMB: 128, MaxPids: 10,
		MetricTags: map[string]lrp.MetricTag{"app": {Static: "shop"}, "index": {Dynamic: lrp.TagIndex}, "instance": {Dynamic: lrp.TagInstanceGUID}},
		Routes:     map[string][]byte{"internal-router": []byte(`[{"hostname":"shop.internal"}]`)},
		RunInfo: lrp.RunInfo{
			Action: &lrp.Action{Run: &lrp.RunAction{Path: "/app", Args: []string{"-v"}, User: "vcap", Env: []lrp.EnvVar{{Name: "A", Value: "action"}}}},
			Env:    []lrp.EnvVar{{Name: "A", Value: "lrp"}, {Name: "INSTANCE_INDEX", Value: "mine"}},
			Ports:  []uint32{8080, 2222, 8080}, LogSource: "APP/PROC/WEB", StartTimeoutMS: 1500,
			Check: &lrp.CheckDefinition{
				Checks:          []lrp.Check{{TCP: &lrp.TCPCheck{Port: 8080}}, {}, {HTTP: &lrp.HTTPCheck{Port: 70000}}, {TCP: &lrp.TCPCheck{Port: 1}, HTTP: &lrp.HTTPCheck{Port: 1}}},
				ReadinessChecks: []lrp.Check{{HTTP: &lrp.HTTPCheck{Port: 8080, Path: "/ready"}}},
			},
		},
	}
}

func subject() Subject {
	return Subject{Key: lrp.Key{Slot: lrp.Slot{Process: "app", Index: 2}, Domain: "apps"}, Instance: "guid", HostPorts: []uint16{61001, 61002}}
}

func cell() Cell {
	return Cell{Address: "10.0.0.7", Graceful: 10 * time.Second, StartCheckEvery: 2 * time.Second, CheckEvery: 30 * time.Second, LogLines: 7}
}

func TestBuild(t *testing.T) {
	t.Parallel()
	spec, plan, err := Build(desired(), subject(), cell())
	if err != nil {
		t.Fatal(err)
	}
	spec.Labels = nil
	if diff := cmp.Diff(engine.Spec{
		ID: "guid", RootFS: "docker:///app",
		AddressEnv: "CF_INSTANCE_INTERNAL_IP",
		Program: step.Program{
			Action: desired().RunInfo.Action, Source: "APP/PROC/WEB", Checked: true, Graceful: 10 * time.Second, LogBytes: -1, LogLines: 7,
			Env: []string{"INSTANCE_GUID=guid", "INSTANCE_INDEX=2", "CF_INSTANCE_GUID=guid", "CF_INSTANCE_INDEX=2", "A=lrp", "INSTANCE_INDEX=mine"},
			LastEnv: []string{
				"CF_INSTANCE_IP=10.0.0.7", "CF_INSTANCE_PORT=61001", "CF_INSTANCE_ADDR=10.0.0.7:61001",
				`CF_INSTANCE_PORTS=[{"external":61001,"internal":8080},{"external":61002,"internal":2222}]`,
			},
		},
		Limits: engine.Limits{MemoryMB: 64, DiskMB: 128, MaxPids: 10, CPUWeight: 1},
		Ports:  []engine.Port{{Container: 8080, Host: 61001}, {Container: 2222, Host: 61002}},
	}, spec); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Plan{
		Key: subject().Key, Instance: "guid", MemoryMB: 64, DiskMB: 128, MaxPids: 10, RootFS: "docker:///app",
		LogSource: "APP/PROC/WEB", CheckSource: "HEALTH", Graceful: 10 * time.Second, StartTimeout: 1500 * time.Millisecond,
		Startup:        []lrp.Check{{TCP: &lrp.TCPCheck{Port: 8080}}},
		Readiness:      []lrp.Check{{HTTP: &lrp.HTTPCheck{Port: 8080, Path: "/ready"}}},
		MetricTags:     map[string]string{"app": "shop", "index": "2", "instance": "guid"},
		InternalRoutes: []string{"shop.internal"},
	}, plan); diff != "" {
		t.Error(diff)
	}
}

func TestEnvWithoutPorts(t *testing.T) {
	t.Parallel()
	d, s := desired(), subject()
	d.RunInfo.Ports, s.HostPorts = nil, nil
	spec, _, err := Build(d, s, cell())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"CF_INSTANCE_IP=10.0.0.7", "CF_INSTANCE_PORT=", "CF_INSTANCE_ADDR=", "CF_INSTANCE_PORTS=[]"}, spec.Program.LastEnv); diff != "" {
		t.Error(diff)
	}
}

// TestUnsupported sets each feature in turn: each is named, alone and with the others.
func TestUnsupported(t *testing.T) {
	t.Parallel()
	features := []struct {
		field string
		set   func(*lrp.Desired)
	}{
		{"certificate_properties", func(d *lrp.Desired) {
			d.RunInfo.Certificate = &lrp.CertificateProperties{OrganizationalUnits: []string{"app"}}
		}},
	}
	if err := Supported(desired()); err != nil {
		t.Errorf("plain LRP: %v", err)
	}
	all, fields := desired(), []string{}
	for _, f := range features {
		d := desired()
		f.set(&d)
		f.set(&all)
		fields = append(fields, f.field)
		var u *Unsupported
		if err := Supported(d); !errors.As(err, &u) || !cmp.Equal(u.Fields, []string{f.field}) {
			t.Errorf("%s: %v", f.field, err)
		}
	}
	var u *Unsupported
	if err := Supported(all); !errors.As(err, &u) || !cmp.Equal(u.Fields, fields) {
		t.Errorf("all at once: %v", err)
	}
}

// TestWholeProgram builds an LRP with all that runs in its container.
func TestWholeProgram(t *testing.T) {
	t.Parallel()
	run := func(path string) *lrp.Action { return &lrp.Action{Run: &lrp.RunAction{Path: path}} }
	limit := int64(1000)
	d := desired()
	d.RunInfo.Check, d.RunInfo.Setup, d.RunInfo.Monitor, d.RunInfo.LogRateLimit = nil, run("/setup"), run("/monitor"), &limit
	d.RunInfo.Sidecars = []lrp.Sidecar{{Action: run("/proxy")}}
	spec, _, err := Build(d, subject(), cell())
	if err != nil {
		t.Fatal(err)
	}
	got := spec.Program
	got.Env, got.LastEnv = nil, nil
	want := step.Program{
		Setup: run("/setup"), Action: d.RunInfo.Action, Sidecars: []*lrp.Action{run("/proxy")},
		Monitor: &step.Monitor{Action: run("/monitor"), StartTimeout: 1500 * time.Millisecond, StartEvery: 2 * time.Second, Every: 30 * time.Second},
		Source:  "APP/PROC/WEB", Graceful: 10 * time.Second, LogBytes: 1000, LogLines: 7,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	d.RunInfo.Check = &lrp.CheckDefinition{Checks: []lrp.Check{{}}} // none that can be made
	if spec, _, err = Build(d, subject(), cell()); err != nil || spec.Program.Monitor != nil || spec.Program.Checked {
		t.Errorf("a check definition wins over the monitor: %+v, %v", spec.Program, err)
	}
}

func TestBuildTask(t *testing.T) {
	t.Parallel()
	d := task.Definition{
		RootFS: "docker:///app", Action: &lrp.Action{Run: &lrp.RunAction{Path: "/job"}}, Env: []lrp.EnvVar{{Name: "A", Value: "b"}},
		MemoryMB: 64, DiskMB: 128, MaxPids: 10, LogSource: "APP/TASK/x", ResultFile: "/result", Privileged: true,
		MetricTags: map[string]lrp.MetricTag{"app": {Static: "shop"}},
	}
	key := cells.TaskKey{GUID: "t", Domain: "tasks"}
	spec, plan, err := BuildTask(d, Subject{Task: key, Instance: "guid"}, cell())
	if err != nil {
		t.Fatal(err)
	}
	read, err := ParsePlan(spec.Labels)
	if diff := cmp.Diff(plan, read); err != nil || diff != "" {
		t.Errorf("%v: %s", err, diff)
	}
	spec.Labels = nil
	if diff := cmp.Diff(engine.Spec{
		ID: "guid", RootFS: "docker:///app", AddressEnv: "CF_INSTANCE_INTERNAL_IP", Privileged: true,
		Program: step.Program{
			Action: d.Action, Source: "APP/TASK/x", ResultFile: "/result", Graceful: 10 * time.Second, LogBytes: -1, LogLines: 7, Env: []string{"A=b"},
			LastEnv: []string{"CF_INSTANCE_IP=10.0.0.7", "CF_INSTANCE_PORT=", "CF_INSTANCE_ADDR=", "CF_INSTANCE_PORTS=[]"},
		},
		Limits: engine.Limits{MemoryMB: 64, DiskMB: 128, MaxPids: 10},
	}, spec); diff != "" {
		t.Error(diff)
	}
	if plan.Task != key || plan.Graceful != 10*time.Second || plan.MetricTags["app"] != "shop" {
		t.Errorf("plan %+v", plan)
	}
	d.MetricTags["i"] = lrp.MetricTag{Dynamic: lrp.TagIndex}
	if _, _, err := BuildTask(d, Subject{Task: key, Instance: "guid"}, cell()); err == nil || !strings.Contains(err.Error(), `metric_tags "i"`) {
		t.Errorf("got %v", err)
	}
}

// knownRunInfo lists the fields of RunInfo that Supported, Build or the BBS take care of. A field
// that is added to RunInfo must be dealt with here before an LRP that uses it may run.
var knownRunInfo = strings.Fields(`CreatedAt Env Setup Action Monitor Check Sidecars StartTimeoutMS CPUWeight Privileged Ports
	EgressRules LogSource MetricsGUID LogRateLimit CachedDependencies ImageLayers LegacyDownloadUser TrustedSystemCertificatesPath
	VolumeMounts VolumeMountedFiles Network Certificate ImageUsername ImagePassword`)

func TestNoFieldIsForgotten(t *testing.T) {
	t.Parallel()
	var fields []string
	for f := range reflect.TypeFor[lrp.RunInfo]().Fields() {
		fields = append(fields, f.Name)
	}
	if diff := cmp.Diff(knownRunInfo, fields); diff != "" {
		t.Errorf("decide what a cell does with these fields (-known +there):\n%s", diff)
	}
}

func TestBadInternalRoutes(t *testing.T) {
	t.Parallel()
	d := desired()
	d.Routes["internal-router"] = []byte(`{"hostname":1}`)
	if _, _, err := Build(d, subject(), cell()); err == nil || !strings.Contains(err.Error(), `routes "internal-router"`) {
		t.Errorf("got %v", err)
	}
}

// TestPlanSurvivesLabels writes random plans to labels and reads them back.
func TestPlanSurvivesLabels(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(1, 40, 9000)
		p := Plan{
			Key: lrp.Key{
				Slot:   lrp.Slot{Process: lrp.ProcessGUID(text.Draw(t, "process")), Index: rapid.Int32Min(0).Draw(t, "index")},
				Domain: lrp.Domain(text.Draw(t, "domain")),
			},
			Instance: lrp.InstanceGUID(text.Draw(t, "instance")),
			MemoryMB: rapid.Int32().Draw(t, "memory"), DiskMB: 3, MaxPids: 4, RootFS: text.Draw(t, "rootfs"),
			PlacementTags: []string{"a"}, LogSource: strings.Repeat("long ", rapid.IntRange(0, 3000).Draw(t, "times")),
			Startup:      []lrp.Check{{HTTP: &lrp.HTTPCheck{Port: 1, Path: text.Draw(t, "path"), RequestTimeoutMS: 3, IntervalMS: 4}}},
			StartTimeout: time.Duration(rapid.Int64().Draw(t, "timeout")),
			MetricTags:   map[string]string{text.Draw(t, "name"): text.Draw(t, "value")},
		}
		labels, err := p.Labels()
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range labels {
			if strings.HasPrefix(k, labelPlan) && len(k)+len(v) > 4096 {
				t.Fatalf("label %s takes %d bytes", k, len(k)+len(v))
			}
		}
		got, err := ParsePlan(labels)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(p, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestPlanLimits(t *testing.T) {
	t.Parallel()
	if _, err := (Plan{LogSource: strings.Repeat("x", planPiece*maxPlanPieces)}).Labels(); err == nil {
		t.Error("a plan that does not fit was accepted")
	}
	for _, labels := range []map[string]string{nil, {labelPlan + "0": "{}"}, {labelPlan + "0": "{}", labelIndex: "1"}} {
		if _, err := ParsePlan(labels); err == nil {
			t.Errorf("labels %v were accepted", labels)
		}
	}
}
