package lrp

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// valid returns a Desired that uses everything that can be used.
func valid() Desired {
	limit := int64(0)
	return Desired{
		Process: "app-1_b", Domain: "cf-apps", LogGUID: "log", Instances: 3, Annotation: "note", MemoryMB: 64, DiskMB: 64, MaxPids: 10,
		Routes:     map[string][]byte{"cf-router": []byte(`[{"hostnames":["a.example.com"],"port":8080}]`), "other": []byte("anything")},
		MetricTags: map[string]MetricTag{"source_id": {Static: "metrics"}, "index": {Dynamic: TagIndex}},
		RootFS:     "docker://registry.example.com/app#latest", PlacementTags: []string{"gpu"},
		RunInfo: RunInfo{
			Env: []EnvVar{{Name: "A", Value: ""}}, Setup: run(), Action: run(), Monitor: run(), Ports: []uint32{8080}, LogRateLimit: &limit,
			MetricsGUID:        "metrics",
			CachedDependencies: []CachedDependency{{From: "f", To: "t", ChecksumAlgorithm: "SHA256", ChecksumValue: "v"}},
			ImageLayers: []ImageLayer{{
				URL: "u", DestinationPath: "d", Type: LayerExclusive, Media: MediaTGZ, DigestAlgorithm: DigestSHA256, DigestValue: "v",
			}},
			LegacyDownloadUser: "vcap", VolumeMounts: []VolumeMount{{Driver: "nfs", Mode: "rw", Shared: &SharedDevice{VolumeID: "v"}}},
			VolumeMountedFiles: []File{{Path: "p", Content: "c"}},
			EgressRules:        []EgressRule{{Protocol: "tcp", Destinations: []string{"10.0.0.0/8"}, Ports: []uint32{443}}},
			Check: &CheckDefinition{
				Checks: []Check{{TCP: &TCPCheck{Port: 8080}}}, ReadinessChecks: []Check{{HTTP: &HTTPCheck{Port: 8080, Path: "/"}}},
			},
			Sidecars: []Sidecar{{Action: run()}}, ImageUsername: "u", ImagePassword: "p",
		},
	}
}

func run() *Action { return &Action{Run: &RunAction{Path: "/bin/app", User: "vcap"}} }

// paths returns the fields that a validation names.
func paths(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	var invalid *Invalid
	if !errors.As(err, &invalid) {
		t.Fatalf("got %T, want *Invalid: %v", err, err)
	}
	var all []string
	for _, f := range invalid.Fields {
		if f.Problem == "" {
			t.Errorf("no problem named for %s", f.Path())
		}
		if !strings.Contains(err.Error(), "Invalid field: "+f.Field) {
			t.Errorf("%q does not name %s in the form that clients look for", err, f.Field)
		}
		all = append(all, f.Path())
	}
	return all
}

// TestDesired checks each rule of §2.1 below, at and above its bound.
func TestDesired(t *testing.T) {
	t.Parallel()
	times := strings.Repeat
	rate := func(n int64) func(*Desired) { return func(d *Desired) { d.RunInfo.LogRateLimit = &n } }
	for name, tt := range map[string]struct {
		change func(*Desired)
		want   []string
	}{
		"valid": {func(*Desired) {}, nil},

		"process GUID empty":           {func(d *Desired) { d.Process = "" }, []string{"process_guid"}},
		"process GUID with a space":    {func(d *Desired) { d.Process = "a b" }, []string{"process_guid"}},
		"process GUID with a slash":    {func(d *Desired) { d.Process = "a/b" }, []string{"process_guid"}},
		"process GUID with a comma":    {func(d *Desired) { d.Process = "a,b" }, []string{"process_guid"}},
		"process GUID with a dot":      {func(d *Desired) { d.Process = "a.b" }, []string{"process_guid"}},
		"process GUID in unicode":      {func(d *Desired) { d.Process = "äpp" }, []string{"process_guid"}},
		"process GUID with a newline":  {func(d *Desired) { d.Process = "app\n" }, []string{"process_guid"}},
		"process GUID at its longest":  {func(d *Desired) { d.Process = ProcessGUID(times("a", 255)) }, nil},
		"process GUID too long":        {func(d *Desired) { d.Process = ProcessGUID(times("a", 256)) }, []string{"process_guid"}},
		"domain empty":                 {func(d *Desired) { d.Domain = "" }, []string{"domain"}},
		"domain at its longest":        {func(d *Desired) { d.Domain = Domain(times("ä", 255)) }, nil},
		"domain too long":              {func(d *Desired) { d.Domain = Domain(times("ä", 256)) }, []string{"domain"}},
		"domain with NUL":              {func(d *Desired) { d.Domain = "a\x00" }, []string{"domain"}},
		"log GUID too long":            {func(d *Desired) { d.LogGUID = times("a", 256) }, []string{"log_guid"}},
		"rootfs empty":                 {func(d *Desired) { d.RootFS = "" }, []string{"rootfs"}},
		"rootfs without scheme":        {func(d *Desired) { d.RootFS = "some-image" }, []string{"rootfs"}},
		"rootfs with an empty scheme":  {func(d *Desired) { d.RootFS = "://image" }, []string{"rootfs"}},
		"rootfs that starts with 1":    {func(d *Desired) { d.RootFS = "1a://image" }, []string{"rootfs"}},
		"rootfs without slashes":       {func(d *Desired) { d.RootFS = "preloaded:cflinuxfs4" }, nil},
		"rootfs with a longer scheme":  {func(d *Desired) { d.RootFS = "oci-archive:///a.tar" }, nil},
		"rootfs at its longest":        {func(d *Desired) { d.RootFS = "a:" + times("b", 1022) }, nil},
		"rootfs too long":              {func(d *Desired) { d.RootFS = "a:" + times("b", 1023) }, []string{"rootfs"}},
		"no instances":                 {func(d *Desired) { d.Instances = 0 }, nil},
		"negative instances":           {func(d *Desired) { d.Instances = -1 }, []string{"instances"}},
		"the most instances":           {func(d *Desired) { d.Instances = MaxInstances }, nil},
		"too many instances":           {func(d *Desired) { d.Instances = MaxInstances + 1 }, []string{"instances"}},
		"no memory, disk or processes": {func(d *Desired) { d.MemoryMB, d.DiskMB, d.MaxPids = 0, 0, 0 }, nil},
		"negative memory":              {func(d *Desired) { d.MemoryMB = -1 }, []string{"memory_mb"}},
		"negative disk":                {func(d *Desired) { d.DiskMB = -1 }, []string{"disk_mb"}},
		"negative max pids":            {func(d *Desired) { d.MaxPids = -1 }, []string{"max_pids"}},
		"all at once":                  {func(d *Desired) { d.MemoryMB, d.DiskMB, d.Domain = -1, -1, "" }, []string{"domain", "memory_mb", "disk_mb"}},
		"log rate absent":              {func(d *Desired) { d.RunInfo.LogRateLimit = nil }, nil},
		"log rate unlimited":           {rate(-1), nil},
		"log rate below":               {rate(-2), []string{"log_rate_limit_bytes_per_second"}},
		"annotation just below":        {func(d *Desired) { d.Annotation = times("a", 10_239) }, nil},
		"annotation at its largest":    {func(d *Desired) { d.Annotation = times("a", 10_240) }, nil},
		"log GUID at its longest":      {func(d *Desired) { d.LogGUID = times("a", 255) }, nil},
		"letters, digits, - and _":     {func(d *Desired) { d.Process = "aZ09-_" }, nil},
		"annotation too large":         {func(d *Desired) { d.Annotation = times("a", 10_241) }, []string{"annotation"}},
		"annotation counts in bytes":   {func(d *Desired) { d.Annotation = times("ä", 5_121) }, []string{"annotation"}},
		"annotation with NUL":          {func(d *Desired) { d.Annotation = "\x00" }, []string{"annotation"}},
		"annotation not in UTF-8":      {func(d *Desired) { d.Annotation = "\xff" }, []string{"annotation"}},
		"placement tag with NUL":       {func(d *Desired) { d.PlacementTags = []string{"a", "\x00"} }, []string{"placement_tags[1]"}},

		"routes at their largest, keys not counted": {func(d *Desired) {
			d.Routes = map[string][]byte{times("k", 99): []byte(times("a", 131_000)), "l": []byte(times("a", 72))}
		}, nil},
		"routes too large": {func(d *Desired) {
			d.Routes = map[string][]byte{"k": []byte(times("a", 131_000)), "l": []byte(times("a", 73))}
		}, []string{"routes"}},
		"no routes":                          {func(d *Desired) { d.Routes = nil }, nil},
		"malformed HTTP routes":              {func(d *Desired) { d.Routes["cf-router"] = []byte("{") }, []string{"routes"}},
		"HTTP routes null":                   {func(d *Desired) { d.Routes["cf-router"] = []byte("null") }, nil},
		"a route to a port that is not open": {func(d *Desired) { d.RunInfo.Ports = []uint32{9090} }, []string{"routes"}},
		"a route without port":               {func(d *Desired) { d.Routes["cf-router"] = []byte(`[{"hostnames":["a"]}]`) }, []string{"routes"}},
		"a port without route":               {func(d *Desired) { d.RunInfo.Ports = []uint32{8080, 9090} }, nil},
		"port 0":                             {func(d *Desired) { d.RunInfo.Ports = []uint32{8080, 0} }, []string{"ports[1]"}},
		"the last port":                      {func(d *Desired) { d.RunInfo.Ports = []uint32{8080, 65_535} }, nil},
		"after the last port":                {func(d *Desired) { d.RunInfo.Ports = []uint32{8080, 65_536} }, []string{"ports[1]"}},

		"no metric tags":             {func(d *Desired) { d.MetricTags, d.RunInfo.MetricsGUID = nil, "" }, []string{"metric_tags"}},
		"a metric tag with nothing":  {func(d *Desired) { d.MetricTags["x"] = MetricTag{} }, []string{"metric_tags"}},
		"a metric tag with both":     {func(d *Desired) { d.MetricTags["x"] = MetricTag{Static: "s", Dynamic: TagIndex} }, []string{"metric_tags"}},
		"an unknown dynamic value":   {func(d *Desired) { d.MetricTags["x"] = MetricTag{Dynamic: 3} }, []string{"dynamic"}},
		"a negative dynamic value":   {func(d *Desired) { d.MetricTags["x"] = MetricTag{Dynamic: -1} }, []string{"dynamic"}},
		"the last dynamic value":     {func(d *Desired) { d.MetricTags["x"] = MetricTag{Dynamic: TagInstanceGUID} }, nil},
		"a source that differs":      {func(d *Desired) { d.RunInfo.MetricsGUID = "else" }, []string{"metrics_guid"}},
		"no metrics GUID, no source": {func(d *Desired) { d.RunInfo.MetricsGUID = ""; delete(d.MetricTags, "source_id") }, nil},
		"a metrics GUID, no source":  {func(d *Desired) { delete(d.MetricTags, "source_id") }, []string{"metrics_guid"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := valid()
			tt.change(&d)
			if diff := cmp.Diff(tt.want, paths(t, d.Validate())); diff != "" {
				t.Errorf("fields (-want +got):\n%s\n%v", diff, d.Validate())
			}
		})
	}
}

// TestNotValidated checks the last row of §2.1: what is the business of cells is taken as it comes, with
// values of enums that nobody knows yet.
func TestNotValidated(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Desired){
		"CPU weight":           func(d *Desired) { d.RunInfo.CPUWeight = math.MaxUint32 },
		"start timeout":        func(d *Desired) { d.RunInfo.StartTimeoutMS = -1 },
		"update strategy":      func(d *Desired) { d.Strategy = math.MaxInt32 },
		"no ports":             func(d *Desired) { d.RunInfo.Ports, d.Routes = nil, nil },
		"placement tags":       func(d *Desired) { d.PlacementTags = []string{"", ""} },
		"privileged":           func(d *Desired) { d.RunInfo.Privileged = true },
		"paths of files":       func(d *Desired) { d.RunInfo.VolumeMountedFiles[0].Path = "" },
		"trusted certificates": func(d *Desired) { d.RunInfo.TrustedSystemCertificatesPath = "no path" },
		"log source":           func(d *Desired) { d.RunInfo.LogSource, d.LogGUID = "", "" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := valid()
			change(&d)
			if err := d.Validate(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRecipe checks the rules about how instances are made, the rest of §2.1.
func TestRecipe(t *testing.T) {
	t.Parallel()
	dependency := func(change func(*CachedDependency)) func(*RunInfo) {
		return func(r *RunInfo) { change(&r.CachedDependencies[0]) }
	}
	layer := func(change func(*ImageLayer)) func(*RunInfo) { return func(r *RunInfo) { change(&r.ImageLayers[0]) } }
	mount := func(change func(*VolumeMount)) func(*RunInfo) { return func(r *RunInfo) { change(&r.VolumeMounts[0]) } }
	files := func(sizes ...int) func(*RunInfo) {
		return func(r *RunInfo) {
			r.VolumeMountedFiles = nil
			for _, n := range sizes {
				r.VolumeMountedFiles = append(r.VolumeMountedFiles, File{Content: strings.Repeat("a", n)})
			}
		}
	}
	const inDependency, inLayer, inMount = "cached_dependencies[0].cached_dependency", "image_layers[0].image_layer", "volume_mounts[0].volume_mount"
	for name, tt := range map[string]struct {
		change func(*RunInfo)
		want   []string
	}{
		"blank variable name": {func(r *RunInfo) { r.Env[0].Name = "" }, []string{"environment_variables[0].name"}},
		"no action":           {func(r *RunInfo) { r.Action = nil }, []string{"action"}},
		"empty action":        {func(r *RunInfo) { r.Action = &Action{} }, []string{"action.inner-action"}},
		"no setup or monitor": {func(r *RunInfo) { r.Setup, r.Monitor = nil, nil }, nil},
		"bad setup":           {func(r *RunInfo) { r.Setup = &Action{} }, []string{"setup.inner-action"}},
		"bad monitor":         {func(r *RunInfo) { r.Monitor = &Action{} }, []string{"monitor.inner-action"}},

		"mounted files at their largest": {files(1<<20-1, 1), nil},
		"mounted files too large":        {files(1<<20, 1), []string{"volumeMountedFiles"}},

		"dependency without from":              {dependency(func(d *CachedDependency) { d.From = "" }), []string{inDependency}},
		"dependency without to":                {dependency(func(d *CachedDependency) { d.To = "" }), []string{inDependency}},
		"dependency without checksum":          {dependency(func(d *CachedDependency) { d.ChecksumAlgorithm, d.ChecksumValue = "", "" }), nil},
		"dependency with half a checksum":      {dependency(func(d *CachedDependency) { d.ChecksumValue = "" }), []string{inDependency}},
		"dependency with the other half":       {dependency(func(d *CachedDependency) { d.ChecksumAlgorithm = "" }), []string{inDependency}},
		"dependency with an unknown algorithm": {dependency(func(d *CachedDependency) { d.ChecksumAlgorithm = "sha512" }), []string{inDependency}},
		"dependency with sha1":                 {dependency(func(d *CachedDependency) { d.ChecksumAlgorithm = "Sha1" }), nil},
		"dependency with md5":                  {dependency(func(d *CachedDependency) { d.ChecksumAlgorithm = "md5" }), nil},

		"layer without URL":             {layer(func(l *ImageLayer) { l.URL = "" }), []string{inLayer}},
		"layer without destination":     {layer(func(l *ImageLayer) { l.DestinationPath = "" }), []string{inLayer}},
		"layer of no type":              {layer(func(l *ImageLayer) { l.Type = 0 }), []string{inLayer}},
		"layer of an unknown type":      {layer(func(l *ImageLayer) { l.Type = 3 }), []string{inLayer}},
		"layer of no media type":        {layer(func(l *ImageLayer) { l.Media = 0 }), []string{inLayer}},
		"layer of an unknown media":     {layer(func(l *ImageLayer) { l.Media = 4 }), []string{inLayer}},
		"exclusive layer, no digest":    {layer(func(l *ImageLayer) { l.DigestAlgorithm, l.DigestValue = 0, "" }), []string{inLayer}},
		"layer with half a digest":      {layer(func(l *ImageLayer) { l.DigestValue = "" }), []string{inLayer}},
		"layer with the other half":     {layer(func(l *ImageLayer) { l.DigestAlgorithm = 0 }), []string{inLayer}},
		"layer of an unknown digest":    {layer(func(l *ImageLayer) { l.DigestAlgorithm = 3 }), []string{inLayer}},
		"layer of SHA512":               {layer(func(l *ImageLayer) { l.DigestAlgorithm = DigestSHA512 }), nil},
		"layer that is a TAR":           {layer(func(l *ImageLayer) { l.Media = MediaTAR }), nil},
		"layer that is a ZIP":           {layer(func(l *ImageLayer) { l.Media = MediaZIP }), nil},
		"layer below all enums":         {layer(func(l *ImageLayer) { l.Type, l.Media = -1, -1 }), []string{inLayer, inLayer}},
		"shared layer without digest":   {layer(func(l *ImageLayer) { l.Type, l.DigestAlgorithm, l.DigestValue = LayerShared, 0, "" }), nil},
		"exclusive layer, no user":      {func(r *RunInfo) { r.LegacyDownloadUser = "" }, []string{"legacy_download_user"}},
		"no user without such a layer":  {func(r *RunInfo) { r.LegacyDownloadUser = ""; r.ImageLayers[0].Type = LayerShared }, nil},
		"mount without driver":          {mount(func(m *VolumeMount) { m.Driver = "" }), []string{inMount}},
		"mount to read":                 {mount(func(m *VolumeMount) { m.Mode = "r" }), nil},
		"mount with another mode":       {mount(func(m *VolumeMount) { m.Mode = "w" }), []string{inMount}},
		"shared mount without volume":   {mount(func(m *VolumeMount) { m.Shared.VolumeID = "" }), []string{inMount}},
		"dedicated mount, no mounter":   {mount(func(m *VolumeMount) { m.Dedicated = &DedicatedDevice{} }), []string{inMount}},
		"mount of no device":            {mount(func(m *VolumeMount) { m.Shared = nil }), nil},
		"user without password":         {func(r *RunInfo) { r.ImagePassword = "" }, []string{"image_password"}},
		"password without user":         {func(r *RunInfo) { r.ImageUsername = "" }, []string{"image_username"}},
		"neither":                       {func(r *RunInfo) { r.ImageUsername, r.ImagePassword = "", "" }, nil},
		"check of nothing":              {func(r *RunInfo) { r.Check.Checks[0] = Check{} }, []string{"check_definition.checks[0].check_definition"}},
		"check of both":                 {func(r *RunInfo) { r.Check.Checks[0].HTTP = &HTTPCheck{Port: 1} }, []string{"check_definition.checks[0].check_definition"}},
		"TCP check of port 0":           {func(r *RunInfo) { r.Check.Checks[0].TCP.Port = 0 }, []string{"check_definition.checks[0].check_definition"}},
		"TCP check of port 65536":       {func(r *RunInfo) { r.Check.Checks[0].TCP.Port = 65_536 }, []string{"check_definition.checks[0].check_definition"}},
		"TCP check of port 1":           {func(r *RunInfo) { r.Check.Checks[0].TCP.Port = 1 }, nil},
		"HTTP check of port 65536":      {func(r *RunInfo) { r.Check.ReadinessChecks[0].HTTP.Port = 65_536 }, []string{"check_definition.readiness_checks[0].check_definition"}},
		"readiness check of nothing":    {func(r *RunInfo) { r.Check.ReadinessChecks[0] = Check{} }, []string{"check_definition.readiness_checks[0].check_definition"}},
		"HTTP check of port 0":          {func(r *RunInfo) { r.Check.ReadinessChecks[0].HTTP.Port = 0 }, []string{"check_definition.readiness_checks[0].check_definition"}},
		"HTTP check of port 65535":      {func(r *RunInfo) { r.Check.ReadinessChecks[0].HTTP.Port = 65_535 }, nil},
		"no checks":                     {func(r *RunInfo) { r.Check = &CheckDefinition{} }, nil},
		"sidecar without action":        {func(r *RunInfo) { r.Sidecars[0].Action = nil }, []string{"sidecars[0].action"}},
		"sidecar with a bad action":     {func(r *RunInfo) { r.Sidecars[0].Action.Run.Path = "" }, []string{"sidecars[0].action.run_action.path"}},
		"sidecar with no amounts":       {func(r *RunInfo) { r.Sidecars[0].MemoryMB, r.Sidecars[0].DiskMB = 0, 0 }, nil},
		"sidecar with negative amounts": {func(r *RunInfo) { r.Sidecars[0].MemoryMB, r.Sidecars[0].DiskMB = -1, -1 }, []string{"sidecars[0].memory_mb", "sidecars[0].disk_mb"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := valid()
			tt.change(&d.RunInfo)
			if diff := cmp.Diff(tt.want, paths(t, d.Validate())); diff != "" {
				t.Errorf("fields (-want +got):\n%s\n%v", diff, d.Validate())
			}
		})
	}
}

// TestActions checks §2.3.
func TestActions(t *testing.T) {
	t.Parallel()
	timeout := func(ms int64) *Action { return &Action{Timeout: &TimeoutAction{Action: run(), TimeoutMS: ms}} }
	download := func(algorithm, value string) *Action {
		return &Action{Download: &DownloadAction{From: "f", To: "t", User: "u", ChecksumAlgorithm: algorithm, ChecksumValue: value}}
	}
	for name, tt := range map[string]struct {
		action *Action
		want   []string
	}{
		"run needs path and user":      {&Action{Run: &RunAction{}}, []string{"run_action.path", "run_action.user"}},
		"download needs three":         {&Action{Download: &DownloadAction{}}, []string{"download_action.from", "download_action.to", "download_action.user"}},
		"download with a checksum":     {download("md5", "v"), nil},
		"download with half of it":     {download("md5", ""), []string{"download_action.checksum"}},
		"download with an unknown one": {download("crc", "v"), []string{"download_action.checksum"}},
		"upload needs three":           {&Action{Upload: &UploadAction{}}, []string{"upload_action.to", "upload_action.from", "upload_action.user"}},
		"upload":                       {&Action{Upload: &UploadAction{From: "f", To: "t", User: "u"}}, nil},
		"timeout of 1 ms":              {timeout(1), nil},
		"timeout of 0":                 {timeout(0), []string{"timeout_action.timeout_ms"}},
		"timeout below 0":              {timeout(-1), []string{"timeout_action.timeout_ms"}},
		"timeout of nothing":           {&Action{Timeout: &TimeoutAction{TimeoutMS: 1}}, []string{"timeout_action.action"}},
		"try of nothing":               {&Action{Try: &TryAction{}}, []string{"try_action.action"}},
		"try of an empty action":       {&Action{Try: &TryAction{Action: &Action{}}}, []string{"try_action.action.inner-action"}},
		"progress of nothing":          {&Action{EmitProgress: &EmitProgressAction{}}, []string{"emit_progress_action.action"}},
		"progress":                     {&Action{EmitProgress: &EmitProgressAction{Action: run()}}, nil},
		"parallel of nothing":          {&Action{Parallel: &ParallelAction{}}, []string{"parallel_action.actions"}},
		"serial of nothing":            {&Action{Serial: &SerialAction{}}, []string{"serial_action.actions"}},
		"codependent of nothing":       {&Action{Codependent: &CodependentAction{}}, []string{"codependent_action.actions"}},
		"an absent element":            {&Action{Serial: &SerialAction{Actions: []*Action{run(), nil}}}, []string{"serial_action.actions[1].inner-action"}},
		"an empty element":             {&Action{Parallel: &ParallelAction{Actions: []*Action{{}}}}, []string{"parallel_action.actions[0].inner-action"}},
		"a bad element":                {&Action{Codependent: &CodependentAction{Actions: []*Action{timeout(0)}}}, []string{"codependent_action.actions[0].timeout_action.timeout_ms"}},
		"as deep as possible":          {nested(MaxActionDepth), nil},
		"too deep":                     {nested(MaxActionDepth + 1), []string{strings.Repeat("try_action.action.", MaxActionDepth) + "action"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := valid()
			d.RunInfo.Action = tt.action
			var want []string
			for _, path := range tt.want {
				want = append(want, "action."+path)
			}
			if diff := cmp.Diff(want, paths(t, d.Validate())); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
		})
	}
}

// nested returns an action of a depth.
func nested(depth int) *Action {
	a := run()
	for range depth - 1 {
		a = &Action{Try: &TryAction{Action: a}}
	}
	return a
}

// TestEgress checks §2.4.
func TestEgress(t *testing.T) {
	t.Parallel()
	to := []string{"10.0.0.1"}
	span := func(start, end uint32) *PortRange { return &PortRange{start, end} }
	for name, tt := range map[string]struct {
		rule EgressRule
		want []string
	}{
		"tcp to ports":              {EgressRule{Protocol: "tcp", Destinations: to, Ports: []uint32{1, 99_999}}, nil},
		"udp to a range":            {EgressRule{Protocol: "udp", Destinations: to, PortRange: span(1, 1)}, nil},
		"tcp to port 0":             {EgressRule{Protocol: "tcp", Destinations: to, Ports: []uint32{0}}, []string{"ports"}},
		"tcp to nothing":            {EgressRule{Protocol: "tcp", Destinations: to}, []string{"ports"}},
		"tcp to both":               {EgressRule{Protocol: "tcp", Destinations: to, Ports: []uint32{1}, PortRange: span(1, 2)}, []string{"ports"}},
		"a range from 0":            {EgressRule{Protocol: "tcp", Destinations: to, PortRange: span(0, 2)}, []string{"port_range"}},
		"a range backwards":         {EgressRule{Protocol: "tcp", Destinations: to, PortRange: span(2, 1)}, []string{"port_range"}},
		"tcp with ICMP":             {EgressRule{Protocol: "tcp", Destinations: to, Ports: []uint32{1}, ICMP: &ICMP{}}, []string{"icmp_info"}},
		"icmp":                      {EgressRule{Protocol: "icmp", Destinations: to, ICMP: &ICMP{Type: -1, Code: -1}}, nil},
		"icmp without info":         {EgressRule{Protocol: "icmp", Destinations: to}, []string{"icmp_info"}},
		"icmpv6 without info":       {EgressRule{Protocol: "icmpv6", Destinations: to}, []string{"icmpv6_info"}},
		"icmp with ports":           {EgressRule{Protocol: "icmp", Destinations: to, ICMP: &ICMP{}, Ports: []uint32{1}}, []string{"ports"}},
		"icmp with a range":         {EgressRule{Protocol: "icmp", Destinations: to, ICMP: &ICMP{}, PortRange: span(1, 2)}, []string{"port_range"}},
		"all":                       {EgressRule{Protocol: "all", Destinations: to}, nil},
		"all with ports":            {EgressRule{Protocol: "all", Destinations: to, Ports: []uint32{1}}, []string{"ports"}},
		"all with ICMP":             {EgressRule{Protocol: "all", Destinations: to, ICMP: &ICMP{}}, []string{"icmp_info"}},
		"upper case":                {EgressRule{Protocol: "TCP", Destinations: to, Ports: []uint32{1}}, []string{"protocol"}},
		"no protocol":               {EgressRule{Destinations: to}, []string{"protocol"}},
		"no destination":            {EgressRule{Protocol: "all"}, []string{"destinations"}},
		"an IPv6 address":           {EgressRule{Protocol: "all", Destinations: []string{"fd00::1"}}, nil},
		"a CIDR block":              {EgressRule{Protocol: "all", Destinations: []string{"10.0.0.0/8", "fd00::/8"}}, nil},
		"a range of addresses":      {EgressRule{Protocol: "all", Destinations: []string{"10.0.0.1-10.0.0.1", "fd00::1-fd00::2"}}, nil},
		"a range of them backwards": {EgressRule{Protocol: "all", Destinations: []string{"10.0.0.2-10.0.0.1"}}, []string{"destinations"}},
		"half a range":              {EgressRule{Protocol: "all", Destinations: []string{"10.0.0.1-"}}, []string{"destinations"}},
		"a list":                    {EgressRule{Protocol: "all", Destinations: []string{"10.0.0.1,10.0.0.0/8,10.0.0.1-10.0.0.9"}}, nil},
		"a list with blanks":        {EgressRule{Protocol: "all", Destinations: []string{"10.0.0.1, 10.0.0.2"}}, []string{"destinations"}},
		"a list with a gap":         {EgressRule{Protocol: "all", Destinations: []string{"10.0.0.1,"}}, []string{"destinations"}},
		"an empty text":             {EgressRule{Protocol: "all", Destinations: []string{""}}, []string{"destinations"}},
		"a name":                    {EgressRule{Protocol: "all", Destinations: []string{"example.com"}}, []string{"destinations"}},
		"a block that is too long":  {EgressRule{Protocol: "all", Destinations: []string{"10.0.0.0/33"}}, []string{"destinations"}},
		"an address with a zone":    {EgressRule{Protocol: "all", Destinations: []string{"fe80::1%eth0"}}, []string{"destinations"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := valid()
			d.RunInfo.EgressRules = []EgressRule{tt.rule}
			var want []string
			for _, field := range tt.want {
				want = append(want, "egress_rules[0]."+field)
			}
			if diff := cmp.Diff(want, paths(t, d.Validate())); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
		})
	}
}

// TestUpdate checks §2.2, and that routes of an update are checked against the ports of the record.
func TestUpdate(t *testing.T) {
	t.Parallel()
	number := func(n int32) *int32 { return &n }
	text := func(s string) *string { return &s }
	routes := func(value string) map[string][]byte { return map[string][]byte{"cf-router": []byte(value)} }
	for name, tt := range map[string]struct {
		u     Update
		want  []string // of Validate
		added []string // by ValidateFor
	}{
		"nothing":                     {Update{}, nil, nil},
		"to zero":                     {Update{Instances: number(0)}, nil, nil},
		"below zero":                  {Update{Instances: number(-1)}, []string{"instances"}, nil},
		"too many":                    {Update{Instances: number(math.MaxInt32)}, []string{"instances"}, nil},
		"annotation at its largest":   {Update{Annotation: text(strings.Repeat("a", MaxAnnotationBytes))}, nil, nil},
		"annotation too large":        {Update{Annotation: text(strings.Repeat("a", MaxAnnotationBytes+1))}, []string{"annotation"}, nil},
		"routes too large":            {Update{Routes: map[string][]byte{"k": make([]byte, MaxRoutesBytes+1)}}, []string{"routes"}, nil},
		"malformed HTTP routes":       {Update{Routes: routes("[1]")}, []string{"routes"}, nil},
		"route to an open port":       {Update{Routes: routes(`[{"hostnames":["a"],"port":8080}]`)}, nil, nil},
		"route to another port":       {Update{Routes: routes(`[{"hostnames":["a"],"port":8081}]`)}, nil, []string{"routes"}},
		"no routes":                   {Update{Routes: map[string][]byte{}}, nil, nil},
		"metric tag with nothing":     {Update{MetricTags: map[string]MetricTag{"a": {}}}, []string{"metric_tags"}, nil},
		"user without password":       {Update{ImageUsername: text("u")}, []string{"image_password"}, nil},
		"password without user":       {Update{ImagePassword: text("p")}, []string{"image_username"}, nil},
		"user, empty password":        {Update{ImageUsername: text("u"), ImagePassword: text("")}, []string{"image_password"}, nil},
		"empty user, password":        {Update{ImageUsername: text(""), ImagePassword: text("p")}, []string{"image_username"}, nil},
		"both, empty: no credentials": {Update{ImageUsername: text(""), ImagePassword: text("")}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, paths(t, tt.u.Validate())); diff != "" {
				t.Errorf("fields of Validate (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(append(tt.want, tt.added...), paths(t, tt.u.ValidateFor(valid()))); diff != "" {
				t.Errorf("fields of ValidateFor (-want +got):\n%s", diff)
			}
		})
	}
}

// TestEventNeeds checks §2.6: for each event, what must be there, by taking it away.
func TestEventNeeds(t *testing.T) {
	t.Parallel()
	needed := map[EventName][]string{
		Create: {"process_guid", "index", "domain"}, Claim: {"process_guid", "instance_guid", "cell_id"},
		Start: {"process_guid", "index", "domain", "instance_guid", "cell_id", "address"},
		Crash: {"process_guid", "index", "domain", "instance_guid", "cell_id"},
		Fail:  {"process_guid", "index", "domain", "error_message"}, Retire: {"process_guid", "index", "domain"},
		Remove: {"process_guid", "index"}, Restart: {"process_guid", "index"},
		EvacuateClaimed:  {"process_guid", "index", "domain", "instance_guid", "cell_id"},
		EvacuateRunning:  {"process_guid", "index", "domain", "instance_guid", "cell_id", "address"},
		EvacuateCrashed:  {"process_guid", "index", "domain", "instance_guid", "cell_id", "error_message"},
		EvacuateStopped:  {"process_guid", "index", "domain", "instance_guid", "cell_id"},
		RemoveEvacuating: {"process_guid", "index", "domain", "instance_guid", "cell_id"},
		Lose:             {"process_guid", "index", "instance_guid", "cell_id"},
		Return:           {"process_guid", "index", "instance_guid", "cell_id"},
		Discard:          {"process_guid", "index", "instance_guid", "cell_id"},
	}
	if len(needed) != len(EventNames()) {
		t.Errorf("%d of %d events are covered", len(needed), len(EventNames()))
	}
	take := map[string]func(*Event){
		"process_guid":  func(e *Event) { e.Key.Process = "" },
		"index":         func(e *Event) { e.Key.Index = -1 },
		"domain":        func(e *Event) { e.Key.Domain = "" },
		"instance_guid": func(e *Event) { e.By.Instance = "" },
		"cell_id":       func(e *Event) { e.By.Cell = "" },
		"address":       func(e *Event) { e.NetInfo.Address = "" },
		"error_message": func(e *Event) { e.Reason = "" },
	}
	for on, fields := range needed {
		for field, away := range take {
			t.Run(fmt.Sprintf("%s without %s", on, field), func(t *testing.T) {
				t.Parallel()
				ev := reportOf(on, alice)
				if got := paths(t, ev.Validate()); got != nil {
					t.Fatalf("complete: %v", got)
				}
				away(&ev)
				var want []string
				for _, f := range fields {
					if f == field {
						want = []string{field}
					}
				}
				if diff := cmp.Diff(want, paths(t, ev.Validate())); diff != "" {
					t.Errorf("fields (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestEventAtItsBounds checks the column widths of §2.6: a name of 255 characters fits, whatever they are.
func TestEventAtItsBounds(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("ä", MaxNameLength)
	ev := reportOf(Start, InstanceKey{Instance: InstanceGUID(longest), Cell: CellID(longest)})
	ev.Key.Domain, ev.AvailabilityZone = Domain(longest), longest
	ev.Key.Process = ProcessGUID(strings.Repeat("a", MaxNameLength))
	ev.Key.Index = math.MaxInt32
	ev.NetInfo.Preferred = 99 // nobody knows it yet
	if err := ev.Validate(); err != nil {
		t.Error(err)
	}
	// Diego does not check the index of a claim: there is no such slot to be found.
	claim := reportOf(Claim, alice)
	claim.Key.Index = -1
	if err := claim.Validate(); err != nil {
		t.Error(err)
	}
}

func TestEventCannotBeStored(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", MaxNameLength+1)
	for want, change := range map[string]func(*Event){
		"process_guid":                  func(e *Event) { e.Key.Process = ProcessGUID(long) },
		"domain":                        func(e *Event) { e.Key.Domain = Domain(long) },
		"instance_guid":                 func(e *Event) { e.By.Instance = InstanceGUID(long) },
		"cell_id":                       func(e *Event) { e.By.Cell = "a\x00" },
		"address":                       func(e *Event) { e.NetInfo.Address = "a\x00" },
		"instance_address":              func(e *Event) { e.NetInfo.InstanceAddress = "a\x00" },
		"instance_ipv6_address":         func(e *Event) { e.NetInfo.InstanceIPv6Address = "a\x00" },
		"availability_zone":             func(e *Event) { e.AvailabilityZone = long },
		"actual_lrp_internal_routes[0]": func(e *Event) { e.InternalRoutes = []string{"a\x00"} },
		"metric_tags":                   func(e *Event) { e.MetricTags = map[string]string{"a": "\xff"} },
		"event":                         func(e *Event) { e.Name = "explode" },
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			ev := reportOf(Start, alice)
			change(&ev)
			if diff := cmp.Diff([]string{want}, paths(t, ev.Validate())); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
			g := Group{Wanted: true}
			if after, _, err := applied(g, ev, testNow); err == nil || after.Ordinary != nil {
				t.Errorf("applied: %+v", after.Ordinary)
			}
		})
	}
}

// TestErrorTexts shows what people read: field, value, bound, remedy, and where.
func TestErrorTexts(t *testing.T) {
	t.Parallel()
	d := valid()
	d.MemoryMB = -1
	d.Annotation = strings.Repeat("a", 10_241)
	d.RunInfo.Ports = []uint32{9090}
	d.RunInfo.Action = &Action{Serial: &SerialAction{Actions: []*Action{{Run: &RunAction{Path: "p"}}}}}
	want := `Invalid field: memory_mb: must be at least 0, got "-1", ` +
		`Invalid field: annotation: must be at most 10240 bytes, drop 1, got "10241 bytes", ` +
		`Invalid field: routes: cf-router route 0 goes to port 8080, which is not in ports [9090]: add the port to ports or change the route, got "a.example.com", ` +
		`Invalid field: user: must not be empty (in action.serial_action.actions[0].run_action)`
	if diff := cmp.Diff(want, d.Validate().Error()); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
	many := valid()
	many.RunInfo.Env = make([]EnvVar, 2*MaxFieldErrors)
	if n := len(paths(t, many.Validate())); n != MaxFieldErrors {
		t.Errorf("the error names %d fields, want %d", n, MaxFieldErrors)
	}
	secret := valid()
	secret.RunInfo.ImagePassword, secret.RunInfo.ImageUsername = "hunter2", ""
	if text := secret.Validate().Error(); strings.Contains(text, "hunter2") {
		t.Errorf("the error repeats a secret: %s", text)
	}
	long := valid()
	long.RootFS = strings.Repeat("x", 1024)
	if text := long.Validate().Error(); len(text) > 300 {
		t.Errorf("the error repeats a long value: %d bytes", len(text))
	}
}
