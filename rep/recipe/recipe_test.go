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
	"muster/cells/engine"
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
	return Subject{Key: lrp.Key{Slot: lrp.Slot{Process: "app", Index: 2}, Domain: "apps"}, Instance: "guid", Address: "10.0.0.7", HostPorts: []uint16{61001, 61002}}
}

func TestBuild(t *testing.T) {
	t.Parallel()
	spec, plan, err := Build(desired(), subject())
	if err != nil {
		t.Fatal(err)
	}
	spec.Labels = nil
	if diff := cmp.Diff(engine.Spec{
		ID: "guid", RootFS: "docker:///app",
		Process: engine.Process{Path: "/app", Args: []string{"-v"}, User: "vcap", Env: []string{
			"INSTANCE_GUID=guid", "INSTANCE_INDEX=2", "CF_INSTANCE_GUID=guid", "CF_INSTANCE_INDEX=2",
			"A=lrp", "INSTANCE_INDEX=mine", "A=action",
			"CF_INSTANCE_IP=10.0.0.7", "CF_INSTANCE_PORT=61001", "CF_INSTANCE_ADDR=10.0.0.7:61001",
			`CF_INSTANCE_PORTS=[{"external":61001,"internal":8080},{"external":61002,"internal":2222}]`,
		}},
		Limits: engine.Limits{MemoryMB: 64, DiskMB: 128, MaxPids: 10, CPUWeight: 1},
		Ports:  []engine.Port{{Container: 8080, Host: 61001}, {Container: 2222, Host: 61002}},
	}, spec); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Plan{
		Key: subject().Key, Instance: "guid", MemoryMB: 64, DiskMB: 128, MaxPids: 10, RootFS: "docker:///app",
		LogSource: "APP/PROC/WEB", StartTimeout: 1500 * time.Millisecond,
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
	spec, _, err := Build(d, s)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"CF_INSTANCE_IP=10.0.0.7", "CF_INSTANCE_PORT=", "CF_INSTANCE_ADDR=", "CF_INSTANCE_PORTS=[]"}, spec.Process.Env[len(spec.Process.Env)-4:]); diff != "" {
		t.Error(diff)
	}
}

// TestUnsupported sets each feature in turn: each is named, alone and with the others.
func TestUnsupported(t *testing.T) {
	t.Parallel()
	limit := int64(100)
	features := []struct {
		field string
		set   func(*lrp.Desired)
	}{
		{"setup", func(d *lrp.Desired) { d.RunInfo.Setup = d.RunInfo.Action }},
		{"action (other than one run action)", func(d *lrp.Desired) {
			d.RunInfo.Action = &lrp.Action{Parallel: &lrp.ParallelAction{Actions: []*lrp.Action{d.RunInfo.Action}}}
		}},
		{"monitor (use check_definition)", func(d *lrp.Desired) { d.RunInfo.Check, d.RunInfo.Monitor = nil, d.RunInfo.Action }},
		{"sidecars", func(d *lrp.Desired) { d.RunInfo.Sidecars = []lrp.Sidecar{{}} }},
		{"egress_rules", func(d *lrp.Desired) { d.RunInfo.EgressRules = []lrp.EgressRule{{}} }},
		{"cached_dependencies", func(d *lrp.Desired) { d.RunInfo.CachedDependencies = []lrp.CachedDependency{{}} }},
		{"image_layers", func(d *lrp.Desired) { d.RunInfo.ImageLayers = []lrp.ImageLayer{{}} }},
		{"trusted_system_certificates_path", func(d *lrp.Desired) { d.RunInfo.TrustedSystemCertificatesPath = "/certs" }},
		{"volume_mounts", func(d *lrp.Desired) { d.RunInfo.VolumeMounts = []lrp.VolumeMount{{}} }},
		{"volume_mounted_files", func(d *lrp.Desired) { d.RunInfo.VolumeMountedFiles = []lrp.File{{}} }},
		{"network", func(d *lrp.Desired) { d.RunInfo.Network = map[string]string{"a": "b"} }},
		{"certificate_properties", func(d *lrp.Desired) {
			d.RunInfo.Certificate = &lrp.CertificateProperties{OrganizationalUnits: []string{"app"}}
		}},
		{"log_rate_limit", func(d *lrp.Desired) { d.RunInfo.LogRateLimit = &limit }},
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
	unlimited := int64(-1)
	d := desired()
	d.RunInfo.LogRateLimit = &unlimited
	if err := Supported(d); err != nil {
		t.Errorf("no limit: %v", err)
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
	if _, _, err := Build(d, subject()); err == nil || !strings.Contains(err.Error(), `routes "internal-router"`) {
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
