package bbs

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"muster/bbs/bbsclient"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
	"muster/internal/identity"
	"muster/internal/pgtest"
	bbsv1 "muster/proto/bbs/v1"
)

// guidsOf makes n different GUIDs.
func guidsOf(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("p%d", i)
	}
	return all
}

// What a request may hold is tried below, at and above each bound, over the wire. Above it the error names
// the field.
func TestLimitsOfRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	address, _ := w.replica(w.config())
	client, rep := w.raw(address, identity.ID{Role: identity.Client}), w.raw(address, identity.ID{Role: identity.Rep, Cell: "c1"})
	ctx := t.Context()
	good := wire.EncodeDesired(app("p", 0))
	desire := func(id string) error {
		_, err := client.DesireLRP(ctx, &bbsv1.DesireLRPRequest{DesiredLrp: good, RequestId: id, ValidateOnly: true})
		return err
	}
	batch := func(n int) error {
		r := &bbsv1.BatchDesireLRPsRequest{ValidateOnly: true}
		for range n {
			r.DesiredLrps = append(r.DesiredLrps, &bbsv1.DesiredLRP{})
		}
		res, err := client.BatchDesireLRPs(ctx, r)
		if err == nil && len(res.GetResults()) != n {
			return fmt.Errorf("%d answers for %d records", len(res.GetResults()), n)
		}
		return err
	}
	beat := func(ttl int64) error {
		_, err := rep.Heartbeat(ctx, &bbsv1.HeartbeatRequest{Presence: &bbsv1.CellPresence{CellId: "c1"}, TtlMs: ttl})
		return err
	}
	domain := func(name string, ttl uint32) error {
		_, err := client.UpsertDomain(ctx, &bbsv1.UpsertDomainRequest{Domain: name, Ttl: ttl})
		return err
	}
	prefixes := func(n int) error {
		return second(client.DesiredLRPRoutingInfos(ctx, &bbsv1.DesiredLRPsRequest{AppGuids: guidsOf(n)}))
	}
	processes := func(n int) error {
		return second(client.DesiredLRPSchedulingInfos(ctx, &bbsv1.DesiredLRPsRequest{ProcessGuids: guidsOf(n)}))
	}
	actuals := func(n int) error {
		return second(client.ActualLRPsByProcessGuids(ctx, &bbsv1.ActualLRPsByProcessGuidsRequest{ProcessGuids: guidsOf(n)}))
	}
	for _, tc := range []struct {
		field string
		good  []error
		bad   []error
	}{
		{"request_id", []error{desire(""), desire("x"), desire(strings.Repeat("x", 254)), desire(strings.Repeat("é", 127) + "x")},
			[]error{desire(strings.Repeat("x", 256)), desire("a\x00b")}},
		{"desired_lrps", []error{batch(1), batch(999), batch(1000)}, []error{batch(0), batch(1001)}},
		{"app_guids", []error{prefixes(0), prefixes(999), prefixes(1000)}, []error{prefixes(1001)}},
		{"process_guids", []error{processes(0), processes(9_999), processes(10_000)}, []error{processes(10_001)}},
		{"process_guids", []error{actuals(1), actuals(9_999), actuals(10_000)}, []error{actuals(0), actuals(10_001)}},
		{"ttl_ms", []error{beat(1_000), beat(1_001), beat(59_999), beat(60_000)},
			[]error{beat(math.MinInt64), beat(-1), beat(0), beat(999), beat(60_001), beat(math.MaxInt64)}},
		{"domain", []error{domain("a", 0), domain("b", 1), domain("c", math.MaxUint32),
			domain(strings.Repeat("x", 254), 1), domain(strings.Repeat("é", 255), 1)},
			[]error{domain("", 1), domain(strings.Repeat("x", 256), 1), domain("a\x00b", 1)}},
	} {
		for i, err := range tc.good {
			if err != nil {
				t.Errorf("%s, case %d: %v, want it to be accepted", tc.field, i, err)
			}
		}
		for i, err := range tc.bad {
			if got := fieldViolations(err); status.Code(err) != codes.InvalidArgument || !slices.Equal(got, []string{tc.field}) {
				t.Errorf("%s, bad case %d: %v with violations of %v", tc.field, i, err, got)
			}
		}
	}
}

// Each list takes the same sizes of pages: negative ones are refused, 0 is all, and what is larger than the
// largest counts as that.
func TestSizesOfPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	address, _ := w.replica(w.config())
	raw := w.raw(address, identity.ID{Role: identity.Client})
	for _, p := range []string{"p1", "p2"} {
		must(t, w.client(address, identity.Client).Desire(t.Context(), app(p, 1)))
	}
	ctx := t.Context()
	type answer interface{ GetNextPageToken() string }
	lists := map[string]func(size int32) (answer, error){
		"actual": func(n int32) (answer, error) { return raw.ActualLRPs(ctx, &bbsv1.ActualLRPsRequest{PageSize: n}) },
		"actual of": func(n int32) (answer, error) {
			return raw.ActualLRPsByProcessGuids(ctx, &bbsv1.ActualLRPsByProcessGuidsRequest{ProcessGuids: []string{"p1", "p2"}, PageSize: n})
		},
		"desired": func(n int32) (answer, error) { return raw.DesiredLRPs(ctx, &bbsv1.DesiredLRPsRequest{PageSize: n}) },
		"scheduling": func(n int32) (answer, error) {
			return raw.DesiredLRPSchedulingInfos(ctx, &bbsv1.DesiredLRPsRequest{PageSize: n})
		},
		"routing": func(n int32) (answer, error) {
			return raw.DesiredLRPRoutingInfos(ctx, &bbsv1.DesiredLRPsRequest{PageSize: n})
		},
		"tasks":   func(n int32) (answer, error) { return raw.Tasks(ctx, &bbsv1.TasksRequest{PageSize: n}) },
		"domains": func(n int32) (answer, error) { return raw.Domains(ctx, &bbsv1.DomainsRequest{PageSize: n}) },
		"cells":   func(n int32) (answer, error) { return raw.Cells(ctx, &bbsv1.CellsRequest{PageSize: n}) },
	}
	for name, list := range lists {
		for _, n := range []int32{math.MinInt32, -1} {
			if _, err := list(n); status.Code(err) != codes.InvalidArgument || !slices.Equal(fieldViolations(err), []string{"page_size"}) {
				t.Errorf("%s in pages of %d: %v, want an error that names page_size", name, n, err)
			}
		}
		for _, n := range []int32{0, 3, 999, 1_000, 1_001, 9_999, 10_000, 10_001, math.MaxInt32} {
			if a, err := list(n); err != nil || a.GetNextPageToken() != "" {
				t.Errorf("%s in pages of %d: %v, more to follow: %t", name, n, err, a.GetNextPageToken() != "")
			}
		}
	}
	for _, name := range []string{"actual", "actual of", "desired", "scheduling", "routing"} {
		if a, err := lists[name](1); err != nil || a.GetNextPageToken() == "" {
			t.Errorf("%s in pages of 1: %v, want one of two", name, err)
		}
	}
}

// An id of a request may hold what HTTP/2 carries: the call is answered, and the id never breaks the answer.
func TestOddTraceIDs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	address, _ := w.replica(w.config())
	raw := w.raw(address, identity.ID{Role: identity.Client})
	for i, id := range []string{"", " ", "a b", "~!\"'\\;%$", strings.Repeat("y", 4096), "a,b"} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), bbsclient.TraceIDKey, id)
		if _, err := raw.DesireLRP(ctx, &bbsv1.DesireLRPRequest{DesiredLrp: wire.EncodeDesired(app(fmt.Sprint("p", i), 0))}); err != nil {
			t.Errorf("request %q: %v", id, err)
		}
		if _, err := raw.TaskByGuid(ctx, &bbsv1.TaskByGuidRequest{TaskGuid: "absent"}); status.Code(err) != codes.NotFound {
			t.Errorf("request %q: %v, want %v", id, err, codes.NotFound)
		}
	}
}

// A number that nobody has defined yet comes back from the database, from another replica, as it was sent:
// an old program does not corrupt what a new one wrote. Where a cell would have to understand it, it is
// refused by name instead.
func TestUnknownNumbersAreKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	address, _ := w.replica(w.config())
	other, _ := w.replica(w.config())
	raw, reader := w.raw(address, identity.ID{Role: identity.Client}), w.raw(other, identity.ID{Role: identity.Client})
	rep := w.raw(address, identity.ID{Role: identity.Rep, Cell: "c1"})
	ctx := t.Context()
	for i, unknown := range []int32{77, math.MaxInt32, math.MinInt32} {
		p := fmt.Sprint("p", i)
		d := wire.EncodeDesired(app(p, 1))
		d.UpdateStrategy = bbsv1.DesiredLRP_UpdateStrategy(unknown)
		must(t, second(raw.DesireLRP(ctx, &bbsv1.DesireLRPRequest{DesiredLrp: d})))
		got, err := reader.DesiredLRPByProcessGuid(ctx, &bbsv1.DesiredLRPByProcessGuidRequest{ProcessGuid: p})
		must(t, err)
		if strategy := got.GetDesiredLrp().GetUpdateStrategy(); int32(strategy) != unknown {
			t.Errorf("a process came back with strategy %d, want %d", strategy, unknown)
		}

		running := wire.EncodeStart(start(p, 0, lrp.InstanceKey{Instance: "i", Cell: "c1"}))
		running.ActualLrpNetInfo.PreferredAddress = bbsv1.ActualLRPNetInfo_PreferredAddress(unknown)
		must(t, second(rep.StartActualLRP(ctx, running)))
		list, err := reader.ActualLRPs(ctx, &bbsv1.ActualLRPsRequest{ProcessGuid: p})
		must(t, err)
		if address := list.GetActualLrps()[0].GetActualLrpNetInfo().GetPreferredAddress(); int32(address) != unknown {
			t.Errorf("an instance came back with preferred address %d, want %d", address, unknown)
		}

		layer := &bbsv1.ImageLayer{
			Url: "u", DestinationPath: "/d", LayerType: bbsv1.ImageLayer_SHARED, MediaType: bbsv1.ImageLayer_TGZ,
			DigestAlgorithm: bbsv1.ImageLayer_SHA256, DigestValue: "v",
		}
		for name, spoil := range map[string]func(*bbsv1.ImageLayer, *bbsv1.MetricTagValue){
			"layer_type": func(l *bbsv1.ImageLayer, _ *bbsv1.MetricTagValue) { l.LayerType = bbsv1.ImageLayer_Type(unknown) },
			"media_type": func(l *bbsv1.ImageLayer, _ *bbsv1.MetricTagValue) { l.MediaType = bbsv1.ImageLayer_MediaType(unknown) },
			"digest_algorithm": func(l *bbsv1.ImageLayer, _ *bbsv1.MetricTagValue) {
				l.DigestAlgorithm = bbsv1.ImageLayer_DigestAlgorithm(unknown)
			},
			"dynamic": func(_ *bbsv1.ImageLayer, m *bbsv1.MetricTagValue) {
				m.Dynamic = bbsv1.MetricTagValue_DynamicValue(unknown)
			},
		} {
			l, m := proto.Clone(layer).(*bbsv1.ImageLayer), &bbsv1.MetricTagValue{Dynamic: bbsv1.MetricTagValue_INDEX}
			spoil(l, m)
			bad := wire.EncodeDesired(app("bad", 1))
			bad.ImageLayers, bad.MetricTags["x"] = []*bbsv1.ImageLayer{l}, m
			task := wire.EncodeTask(echoTask("bad")).GetTaskDefinition()
			task.ImageLayers, task.MetricTags = bad.ImageLayers, bad.MetricTags
			_, err := raw.DesireLRP(ctx, &bbsv1.DesireLRPRequest{DesiredLrp: bad})
			_, errOfTask := raw.DesireTask(ctx, &bbsv1.DesireTaskRequest{TaskGuid: p, Domain: "d", TaskDefinition: task})
			if name == "dynamic" { // tags of tasks are not checked
				must(t, errOfTask)
				got, err := reader.TaskByGuid(ctx, &bbsv1.TaskByGuidRequest{TaskGuid: p})
				must(t, err)
				if dynamic := got.GetTask().GetTaskDefinition().GetMetricTags()["x"].GetDynamic(); int32(dynamic) != unknown {
					t.Errorf("a tag of a task came back with %d, want %d", dynamic, unknown)
				}
			} else if status.Code(errOfTask) != codes.InvalidArgument {
				t.Errorf("%s %d of a task: %v, want %v", name, unknown, errOfTask, codes.InvalidArgument)
			}
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), fmt.Sprint(unknown)) {
				t.Errorf("%s %d: %v, want an error that names it", name, unknown, err)
			}
		}
	}
}
