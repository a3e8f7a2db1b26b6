package rig

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/internal/identity"
)

// Domain is the domain of all work of the benches.
const Domain lrp.Domain = "cf-apps"

// Process names the n-th process of a series as Cloud Foundry does: the GUIDs of the application and of its
// version.
func Process(series string, n int) lrp.ProcessGUID {
	return lrp.ProcessGUID(fmt.Sprintf("%.8s-%04x-4000-8000-%012x-6d5f1e2a-93b4-4c7d-8e1f-%012x", pad(series), n>>16&0xffff, n, n))
}

// pad makes a series eight characters long.
func pad(series string) string { return (series + "00000000")[:8] }

// instance names the instance of a slot.
func instance(s lrp.Slot) lrp.InstanceGUID {
	return lrp.InstanceGUID(fmt.Sprintf("%s-%.4x", s.Process[len(s.Process)-30:], s.Index))
}

// App is an application as the Cloud Controller desires one: routes, metric tags, environment, a
// buildpack's setup, health check and egress rules.
func App(process lrp.ProcessGUID, instances int32) lrp.Desired {
	tags := map[string]lrp.MetricTag{"instance_id": {Dynamic: lrp.TagIndex}, "process_instance_id": {Dynamic: lrp.TagInstanceGUID}}
	for name, value := range startTags(process, "") {
		if _, dynamic := tags[name]; !dynamic {
			tags[name] = lrp.MetricTag{Static: value}
		}
	}
	app := string(process[:36])
	return lrp.Desired{
		Process: process, Domain: Domain, LogGUID: app, Instances: instances, Annotation: "1763835840.417",
		Routes: map[string][]byte{
			"cf-router":       []byte(`[{"hostnames":["` + app + `.apps.example.com"],"port":8080,"isolation_segment":"","protocol":"http1"}]`),
			"diego-ssh":       []byte(`{"container_port":2222,"host_fingerprint":"f6:38:5d:a1:20:04:4c:5c:f3:bb:c5:8c:6d:3d:a1:51"}`),
			"internal-router": []byte(`[{"hostname":"` + app + `.apps.internal"}]`),
		},
		MetricTags: tags, RootFS: "preloaded:cflinuxfs4", MemoryMB: 1024, DiskMB: 1024, MaxPids: 1024,
		PlacementTags: []string{},
		RunInfo: lrp.RunInfo{
			Ports: []uint32{8080, 2222}, CPUWeight: 100, StartTimeoutMS: 60000, LogSource: "CELL", MetricsGUID: app,
			Env: []lrp.EnvVar{{Name: "LANG", Value: "en_US.UTF-8"}, {Name: "VCAP_APPLICATION", Value: `{"application_id":"` + app + `","limits":{"mem":1024,"disk":1024,"fds":16384}}`},
				{Name: "VCAP_SERVICES", Value: "{}"}, {Name: "MEMORY_LIMIT", Value: "1024m"}},
			Setup: &lrp.Action{Download: &lrp.DownloadAction{Artifact: "app package", From: "https://blobs.example.com/droplets/" + app, To: ".", CacheKey: "droplets-" + app, User: "vcap"}},
			Action: &lrp.Action{Run: &lrp.RunAction{Path: "/tmp/lifecycle/launcher", Args: []string{"app", "bundle exec rackup config.ru -p $PORT", `{"start_command":"bundle exec rackup config.ru -p $PORT"}`},
				Env: []lrp.EnvVar{{Name: "PORT", Value: "8080"}}, User: "vcap", LogSource: "APP/PROC/WEB"}},
			Monitor: &lrp.Action{Run: &lrp.RunAction{Path: "/tmp/lifecycle/healthcheck", Args: []string{"-port=8080"}, User: "vcap", LogSource: "HEALTH"}},
			EgressRules: []lrp.EgressRule{
				{Protocol: "all", Destinations: []string{"0.0.0.0-9.255.255.255"}}, {Protocol: "all", Destinations: []string{"11.0.0.0-169.253.255.255"}},
				{Protocol: "tcp", Destinations: []string{"0.0.0.0/0"}, Ports: []uint32{53}},
			},
		},
	}
}

// startTags are the metric tags of an instance.
func startTags(process lrp.ProcessGUID, index string) map[string]string {
	app := string(process[:36])
	return map[string]string{
		"app_id": app, "app_name": "dora", "organization_id": "0c9a4a3e-3f0f-4d68-b67d-7b1d61a2e8a4", "organization_name": "production",
		"process_id": app, "process_type": "web", "source_id": app, "space_id": "58f5d0e6-27f3-4d0a-a4a7-8df4c6f0ab3f",
		"space_name": "shop", "instance_id": index, "process_instance_id": app,
	}
}

// Cell is the n-th cell.
func Cell(n int) lrp.CellID { return lrp.CellID(fmt.Sprintf("cell-%04d", n)) }

// CellIDs are the identities of the first cells.
func CellIDs(n int) []identity.ID {
	all := make([]identity.ID, n)
	for i := range all {
		all[i] = identity.ID{Role: identity.Rep, Cell: string(Cell(i))}
	}
	return all
}

// Claim is how a cell takes a slot.
func Claim(s lrp.Slot, cell lrp.CellID) lrp.Event {
	return lrp.Event{Name: lrp.Claim, Key: lrp.Key{Slot: s, Domain: Domain}, By: lrp.InstanceKey{Instance: instance(s), Cell: cell}}
}

// Start is how a cell reports that an instance runs, with everything that a real one reports.
func Start(s lrp.Slot, cell lrp.CellID) lrp.Event {
	ev := Claim(s, cell)
	ev.Name, ev.Routable, ev.AvailabilityZone = lrp.Start, true, "z1"
	host := uint32(61000 + 4*(s.Index&1023))
	ev.NetInfo = lrp.NetInfo{Address: "10.0.16.7", InstanceAddress: "10.255.112.42", Ports: []lrp.PortMapping{
		{ContainerPort: 8080, HostPort: host, ContainerTLSProxyPort: 61001, HostTLSProxyPort: host + 1},
		{ContainerPort: 2222, HostPort: host + 2, ContainerTLSProxyPort: 61002, HostTLSProxyPort: host + 3},
	}}
	ev.InternalRoutes = []string{string(s.Process[:36]) + ".apps.internal"}
	ev.MetricTags = startTags(s.Process, fmt.Sprint(s.Index))
	return ev
}

// Measured is how often something was done, and how.
type Measured struct {
	PerSecond float64
	P99       time.Duration // of one call
}

// Work calls call for each number below n, by so many callers at once, and stops at the first error.
func Work(ctx context.Context, callers, n int, call func(ctx context.Context, caller, i int) error) (Measured, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	took := make([]time.Duration, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for c := range callers {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				at := time.Now()
				if err := call(ctx, c, i); err != nil {
					cancel(err)
				}
				took[i] = time.Since(at)
			}
		})
	}
	wg.Wait()
	all := time.Since(begin)
	if ctx.Err() != nil {
		return Measured{}, context.Cause(ctx)
	}
	slices.Sort(took)
	return Measured{PerSecond: float64(n) / all.Seconds(), P99: took[min(n-1, n*99/100)]}, nil
}

// Median returns the middle of some numbers, and the mean of the two in the middle when there is no
// one.
func Median(numbers []float64) float64 {
	if len(numbers) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(numbers))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// Desire desires processes of a series, each with so many instances, from a number on.
func Desire(ctx context.Context, clients []*bbsclient.Client, callers int, processes []lrp.ProcessGUID, instances int32) (Measured, error) {
	return Work(ctx, callers, len(processes), func(ctx context.Context, c, i int) error {
		return clients[c%len(clients)].Desire(ctx, App(processes[i], instances))
	})
}
