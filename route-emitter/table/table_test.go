package table

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/bbs/lrp"
	"muster/cells/ports"
)

var defaults = Options{UnregisterRepeats: 3, GuardShare: 0.5, GuardMinimum: 20}

func routes(elements ...string) map[string][]byte {
	return map[string][]byte{
		"cf-router": []byte("[" + strings.Join(elements, ",") + "]"),
		"diego-ssh": []byte(`{"container_port":2222,"private_key":"top-secret"}`),
	}
}

func route(hosts string, extra string) string {
	var list []string
	for _, h := range strings.Fields(hosts) {
		list = append(list, fmt.Sprintf("%q", h))
	}
	return fmt.Sprintf(`{"hostnames":[%s],"port":8080,"route_service_url":null,"isolation_segment":null%s}`, strings.Join(list, ","), extra)
}

func desire(index uint32, instances int32, elements ...string) lrp.SchedulingInfo {
	return lrp.SchedulingInfo{
		Process: "p", Domain: "cf-apps", LogGUID: "log", Instances: instances, Routes: routes(elements...),
		Tag: lrp.ModificationTag{Epoch: "d", Index: index},
	}
}

// running returns the record of an instance whose host port is 60000 and its index.
func running(index int32, tag uint32) lrp.Actual {
	return lrp.Actual{
		Key:         lrp.Key{Slot: lrp.Slot{Process: "p", Index: index}, Domain: "cf-apps"},
		InstanceKey: lrp.InstanceKey{Instance: lrp.InstanceGUID(fmt.Sprintf("i%d", index)), Cell: "cell"},
		State:       lrp.Running, Routable: true, AvailabilityZone: "z1", Since: time.Unix(100, int64(index)),
		Tag: lrp.ModificationTag{Epoch: fmt.Sprintf("a%d", index), Index: tag},
		NetInfo: lrp.NetInfo{Address: "10.0.0.1", InstanceAddress: "172.16.0.1", Ports: []lrp.PortMapping{
			{ContainerPort: 8080, HostPort: 60000 + uint32(index)}, {ContainerPort: 2222, HostPort: 61000 + uint32(index)}}},
	}
}

func with(a lrp.Actual, change func(*lrp.Actual)) lrp.Actual {
	change(&a)
	a.Tag.Index++
	return a
}

func after(a lrp.Actual) lrp.Change             { return lrp.Change{After: &a} }
func changed(before, now lrp.Actual) lrp.Change { return lrp.Change{Before: &before, After: &now} }

// said prints messages as +host:port uri,uri or -host:port uri.
func said(ms []Message) string {
	var lines []string
	for _, m := range ms {
		sign := "+"
		if m.Kind == Unregister {
			sign = "-"
		}
		lines = append(lines, fmt.Sprintf("%s%s:%d %s", sign, m.Body.Host, m.Body.Port, strings.Join(m.Body.URIs, ",")))
	}
	return strings.Join(lines, "; ")
}

func expect(t *testing.T, out Output, want string) {
	t.Helper()
	if got := said(out.Messages); got != want {
		t.Errorf("said %q, want %q", got, want)
	}
}

// The numbers are those of the behaviours in the routing reference, B.12.

func TestB12_1_OnlyRunning(t *testing.T) {
	t.Parallel()
	tb := New(defaults)
	expect(t, tb.SetDesired(desire(1, 2, route("a.example", ""))), "")
	claimed := with(running(0, 1), func(a *lrp.Actual) { a.State = lrp.Claimed })
	expect(t, tb.Change(after(claimed)), "")
	up := with(claimed, func(a *lrp.Actual) { a.State = lrp.Running })
	expect(t, tb.Change(changed(claimed, up)), "+10.0.0.1:60000 a.example")
	if got := said(tb.Registrations()); got != "+10.0.0.1:60000 a.example" {
		t.Errorf("broadcast %q", got)
	}
	expect(t, tb.Change(lrp.Change{Before: &up}), "-10.0.0.1:60000 a.example")
}

func TestB12_2_ActualFirst(t *testing.T) {
	t.Parallel()
	tb := New(defaults)
	expect(t, tb.Change(after(running(0, 1))), "")
	out := tb.SetDesired(desire(1, 1, route("a.example b.example/path", "")))
	expect(t, out, "+10.0.0.1:60000 a.example,b.example/path")
	if ns := out.Messages[0].Body.EndpointUpdatedAtNS; ns != 0 {
		t.Errorf("a new route of a known endpoint carries the time %d", ns)
	}
}

func TestB12_5_RepeatsUnregister(t *testing.T) {
	t.Parallel()
	tb := New(defaults)
	tb.SetDesired(desire(1, 2, route("a.example b.example", "")))
	tb.Change(after(running(0, 1)))
	out := tb.SetDesired(desire(2, 2, route("a.example", "")))
	expect(t, out, "-10.0.0.1:60000 b.example")
	for range 3 {
		if got := said(tb.Repeat()); got != "-10.0.0.1:60000 b.example" {
			t.Errorf("repeat %q", got)
		}
	}
	if got := said(tb.Repeat()); got != "" {
		t.Errorf("repeated too often: %q", got)
	}
	tb.SetDesired(desire(3, 2))
	tb.SetDesired(desire(4, 2, route("a.example", ""))) // registered again
	if got := said(tb.Repeat()); got != "" {
		t.Errorf("repeats against a live route: %q", got)
	}
	a := running(0, 1)
	tb.Change(lrp.Change{Before: &a})
	if got := said(tb.Repeat()); got != "-10.0.0.1:60000 a.example" {
		t.Errorf("a removed instance is not repeated: %q", got)
	}
	tb.Change(after(with(running(1, 1), func(a *lrp.Actual) { a.NetInfo.Ports[0].HostPort = 60000 })))
	if got := said(tb.Repeat()); got != "" {
		t.Errorf("B12_6: another instance at the address is unregistered: %q", got)
	}
}

func TestB12_5_RemovedDesiredIsRepeated(t *testing.T) {
	t.Parallel()
	tb := New(defaults)
	tb.SetDesired(desire(1, 1, route("a.example", "")))
	tb.Change(after(running(0, 1)))
	expect(t, tb.RemoveDesired(desire(1, 1)), "-10.0.0.1:60000 a.example")
	if got := said(tb.Repeat()); got != "-10.0.0.1:60000 a.example" {
		t.Errorf("repeat %q", got)
	}
}

func TestB12_9_Addresses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		direct    bool
		preferred lrp.PreferredAddress
		host      string
		port, tls uint16
	}{
		"cell":               {false, lrp.PreferUnknown, "10.0.0.1", 60000, 61443},
		"direct":             {true, lrp.PreferUnknown, "172.16.0.1", 8080, 8443},
		"host beats direct":  {true, lrp.PreferHost, "10.0.0.1", 60000, 61443},
		"instance preferred": {false, lrp.PreferInstance, "172.16.0.1", 8080, 8443},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := defaults
			o.DirectInstanceRoutes = tt.direct
			tb := New(o)
			tb.SetDesired(desire(1, 1, route("a.example", `,"options":{"loadbalancing":"hash"}`)))
			out := tb.Change(after(with(running(0, 1), func(a *lrp.Actual) {
				a.NetInfo.Preferred = tt.preferred
				a.NetInfo.Ports[0].HostTLSProxyPort, a.NetInfo.Ports[0].ContainerTLSProxyPort = 61443, 8443
			})))
			if len(out.Messages) != 1 {
				t.Fatalf("messages %+v", out.Messages)
			}
			b := out.Messages[0].Body
			if b.Host != tt.host || b.Port != tt.port || b.TLSPort != tt.tls || string(b.Options) != `{"loadbalancing":"hash"}` {
				t.Errorf("%+v", b)
			}
		})
	}
}

// An app's port 8080 is reached at two ports of its proxy: routers use the first, and it alone has a host port. With
// only the proxy reachable from outside there is no plain port.
func TestPortsOfTheProxy(t *testing.T) {
	t.Parallel()
	rules := ports.Rules{TLS: true, OnlyTLS: true}
	layout, err := ports.Layout([]uint32{2222, 8080}, rules)
	if err != nil {
		t.Fatal(err)
	}
	all, err := ports.WithHostPorts(layout, rules, []uint16{61010, 61011})
	if err != nil {
		t.Fatal(err)
	}
	for preferred, want := range map[lrp.PreferredAddress]Registration{
		lrp.PreferHost:     {Host: "10.0.0.1", TLSPort: 61011},
		lrp.PreferInstance: {Host: "172.16.0.1", Port: 8080, TLSPort: 61002},
	} {
		tb := New(defaults)
		tb.SetDesired(desire(1, 1, route("a.example", "")))
		out := tb.Change(after(with(running(0, 1), func(a *lrp.Actual) { a.NetInfo.Preferred, a.NetInfo.Ports = preferred, all })))
		if len(out.Messages) != 1 {
			t.Fatalf("messages %+v", out.Messages)
		}
		if b := out.Messages[0].Body; b.Host != want.Host || b.Port != want.Port || b.TLSPort != want.TLSPort || b.ServerCertDomainSAN != "i0" {
			t.Errorf("preferred %v: %+v", preferred, b)
		}
	}
}

func TestB12_10_LostDesiredKeepsRouting(t *testing.T) {
	t.Parallel()
	tb := New(defaults)
	d, a := desire(1, 1, route("a.example", "")), running(0, 1)
	expect(t, tb.Swap(Snapshot{Desired: []lrp.SchedulingInfo{d}, Actuals: []lrp.Actual{a}, Fresh: []lrp.Domain{"cf-apps"}}), "+10.0.0.1:60000 a.example")
	for range 2 {
		expect(t, tb.Swap(Snapshot{Actuals: []lrp.Actual{a}}), "")
		if got := said(tb.Registrations()); got != "+10.0.0.1:60000 a.example" {
			t.Errorf("broadcast %q", got)
		}
	}
	expect(t, tb.Swap(Snapshot{Actuals: []lrp.Actual{a}, Fresh: []lrp.Domain{"cf-apps"}}), "-10.0.0.1:60000 a.example")
}

func TestB12_13_Presence(t *testing.T) {
	t.Parallel()
	tb := New(defaults)
	tb.SetDesired(desire(1, 1, route("a.example", "")))
	a := running(0, 1)
	tb.Change(after(a))
	evacuating := with(a, func(a *lrp.Actual) { a.Presence = lrp.Evacuating })
	expect(t, tb.Change(changed(a, evacuating)), "")
	unclaimed := with(running(0, 2), func(a *lrp.Actual) { a.State, a.InstanceKey = lrp.Unclaimed, lrp.InstanceKey{} })
	expect(t, tb.Change(after(unclaimed)), "") // the replacement to come
	suspect := with(evacuating, func(a *lrp.Actual) { a.Presence = lrp.Suspect })
	expect(t, tb.Change(changed(evacuating, suspect)), "")
	expect(t, tb.Change(lrp.Change{Before: &suspect}), "-10.0.0.1:60000 a.example")

	// Told as two changes, in either order, of one instance that moves.
	tb.Change(after(with(a, func(a *lrp.Actual) { a.Tag.Epoch = "new" })))
	moved := with(evacuating, func(a *lrp.Actual) { a.Tag.Epoch = "new2" })
	expect(t, tb.Change(after(moved)), "")
	gone := with(a, func(a *lrp.Actual) { a.Tag.Epoch, a.Tag.Index = "new", 9 })
	expect(t, tb.Change(lrp.Change{Before: &gone}), "")
}

func TestB12_14_RoutableAndRetiring(t *testing.T) {
	t.Parallel()
	tb := New(defaults)
	tb.SetDesired(desire(1, 1, route("a.example", "")))
	a := running(0, 1)
	tb.Change(after(a))
	not := with(a, func(a *lrp.Actual) { a.Routable = false })
	expect(t, tb.Change(changed(a, not)), "-10.0.0.1:60000 a.example")
	expect(t, tb.Change(changed(not, with(not, func(*lrp.Actual) {}))), "")
	yes := with(not, func(a *lrp.Actual) { a.Routable = true; a.Tag.Index++ })
	expect(t, tb.Change(changed(not, yes)), "+10.0.0.1:60000 a.example")
	retiring := with(yes, func(a *lrp.Actual) { a.Retiring = true })
	expect(t, tb.Change(changed(yes, retiring)), "-10.0.0.1:60000 a.example")
}

func TestB12_15_SecretsStayOut(t *testing.T) {
	t.Parallel()
	tb := New(defaults)
	d := desire(1, 1)
	d.Routes["cf-router"] = []byte(`{"no":"list"}`)
	out := tb.SetDesired(d)
	if len(out.Invalid) != 1 || strings.Contains(fmt.Sprint(out.Invalid), "top-secret") {
		t.Errorf("invalid routes: %v", out.Invalid)
	}
	if again := tb.Swap(Snapshot{Desired: []lrp.SchedulingInfo{d}}); len(again.Invalid) != 0 {
		t.Errorf("complained twice about one version: %v", again.Invalid)
	}
	d.Tag.Index++
	d.Routes["cf-router"] = []byte(route("a.example", ""))
	d.Routes["cf-router"] = []byte("[" + string(d.Routes["cf-router"]) + "]")
	tb.SetDesired(d)
	text, err := json.Marshal(tb.Change(after(running(0, 1))).Messages)
	if err != nil || strings.Contains(string(text), "secret") || !strings.Contains(string(text), "a.example") {
		t.Errorf("%s %v", text, err)
	}
}

func TestB12_16_OldTags(t *testing.T) {
	t.Parallel()
	tb := New(defaults)
	tb.SetDesired(desire(5, 2, route("a.example", "")))
	expect(t, tb.SetDesired(desire(5, 2, route("b.example", ""))), "")
	tb.Change(after(running(0, 5)))
	old := running(0, 4)
	old.State = lrp.Crashed
	expect(t, tb.Change(after(old)), "")
	expect(t, tb.Change(lrp.Change{Before: &old}), "")
	expect(t, tb.RemoveDesired(desire(4, 2)), "")
	now := running(0, 5)
	expect(t, tb.Change(lrp.Change{Before: &now}), "-10.0.0.1:60000 a.example")
	expect(t, tb.Change(after(running(0, 3))), "") // late news of an instance that is gone
	tb.RemoveDesired(desire(5, 2))
	expect(t, tb.SetDesired(desire(4, 2, route("a.example", ""))), "")
}

func TestB12_17_ListIsBelievedInWhatItSays(t *testing.T) {
	t.Parallel()
	tb := New(defaults)
	tb.Swap(Snapshot{Desired: []lrp.SchedulingInfo{desire(1, 2, route("a.example", ""))}, Actuals: []lrp.Actual{running(0, 1), running(1, 1)}})
	out := tb.Swap(Snapshot{Actuals: []lrp.Actual{running(1, 1)}}) // not fresh: routes stay, endpoints go
	expect(t, out, "-10.0.0.1:60000 a.example")
	if got := said(tb.Repeat()); got != "-10.0.0.1:60000 a.example" {
		t.Errorf("repeat %q", got)
	}
	out = tb.Swap(Snapshot{Desired: []lrp.SchedulingInfo{desire(2, 2, route("b.example", ""))}, Actuals: []lrp.Actual{running(1, 1)}})
	expect(t, out, "-10.0.0.1:60001 a.example; +10.0.0.1:60001 b.example") // a newer version is no absence
	tb.Swap(Snapshot{Desired: []lrp.SchedulingInfo{desire(2, 2, route("b.example", ""))}, Actuals: []lrp.Actual{running(0, 1), running(1, 1)}})
	if got := said(tb.Repeat()); got != "-10.0.0.1:60000 a.example; -10.0.0.1:60001 a.example" {
		t.Errorf("repeat %q", got)
	}
}

func TestMassRemovalWaitsForConfirmation(t *testing.T) {
	t.Parallel()
	tb := New(defaults)
	full := Snapshot{Desired: []lrp.SchedulingInfo{desire(1, 100, route("a.example", ""))}, Fresh: []lrp.Domain{"cf-apps"}}
	for i := range int32(30) {
		full.Actuals = append(full.Actuals, running(i, 1))
	}
	tb.Swap(full)
	empty := Snapshot{Fresh: []lrp.Domain{"cf-apps"}}
	for range 2 {
		out := tb.Swap(empty)
		expect(t, out, "")
		if out.Withheld != 30 || tb.Count() != 30 {
			t.Errorf("withheld %d, %d left", out.Withheld, tb.Count())
		}
	}
	if out := tb.Swap(full); len(out.Messages) != 0 || out.Withheld != 0 {
		t.Errorf("recovery says %q", said(out.Messages))
	}
	tb.Swap(empty)
	tb.Swap(empty)
	if out := tb.Swap(empty); len(out.Messages) != 30 || tb.Count() != 0 {
		t.Errorf("confirmed removal: %d messages, %d left", len(out.Messages), tb.Count())
	}
	// What the list says is believed at once, however much it is.
	tb.Swap(full)
	for i := range full.Actuals {
		full.Actuals[i].State = lrp.Crashed
		full.Actuals[i].Tag.Index++
	}
	if out := tb.Swap(full); len(out.Messages) != 30 {
		t.Errorf("%d messages", len(out.Messages))
	}
}

func TestB12_18_ScaleDown(t *testing.T) {
	t.Parallel()
	tb := New(defaults)
	tb.SetDesired(desire(1, 3, route("a.example", "")))
	for i := range int32(3) {
		tb.Change(after(running(i, 1)))
	}
	expect(t, tb.SetDesired(desire(2, 1, route("a.example", ""))), "-10.0.0.1:60001 a.example; -10.0.0.1:60002 a.example")
	expect(t, tb.Change(after(running(2, 2))), "")
	expect(t, tb.SetDesired(desire(3, 0, route("a.example", ""))), "-10.0.0.1:60000 a.example")
}

func TestB12_19_Collisions(t *testing.T) {
	t.Parallel()
	same := func(index int32, tag uint32) lrp.Actual {
		return with(running(index, tag), func(a *lrp.Actual) { a.NetInfo.Ports = []lrp.PortMapping{{ContainerPort: 8080, HostPort: 60000}} })
	}
	tb := New(defaults)
	tb.SetDesired(desire(1, 2, route("a.example", "")))
	tb.Change(after(same(0, 1)))
	out := tb.Change(after(same(1, 1))) // younger: it got the port
	expect(t, out, "+10.0.0.1:60000 a.example")
	if len(out.Collisions) != 1 || out.Collisions[0].Was != "i0" || out.Collisions[0].Is != "i1" || out.Messages[0].Body.PrivateInstanceID != "i1" {
		t.Errorf("collisions %+v, registered %+v", out.Collisions, out.Messages)
	}
	loser := same(0, 1)
	expect(t, tb.Change(lrp.Change{Before: &loser}), "")

	// Another process takes the address of one that is not unregistered yet.
	other := desire(1, 1, route("q.example", ""))
	other.Process, other.LogGUID = "q", "q"
	tb.SetDesired(other)
	q := with(same(0, 1), func(a *lrp.Actual) { a.Process, a.Instance, a.Tag.Epoch = "q", "iq", "q" })
	out = tb.Change(after(q))
	expect(t, out, "+10.0.0.1:60000 q.example")
	if len(out.Collisions) != 1 {
		t.Errorf("collisions %+v", out.Collisions)
	}
	winner := same(1, 1)
	expect(t, tb.Change(lrp.Change{Before: &winner}), "-10.0.0.1:60000 a.example")
}

func TestB12_21_Tags(t *testing.T) {
	t.Parallel()
	tb := New(defaults)
	d := desire(1, 3, route("a.example", ""))
	d.MetricTags = map[string]lrp.MetricTag{
		"app_id": {Static: "x"}, "nr": {Dynamic: lrp.TagIndex}, "guid": {Dynamic: lrp.TagInstanceGUID}, "component": {Static: "forged"},
	}
	tb.SetDesired(d)
	got := tb.Change(after(running(2, 1))).Messages[0].Body.Tags
	want := map[string]string{"app_id": "x", "nr": "2", "guid": "i2", "component": "route-emitter"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMessageBytes(t *testing.T) { // B.9
	t.Parallel()
	tb := New(defaults)
	d := desire(1, 3, `{"hostnames":["shop.example/cart"],"port":8080,"route_service_url":"https://rs.example","isolation_segment":"blue","protocol":"http2","options":{"hash_balance":"1.3"}}`)
	tb.SetDesired(d)
	out := tb.Change(after(with(running(2, 1), func(a *lrp.Actual) { a.NetInfo.Ports[0].HostTLSProxyPort = 61443 })))
	got, err := json.Marshal(out.Messages[0].Body)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"host":"10.0.0.1","port":60002,"tls_port":61443,"uris":["shop.example/cart"],"protocol":"http2","app":"log",` +
		`"private_instance_id":"i2","private_instance_index":"2","server_cert_domain_san":"i2","isolation_segment":"blue",` +
		`"route_service_url":"https://rs.example","endpoint_updated_at_ns":100000000002,"tags":{"component":"route-emitter"},` +
		`"availability_zone":"z1","options":{"hash_balance":"1.3"}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if b := tb.Registrations()[0].Body; b.EndpointUpdatedAtNS != 0 {
		t.Error("a broadcast carries the time of the change")
	}
}

func TestChangedAttributes(t *testing.T) { // options, tags, route service: register only, without a time
	t.Parallel()
	tb := New(defaults)
	tb.SetDesired(desire(1, 1, route("a.example", "")))
	tb.Change(after(running(0, 1)))
	for i, extra := range []string{`,"options":{"loadbalancing":"least-connection"}`, `,"protocol":"http2"`} {
		out := tb.SetDesired(desire(uint32(i+2), 1, route("a.example", extra)))
		expect(t, out, "+10.0.0.1:60000 a.example")
		if out.Messages[0].Body.EndpointUpdatedAtNS != 0 {
			t.Error("carries a time")
		}
	}
	bound := strings.Replace(route("a.example", ""), `"route_service_url":null`, `"route_service_url":"https://rs.example"`, 1)
	expect(t, tb.SetDesired(desire(9, 1, bound)), "+10.0.0.1:60000 a.example")
	if got := said(tb.Repeat()); got != "" {
		t.Errorf("unregisters a live endpoint: %q", got)
	}
	d := desire(10, 1, bound)
	d.MetricTags = map[string]lrp.MetricTag{"x": {Static: "y"}}
	expect(t, tb.SetDesired(d), "+10.0.0.1:60000 a.example")
	moved := with(running(0, 1), func(a *lrp.Actual) { a.NetInfo.Ports = []lrp.PortMapping{{ContainerPort: 8080, HostPort: 60100}} })
	out := tb.Change(after(moved))
	expect(t, out, "-10.0.0.1:60000 a.example; +10.0.0.1:60100 a.example")
	if out.Messages[1].Body.EndpointUpdatedAtNS == 0 {
		t.Error("a new address carries no time")
	}
}

func TestManyURIsAreSplit(t *testing.T) {
	t.Parallel()
	tb := New(defaults)
	var hosts []string
	for i := range maxURIs + 10 {
		hosts = append(hosts, fmt.Sprintf("h%04d.example", i))
	}
	tb.SetDesired(desire(1, 1, route(strings.Join(hosts, " "), "")))
	ms := tb.Change(after(running(0, 1))).Messages
	if len(ms) != 2 || len(ms[0].Body.URIs) != maxURIs || len(ms[1].Body.URIs) != 10 {
		t.Errorf("%d messages", len(ms))
	}
	var all []string
	for _, m := range ms {
		all = append(all, m.Body.URIs...)
	}
	if diff := cmp.Diff(hosts, all); diff != "" || !slices.IsSorted(all) {
		t.Error(diff)
	}
}
