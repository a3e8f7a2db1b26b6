package diego_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"muster/cells"
	"muster/integration/diego"
	"muster/internal/identity"
)

// paths is every route with an answer that Diego's clients may call, as the wire contract lists them. It is
// written down a second time on purpose: a route that the door forgets is missed here.
var paths = []string{
	"/v1/ping", "/v1/domains/list", "/v1/domains/upsert", "/v1/cells/list.r1",
	"/v1/actual_lrps/list", "/v1/actual_lrps/list_by_process_guids", "/v1/actual_lrps/claim", "/v1/actual_lrps/start.r1",
	"/v1/actual_lrps/start", "/v1/actual_lrps/crash", "/v1/actual_lrps/fail", "/v1/actual_lrps/remove", "/v1/actual_lrps/retire",
	"/v1/actual_lrps/remove_evacuating", "/v1/actual_lrps/evacuate_claimed", "/v1/actual_lrps/evacuate_crashed",
	"/v1/actual_lrps/evacuate_stopped", "/v1/actual_lrps/evacuate_running.r1", "/v1/actual_lrps/evacuate_running",
	"/v1/actual_lrp_groups/list", "/v1/actual_lrp_groups/list_by_process_guid", "/v1/actual_lrp_groups/get_by_process_guid_and_index",
	"/v1/desired_lrps/list.r3", "/v1/desired_lrps/list.r2", "/v1/desired_lrps/get_by_process_guid.r3",
	"/v1/desired_lrps/get_by_process_guid.r2", "/v1/desired_lrp_scheduling_infos/list",
	"/v1/desired_lrp_scheduling_infos/get_by_process_guid", "/v1/desired_lrp_routing_infos/list",
	"/v1/desired_lrp/desire.r2", "/v1/desired_lrp/update", "/v1/desired_lrp/remove",
	"/v1/tasks/list.r3", "/v1/tasks/list.r2", "/v1/tasks/get_by_task_guid.r3", "/v1/tasks/get_by_task_guid.r2",
	"/v1/tasks/desire.r2", "/v1/tasks/start", "/v1/tasks/cancel", "/v1/tasks/fail", "/v1/tasks/reject", "/v1/tasks/complete",
	"/v1/tasks/resolving", "/v1/tasks/delete",
}

// story calls routes one after the other and compares whole responses.
type story struct {
	*testing.T
	told map[string]bool
}

// call calls a route and returns the response without the server's own fields.
func (s *story) call(as *diego.Client, path string, body diego.Message) diego.Message {
	s.Helper()
	res, err := as.Call(s.Context(), path, body)
	if err != nil {
		s.Fatalf("%s: %v", path, err)
	}
	if res.Status != 200 || res.Header.Get("Content-Type") != "application/x-protobuf" || res.Header.Get("Content-Length") == "" {
		s.Errorf("%s: status %d, headers %v", path, res.Status, res.Header)
	}
	s.told[path] = true
	return res.Body.Known()
}

// want calls a route and compares its response with the bytes that it must be.
func (s *story) want(as *diego.Client, path string, body, want diego.Message) {
	s.Helper()
	if got := s.call(as, path, body); string(got) != string(want) {
		s.Errorf("%s answers\n%q, want\n%q", path, got, want)
	}
}

var done = m() // the response of a call that has nothing to say

// actual is a record as it must be answered. What the server makes up itself is taken from what it answered.
func actual(got, k, by, netInfo, state diego.Message) diego.Message {
	return m().Message(1, k).Message(2, by).Message(3, netInfo).Text(6, string(state)).Number(8, got.NumberAt(8)).
		Message(9, m().Text(1, got.TextAt(9, 1)).Number(2, got.NumberAt(9, 2)))
}

// Every route is called, and answers exactly the bytes that the wire contract says.
func TestRoutesOfProcesses(t *testing.T) {
	t.Parallel()
	i := install(t)
	s := &story{t, map[string]bool{}}
	c1 := i.cell("c1")
	must(t, i.ours(identity.ID{Role: identity.Rep, Cell: "c1"}).Heartbeat(t.Context(), cells.Presence{
		Cell: "c1", RepURL: "https://10.0.0.1:1801", Zone: "z1", Capacity: cells.Resources{MemoryMB: 1024, DiskMB: 2048, Containers: 250},
		RootFSProviders: map[string]cells.Provider{"preloaded": {Names: []string{"cflinuxfs4"}}}, PlacementTags: []string{"iso"},
	}, time.Minute))

	s.want(i.cc, "/v1/ping", nil, m().Flag(1, true))
	s.want(i.cc, "/v1/domains/upsert", m().Text(1, "cf-apps").Number(2, 120), done)
	s.want(i.operator, "/v1/domains/list", nil, m().Texts(2, "cf-apps"))
	s.want(i.auctioneer, "/v1/cells/list.r1", m().Text(1, "ignored"), m().Message(2, m().Text(1, "c1").Text(2, "10.0.0.1:1801").Text(3, "z1").
		Message(4, m().Number(1, 1024).Number(2, 2048).Number(3, 250)).Message(5, m().Text(1, "preloaded").Texts(2, "cflinuxfs4")).
		Texts(6, "iso").Text(8, "https://10.0.0.1:1801")))

	s.desired(i)
	s.instances(i, c1)
	s.evacuation(i, c1)
	s.want(i.cc, "/v1/desired_lrp/remove", guid("p"), done)
	s.want(i.cc, "/v1/desired_lrps/get_by_process_guid.r3", guid("p"), failed(diego.ResourceNotFound, "the requested resource could not be found"))
	s.tasks(i, c1)
	for _, p := range paths {
		if !s.told[p] {
			t.Errorf("%s was not called", p)
		}
	}
}

// whole is a DesiredLRP with every field that a client may set.
func whole(process string) diego.Message {
	env := m().Text(1, "LANG").Text(2, "en_US.UTF-8")
	rule := m().Text(1, "tcp").Texts(2, "10.0.0.0/8").Numbers(3, 53, 80).Flag(6, true).Texts(7, "security_group_id:g")
	check := m().Message(1, m().Number(1, 8080).Number(2, 1000).Number(3, 30000))
	http := m().Message(2, m().Number(1, 8080).Number(2, 900).Text(3, "/health").Number(4, 20000))
	return m().Text(1, process).Text(2, "cf-apps").Text(3, "preloaded:cflinuxfs4").Number(4, 1).Message(5, env).
		Message(6, run("/bin/setup")).Message(7, run("/bin/app", "a", "")).Message(9, run("/bin/monitor")).
		Number(10, 512).Number(11, 256).Number(12, 100).Flag(13, true).Numbers(14, 8080, 2222).
		Message(15, m().Message(1, m().Text(1, "cf-router").Text(2, routes))).
		Text(16, "CELL").Text(17, "log").Text(18, "source").Text(19, "1763835840.417").Message(20, rule).
		Message(21, m().Text(1, "mine").Number(2, 7)).
		Message(22, m().Text(1, "lifecycle").Text(2, "http://x/l.tgz").Text(3, "/tmp/lifecycle").Text(4, "buildpack/l").Text(5, "L").Text(6, "sha1").Text(7, "abc")).
		Text(23, "vcap").Text(24, "/etc/cf-system-certificates").
		Message(25, m().Text(1, "nfs").Text(3, "/data").Text(6, "rw").Message(7, m().Text(1, "v").Text(2, `{"a":1}`))).
		Message(26, m().Entry(1, "app_id", "a")).Number(27, 60000).Texts(28, "iso").Number(29, 1024).
		Message(30, m().Texts(1, "organization:o")).Text(31, "user").Text(32, "secret").
		Message(33, m().Message(1, check).Text(2, "HEALTH").Message(3, http)).
		Message(34,
			m().Text(1, "shared").Text(2, "http://x/s.tgz").Text(3, "/s").Number(4, 1).Number(5, 1).Number(6, 1).Text(7, "aa"),
			m().Text(1, "own").Text(2, "http://x/o.zip").Text(3, "/o").Number(4, 2).Number(5, 3).Number(6, 2).Text(7, "bb"),
			m().Text(1, "bare").Text(2, "http://x/b.tar").Text(3, "/b").Number(4, 1).Number(5, 2)).
		EntryMessage(35, "source_id", m().Text(1, "source")).
		Message(36, m().Message(1, run("/bin/sidecar")).Number(2, 64).Number(3, 32)).
		Message(37, m().Number(1, 1000)).Message(38, m().Text(1, "f").Text(2, "content")).Number(39, 1)
}

// replace returns a message with other values in a field, or none.
func replace(in diego.Message, field int, with ...diego.Message) diego.Message {
	out := m()
	for n := 1; n <= 60; n++ {
		if n == field {
			out = out.Message(protowire.Number(n), with...)
			continue
		}
		out = append(out, in.Only(protowire.Number(n))...)
	}
	return out
}

func (s *story) desired(i *installation) {
	s.want(i.cc, "/v1/desired_lrp/desire.r2", m().Message(1, whole("p")), done)
	got := s.call(i.operator, "/v1/desired_lrps/get_by_process_guid.r3", guid("p")).At(2)
	tag := m().Text(1, got.TextAt(21, 1)) // a new epoch, and index 0: what the client says of it is ignored
	if got.TextAt(21, 1) == "" || got.TextAt(21, 1) == "mine" {
		s.Errorf("the epoch is %q", got.TextAt(21, 1))
	}
	// The password is for cells only.
	record := replace(replace(whole("p"), 21, tag), 32)
	s.want(i.operator, "/v1/desired_lrps/get_by_process_guid.r3", guid("p"), m().Message(2, record))
	s.want(i.operator, "/v1/desired_lrps/list.r3", m().Text(1, "cf-apps").Texts(2, "p").Texts(3, "p"), m().Message(2, record))
	s.want(i.operator, "/v1/desired_lrps/list.r3", m().Text(1, "elsewhere"), done)

	download := m().Message(1, m().Text(1, "own").Text(2, "http://x/o.zip").Text(3, "/o").Text(4, "sha512:bb").Text(6, "vcap").Text(7, "sha512").Text(8, "bb"))
	parallel := m().Message(7, m().Message(1, download))
	older := replace(record, 6, m().Message(8, m().Message(1, parallel, run("/bin/setup"))))
	older = replace(older, 22,
		m().Text(1, "shared").Text(2, "http://x/s.tgz").Text(3, "/s").Text(4, "sha256:aa").Text(6, "sha256").Text(7, "aa"),
		m().Text(1, "bare").Text(2, "http://x/b.tar").Text(3, "/b").Text(4, "http://x/b.tar"),
		record.At(22))
	older = replace(older, 34)
	s.want(i.cc, "/v1/desired_lrps/get_by_process_guid.r2", guid("p"), m().Message(2, older))
	s.want(i.cc, "/v1/desired_lrps/list.r2", m().Texts(2, "p"), m().Message(2, older))

	info := m().Message(1, m().Text(1, "p").Text(2, "cf-apps").Text(3, "log")).Text(2, "1763835840.417").Number(3, 1).
		Message(4, m().Number(1, 256).Number(2, 512).Text(3, "preloaded:cflinuxfs4").Number(4, 1024)).
		Message(5, record.At(15)).Message(6, tag).Message(7, m().Texts(1, "nfs")).Texts(8, "iso")
	s.want(i.cc, "/v1/desired_lrp_scheduling_infos/list", m().Text(1, "cf-apps"), m().Message(2, info))
	s.want(i.cc, "/v1/desired_lrp_scheduling_infos/get_by_process_guid", guid("p"), m().Message(2, info))
	routing := m().Text(1, "p").Text(2, "cf-apps").Number(4, 1).Message(15, record.At(15)).Text(17, "log").Message(21, tag).
		EntryMessage(35, "source_id", m().Text(1, "source"))
	s.want(i.guest("x", "route-emitter.service.cf.internal"), "/v1/desired_lrp_routing_infos/list", m().Texts(2, "p"), m().Message(2, routing))

	// Sub-messages that are never absent, of a record that says next to nothing; present and empty routes
	// clear them, absent ones do not.
	s.want(i.cc, "/v1/desired_lrp/desire.r2", m().Message(1, desired("q", 0)), done)
	bare := s.call(i.cc, "/v1/desired_lrp_scheduling_infos/get_by_process_guid", guid("q")).At(2)
	s.want(i.cc, "/v1/desired_lrp_scheduling_infos/get_by_process_guid", guid("q"), m().Message(2, m().
		Message(1, m().Text(1, "q").Text(2, "cf-apps")).Message(4, m().Text(3, "preloaded:cflinuxfs4")).Message(5, m()).
		Message(6, m().Text(1, bare.TextAt(6, 1))).Message(7, m())))
	s.want(i.cc, "/v1/desired_lrp/update", m().Text(1, "p").Message(2, m().Present(1, 2).Element(3, "")), done)
	s.want(i.cc, "/v1/desired_lrp/update", m().Text(1, "p").Message(2, m().Message(2, m())), done)
	after := s.call(i.cc, "/v1/desired_lrp_scheduling_infos/get_by_process_guid", guid("p")).At(2)
	want := m().Message(1, info.At(1)).Number(3, 2).Message(4, info.At(4)).Message(5, m()).
		Message(6, m().Text(1, tag.TextAt(1)).Number(2, 2)).Message(7, info.At(7)).Texts(8, "iso")
	if string(after) != string(want) {
		s.Errorf("after the updates it is\n%q, want\n%q", after, want)
	}
	s.want(i.cc, "/v1/desired_lrp/remove", guid("q"), done)

	// Where metrics belong is said in two ways. A list of ports may come packed and goes unpacked.
	packed := m().Text(1, "r").Text(2, "cf-apps").Text(3, "preloaded:cflinuxfs4").Message(7, run("/bin/app")).Packed(14, 8080, 2222).
		EntryMessage(35, "source_id", m().Text(1, "source"))
	s.want(i.cc, "/v1/desired_lrp/desire.r2", m().Message(1, packed), done)
	got = s.call(i.cc, "/v1/desired_lrps/get_by_process_guid.r2", guid("r")).At(2)
	if ports := got.Only(14); string(ports) != string(m().Numbers(14, 8080, 2222)) || got.TextAt(18) != "source" {
		s.Errorf("ports %q, metrics_guid %q", ports, got.TextAt(18))
	}
	s.want(i.cc, "/v1/desired_lrp/remove", guid("r"), done)
}

func (s *story) instances(i *installation, c1 *diego.Client) {
	const list = "/v1/actual_lrps/list"
	none, by := m(), instance("i1", "c1")
	one := func(index int64) diego.Message {
		return s.call(i.operator, list, m().Text(3, "p").Present(4, index)).At(2)
	}
	// An unclaimed record: keys, addresses and tag are there although they are empty, routable is said.
	fresh := actual(one(0), key("p", 0), none, none, diego.Message("UNCLAIMED")).Present(13, 0)
	s.want(i.cc, list, m().Text(1, "cf-apps").Text(3, "p").Present(4, 0), m().Message(2, fresh))
	s.want(c1, "/v1/actual_lrps/claim", claim("p", 0, by), done)
	claimed := actual(one(0), key("p", 0), by, none, diego.Message("CLAIMED")).Present(13, 0)
	s.want(c1, list, m().Text(2, "c1"), m().Message(2, claimed))
	s.want(c1, "/v1/actual_lrps/start.r1", start("p", 0, by).Message(4, m().Text(1, "a.internal")).Entry(5, "k", "v").Present(6, 0).Text(7, "z1"), done)
	running := actual(one(0), key("p", 0), by, net4(), diego.Message("RUNNING")).
		Message(11, m().Text(1, "a.internal")).Entry(12, "k", "v").Present(13, 0).Text(14, "z1")
	second := actual(one(1), key("p", 1), none, none, diego.Message("UNCLAIMED")).Present(13, 0)
	s.want(i.cc, "/v1/actual_lrps/list_by_process_guids", m().Texts(1, "p", "q"), m().Message(2, running, second))
	group, other := m().Message(1, running), m().Message(1, second)
	s.want(i.operator, "/v1/actual_lrp_groups/list", m().Text(1, "cf-apps"), m().Message(2, group, other))
	s.want(i.operator, "/v1/actual_lrp_groups/list_by_process_guid", guid("p"), m().Message(2, group, other))
	s.want(i.operator, "/v1/actual_lrp_groups/get_by_process_guid_and_index", m().Text(1, "p").Number(2, 1), m().Message(2, other))

	// The older start knows neither internal routes nor tags; without a word, an instance is routable.
	s.want(c1, "/v1/actual_lrps/start", start("p", 1, instance("i2", "c1")).Message(4, m().Text(1, "b.internal")).Entry(5, "k", "v").Text(7, "z1"), done)
	s.want(i.cc, list, m().Text(3, "p").Present(4, 1), m().Message(2,
		actual(one(1), key("p", 1), instance("i2", "c1"), net4(), diego.Message("RUNNING")).Present(13, 1).Text(14, "z1")))
	s.want(c1, "/v1/actual_lrps/crash", crash("p", 1, instance("i2", "c1"), "exited with 1"), done)
	if now := one(1); now.TextAt(6) != "UNCLAIMED" || now.NumberAt(4) != 1 || now.TextAt(5) != "exited with 1" {
		s.Errorf("after a crash it is %q", now)
	}
	s.want(i.auctioneer, "/v1/actual_lrps/fail", m().Message(1, key("p", 1)).Text(2, "insufficient resources: memory"), done)
	if now := one(1); now.TextAt(7) != "insufficient resources: memory" {
		s.Errorf("after it could not be placed it is %q", now)
	}
	s.want(i.cc, "/v1/actual_lrps/retire", m().Message(1, key("p", 0)), done)
	s.want(c1, "/v1/actual_lrps/remove", claim("p", 0, by), done)
	if now := one(0); now.TextAt(6) != "UNCLAIMED" || now.TextAt(9, 1) == running.TextAt(9, 1) {
		s.Errorf("after it was stopped it is %q", now)
	}
}

func (s *story) evacuation(i *installation, c1 *diego.Client) {
	keep := m().Flag(2, true)
	slot := func(index int64) diego.Message {
		return s.call(i.operator, "/v1/actual_lrp_groups/get_by_process_guid_and_index", m().Text(1, "p").Number(2, index)).At(2)
	}
	s.want(i.cc, "/v1/desired_lrp/desire.r2", m().Message(1, desired("e", 6)), done)
	for n := range int64(6) {
		s.want(c1, "/v1/actual_lrps/claim", claim("e", n, instance(string(rune('a'+n)), "c1")), done)
	}
	by := func(n int64) diego.Message { return instance(string(rune('a'+n)), "c1") }
	for _, n := range []int64{2, 3, 4, 5} {
		s.want(c1, "/v1/actual_lrps/start.r1", start("e", n, by(n)), done)
	}
	s.want(c1, "/v1/actual_lrps/evacuate_claimed", of("e", 0, by(0)), done)
	s.want(c1, "/v1/actual_lrps/evacuate_crashed", crash("e", 1, by(1), "exited"), done)
	s.want(c1, "/v1/actual_lrps/evacuate_stopped", of("e", 2, by(2)), done)
	full := func(n int64) diego.Message {
		return start("e", n, by(n)).Message(5, m().Text(1, "e.internal")).Entry(6, "k", "v").Present(7, 0).Text(8, "z9")
	}
	s.want(c1, "/v1/actual_lrps/evacuate_running.r1", full(3), keep)
	s.want(c1, "/v1/actual_lrps/evacuate_running", full(4), keep)
	get := func(n int64) diego.Message {
		return s.call(i.operator, "/v1/actual_lrp_groups/get_by_process_guid_and_index", m().Text(1, "e").Number(2, n)).At(2)
	}
	for n, reported := range map[int64]diego.Message{
		3: m().Message(11, m().Text(1, "e.internal")).Entry(12, "k", "v").Present(13, 0).Text(14, "z9"),
		4: m().Present(13, 0).Text(14, "z9"), // the older one
	} {
		g := get(n)
		evacuating := m().Message(1, key("e", n)).Message(2, by(n)).Message(3, net4()).Text(6, "RUNNING").Number(8, g.NumberAt(2, 8)).
			Message(9, m().Text(1, g.TextAt(2, 9, 1)).Number(2, g.NumberAt(2, 9, 2))).Number(10, 1)
		want := m().Message(1, actual(g.At(1), key("e", n), m(), m(), diego.Message("UNCLAIMED")).Present(13, 0)).Message(2, append(evacuating, reported...))
		if string(g) != string(want) {
			s.Errorf("group %d is\n%q, want\n%q", n, g, want)
		}
	}
	s.want(c1, "/v1/actual_lrps/remove_evacuating", of("e", 3, by(3)), done)
	if g := get(3); g.Has(2) {
		s.Errorf("after its evacuating instance went the group is %q", g)
	}
	s.want(i.cc, "/v1/desired_lrp/remove", guid("e"), done)
	if slot(0).TextAt(1, 6) != "UNCLAIMED" {
		s.Errorf("another process was touched: %q", slot(0))
	}
}

func (s *story) tasks(i *installation, c1 *diego.Client) {
	for _, g := range []string{"t1", "t2", "t3", "t4"} {
		s.want(i.cc, "/v1/tasks/desire.r2", task(g), done)
	}
	get := func(g string) diego.Message {
		return s.call(i.cc, "/v1/tasks/get_by_task_guid.r3", guid(g)).At(2)
	}
	definition := task("t1").At(1)
	t1 := get("t1")
	want := m().Message(1, definition).Text(2, "t1").Text(3, "cf-tasks").Number(4, t1.NumberAt(4)).Number(5, t1.NumberAt(4)).Number(7, 1)
	s.want(i.cc, "/v1/tasks/get_by_task_guid.r3", guid("t1"), m().Message(2, want))
	s.want(i.cc, "/v1/tasks/get_by_task_guid.r2", guid("t1"), m().Message(2, want))
	for _, list := range []string{"/v1/tasks/list.r2", "/v1/tasks/list.r3"} {
		all := s.call(i.cc, list, m().Text(1, "cf-tasks")).All(2)
		if len(all) != 4 || string(all[0]) != string(want) {
			s.Errorf("%s: %q", list, all)
		}
	}
	s.want(c1, "/v1/tasks/start", m().Text(1, "t1").Text(2, "c1"), m().Flag(2, true))
	s.want(c1, "/v1/tasks/start", m().Text(1, "t1").Text(2, "c1"), done) // again is no error
	s.want(c1, "/v1/tasks/complete", m().Text(1, "t1").Text(2, "c1").Text(5, "42"), done)
	t1 = get("t1")
	s.want(i.cc, "/v1/tasks/get_by_task_guid.r3", guid("t1"), m().Message(2, m().Message(1, definition).Text(2, "t1").Text(3, "cf-tasks").
		Number(4, t1.NumberAt(4)).Number(5, t1.NumberAt(5)).Number(6, t1.NumberAt(6)).Number(7, 3).Text(9, "42")))
	s.want(i.cc, "/v1/tasks/resolving", guid("t1"), done)
	s.want(i.cc, "/v1/tasks/delete", guid("t1"), done)
	s.want(i.cc, "/v1/tasks/cancel", guid("t2"), done)
	s.want(i.operator, "/v1/tasks/fail", m().Text(1, "t3").Text(2, "broken"), done)
	s.want(i.auctioneer, "/v1/tasks/reject", m().Text(1, "t4").Text(2, "no room"), done)
	t2, t3, t4 := get("t2"), get("t3"), get("t4")
	if t2.NumberAt(7) != 3 || t2.NumberAt(10) != 1 || t2.TextAt(11) != "task was cancelled" || t3.TextAt(11) != "broken" ||
		t4.NumberAt(7) != 1 || t4.NumberAt(12) != 1 || t4.TextAt(13) != "no room" {
		s.Errorf("cancelled %q, failed %q, rejected %q", t2, t3, t4)
	}
	// Layers of a task, for who knows none.
	layered := m().Message(1, replace(definition, 25,
		m().Text(1, "shared").Text(2, "http://x/s").Text(3, "/s").Number(4, 1).Number(5, 1),
		m().Text(1, "own").Text(2, "http://x/o").Text(3, "/o").Number(4, 2).Number(5, 1).Number(6, 1).Text(7, "cc")).Known())
	layered = m().Message(1, replace(layered.At(1), 16, diego.Message("vcap"))).Text(2, "t5").Text(3, "cf-tasks")
	s.want(i.cc, "/v1/tasks/desire.r2", layered, done)
	older := s.call(i.cc, "/v1/tasks/get_by_task_guid.r2", guid("t5")).At(2, 1)
	download := m().Message(1, m().Text(1, "own").Text(2, "http://x/o").Text(3, "/o").Text(4, "sha256:cc").Text(6, "vcap").Text(7, "sha256").Text(8, "cc"))
	wantDefinition := replace(replace(replace(layered.At(1), 25), 3, m().Message(8, m().Message(1, m().Message(7, m().Message(1, download)), definition.At(3)))),
		15, m().Text(1, "shared").Text(2, "http://x/s").Text(3, "/s").Text(4, "http://x/s"))
	if string(older) != string(wantDefinition) {
		s.Errorf("for who knows no layers the task is\n%q, want\n%q", older, wantDefinition)
	}
}
