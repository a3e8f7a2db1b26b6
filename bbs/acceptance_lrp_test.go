package bbs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/bbs/task"
)

// TestAcceptanceRequests is what clients may say, and what they are told when they may not.
func TestAcceptanceRequests(t *testing.T) {
	t.Parallel()
	s := newScene(t, time.Hour)
	for name, test := range map[string]func(*testing.T){
		"guids": s.guids, "annotation": s.annotation, "duplicates": s.duplicates, "missing": s.missing,
		"required fields": s.requiredFields, "lists": s.lists, "domains": s.domains,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t) })
	}
}

// §19 "guids"
func (s *scene) guids(t *testing.T) {
	for _, guid := range []string{"a b", "a/b", "a,b", "a.b", "gü", "日本", ""} {
		if err := s.client.Desire(t.Context(), app(guid, 1)); !names(err, "process_guid") {
			t.Errorf("process %q: %v, want process_guid named", guid, err)
		}
		if err := s.client.DesireTask(t.Context(), echoTask(guid)); !names(err, "task_guid") {
			t.Errorf("task %q: %v, want task_guid named", guid, err)
		}
	}
	const good = "guids-azAZ_09"
	must(t, s.client.Desire(t.Context(), app(good, 0)))
	must(t, s.client.DesireTask(t.Context(), echoTask(good)))
}

// §19 "annotation"
func (s *scene) annotation(t *testing.T) {
	fits, long := strings.Repeat("a", 10_240), strings.Repeat("a", 10_241)
	process, job := app("annotation", 0), echoTask("annotation")
	process.Annotation, job.Definition.Annotation = long, long
	for what, err := range map[string]error{
		"process": s.client.Desire(t.Context(), process),
		"task":    s.client.DesireTask(t.Context(), job),
	} {
		if !names(err, "annotation") {
			t.Errorf("%s with a byte too much: %v, want annotation named", what, err)
		}
	}
	process.Annotation, job.Definition.Annotation = fits, fits
	must(t, s.client.Desire(t.Context(), process))
	must(t, s.client.DesireTask(t.Context(), job))
	if err := s.client.Update(t.Context(), "annotation", lrp.Update{Annotation: &long}); !names(err, "annotation") {
		t.Errorf("update with a byte too much: %v, want annotation named", err)
	}
}

// §19 "duplicates"
func (s *scene) duplicates(t *testing.T) {
	ctx := t.Context()
	must(t, s.client.Desire(ctx, app("twice", 1)))
	must(t, s.client.DesireTask(ctx, echoTask("twice")))
	process, err := s.client.Desired(ctx, "twice")
	must(t, err)
	job, err := s.client.Task(ctx, "twice")
	must(t, err)
	other, otherJob := app("twice", 5), echoTask("twice")
	other.Domain, other.Annotation, otherJob.Domain, otherJob.Definition.Annotation = "duplicates", "other", "duplicates", "other"
	if err := s.client.Desire(ctx, other); !isLRP(err, lrp.Exists) {
		t.Errorf("a second process: %v, want %s", err, lrp.Exists)
	}
	if err := s.client.DesireTask(ctx, otherJob); !isTask(err, task.Exists) {
		t.Errorf("a second task, in another domain: %v, want %s", err, task.Exists)
	}
	again, err := s.client.Desired(ctx, "twice")
	must(t, err)
	if diff := cmp.Diff(process, again); diff != "" {
		t.Errorf("the process changed (-before +after):\n%s", diff)
	}
	jobAgain, err := s.client.Task(ctx, "twice")
	must(t, err)
	if diff := cmp.Diff(job, jobAgain); diff != "" {
		t.Errorf("the task changed (-before +after):\n%s", diff)
	}
}

// §19 "missing"
func (s *scene) missing(t *testing.T) {
	ctx := t.Context()
	three := int32(3)
	absent := lrp.ProcessGUID("absent")
	for what, err := range map[string]error{
		"get":            second(s.client.Desired(ctx, absent)),
		"get scheduling": second(s.client.SchedulingInfo(ctx, absent)),
		"update":         s.client.Update(ctx, absent, lrp.Update{Instances: &three}),
		"remove":         s.client.RemoveDesired(ctx, absent),
		"retire":         s.client.Apply(ctx, lrp.Event{Name: lrp.Retire, Key: key("absent", 0)}),
	} {
		if !isLRP(err, lrp.NotFound) {
			t.Errorf("%s: %v, want %s", what, err, lrp.NotFound)
		}
	}
	for _, name := range []task.EventName{task.Cancel, task.Resolve, task.Delete} {
		if _, err := s.client.ApplyTask(ctx, task.Event{Name: name, GUID: "absent"}); !isTask(err, task.NotFound) {
			t.Errorf("%s: %v, want %s", name, err, task.NotFound)
		}
	}
	if _, err := s.client.Task(ctx, "absent"); !isTask(err, task.NotFound) {
		t.Errorf("get a task: %v, want %s", err, task.NotFound)
	}
}

// §19 "required fields"
func (s *scene) requiredFields(t *testing.T) {
	for what, tc := range map[string]struct {
		field   string // of both, but for the GUIDs
		process func(*lrp.Desired)
		job     func(*task.Task)
	}{
		"no domain":          {"domain", func(d *lrp.Desired) { d.Domain = "" }, func(j *task.Task) { j.Domain = "" }},
		"no rootfs":          {"rootfs", func(d *lrp.Desired) { d.RootFS = "" }, func(j *task.Task) { j.Definition.RootFS = "" }},
		"rootfs without URL": {"rootfs", func(d *lrp.Desired) { d.RootFS = "b!a" }, func(j *task.Task) { j.Definition.RootFS = "b!a" }},
		"malformed rootfs":   {"rootfs", func(d *lrp.Desired) { d.RootFS = ":%/x" }, func(j *task.Task) { j.Definition.RootFS = ":%/x" }},
		"no action":          {"action", func(d *lrp.Desired) { d.RunInfo.Action = nil }, func(j *task.Task) { j.Definition.Action = nil }},
		"negative max_pids":  {"max_pids", func(d *lrp.Desired) { d.MaxPids = -1 }, func(j *task.Task) { j.Definition.MaxPids = -1 }},
	} {
		d, j := app("required", 0), echoTask("required")
		tc.process(&d)
		tc.job(&j)
		if err := s.client.Desire(t.Context(), d); !names(err, tc.field) {
			t.Errorf("process with %s: %v, want %s named", what, err, tc.field)
		}
		if err := s.client.DesireTask(t.Context(), j); !names(err, tc.field) {
			t.Errorf("task with %s: %v, want %s named", what, err, tc.field)
		}
	}
	if err := s.client.Desire(t.Context(), app("", 0)); !names(err, "process_guid") {
		t.Errorf("process without GUID: %v", err)
	}
	if err := s.client.DesireTask(t.Context(), echoTask("")); !names(err, "task_guid") {
		t.Errorf("task without GUID: %v", err)
	}
}

// §19 "lists"
func (s *scene) lists(t *testing.T) {
	ctx := t.Context()
	in := func(domain lrp.Domain, process string, instances int32) {
		d, j := app(process, instances), echoTask(process)
		d.Domain, j.Domain = domain, domain
		must(t, s.client.Desire(ctx, d))
		must(t, s.client.DesireTask(ctx, j))
	}
	in("lists-1", "l1", 2)
	in("lists-1", "l2", 1)
	in("lists-2", "l3", 1)
	index := int32(1)
	got := map[string]string{}
	note := func(what string, keys []string, err error) {
		t.Helper()
		must(t, err)
		slices.Sort(keys)
		got[what] = strings.Join(keys, " ")
	}
	desired := func(f bbsclient.DesiredFilter) (keys []string, err error) {
		list, _, err := s.client.DesiredList(ctx, f)
		for _, d := range list {
			keys = append(keys, string(d.Process))
		}
		return keys, err
	}
	actual := func(f bbsclient.ActualFilter) (keys []string, err error) {
		list, _, err := s.client.Actuals(ctx, f)
		for _, a := range list {
			keys = append(keys, fmt.Sprintf("%s/%d", a.Slot.Process, a.Slot.Index))
		}
		return keys, err
	}
	tasks := func(f bbsclient.TaskFilter) (keys []string, err error) {
		list, _, err := s.client.Tasks(ctx, f)
		for _, j := range list {
			keys = append(keys, string(j.GUID))
		}
		return keys, err
	}
	ours := func(keys []string, err error) ([]string, error) { // others are at work in the same BBS
		return slices.DeleteFunc(keys, func(k string) bool { return k[0] != 'l' || k[1] > '3' }), err
	}
	list := func(what string, keys []string, err error) { t.Helper(); note(what, keys, err) }
	k, err := desired(bbsclient.DesiredFilter{Domain: "lists-1"})
	list("desired of a domain", k, err)
	k, err = ours(desired(bbsclient.DesiredFilter{}))
	list("all desired", k, err)
	k, err = desired(bbsclient.DesiredFilter{Processes: []lrp.ProcessGUID{"l1", "l3", "absent"}})
	list("desired by GUID", k, err)
	k, err = actual(bbsclient.ActualFilter{Domain: "lists-1"})
	list("instances of a domain", k, err)
	k, err = ours(actual(bbsclient.ActualFilter{}))
	list("all instances", k, err)
	k, err = actual(bbsclient.ActualFilter{Process: "l1"})
	list("instances of a process", k, err)
	k, err = actual(bbsclient.ActualFilter{Process: "l1", Index: &index})
	list("one index", k, err)
	k, err = tasks(bbsclient.TaskFilter{Domain: "lists-1"})
	list("tasks of a domain", k, err)
	k, err = ours(tasks(bbsclient.TaskFilter{}))
	list("all tasks", k, err)
	k, err = desired(bbsclient.DesiredFilter{Domain: "nothing"})
	list("no desired", k, err)
	k, err = actual(bbsclient.ActualFilter{Process: "nothing"})
	list("no instances", k, err)
	k, err = tasks(bbsclient.TaskFilter{Domain: "nothing"})
	list("no tasks", k, err)
	if diff := cmp.Diff(map[string]string{
		"desired of a domain": "l1 l2", "all desired": "l1 l2 l3", "desired by GUID": "l1 l3",
		"instances of a domain": "l1/0 l1/1 l2/0", "all instances": "l1/0 l1/1 l2/0 l3/0", "instances of a process": "l1/0 l1/1",
		"one index": "l1/1", "tasks of a domain": "l1 l2", "all tasks": "l1 l2 l3", "no desired": "", "no instances": "", "no tasks": "",
	}, got); diff != "" {
		t.Errorf("lists (-want +got):\n%s", diff)
	}
}

// §19 "domains": the two seconds pass in the database.
func (s *scene) domains(t *testing.T) {
	ctx := t.Context()
	must(t, s.client.UpsertDomain(ctx, "for-ever", 0))
	must(t, s.client.UpsertDomain(ctx, "two-seconds", 2*time.Second))
	must(t, s.client.UpsertDomain(ctx, "an-hour", time.Hour))
	var ttl float64
	must(t, s.db.QueryRow(ctx, "select extract(epoch from expires_at - now()) from domains where domain = 'two-seconds'").Scan(&ttl))
	if ttl > 2 {
		t.Errorf("two seconds are %v", ttl)
	}
	s.exec(t, "update domains set expires_at = expires_at - interval '2 seconds' where domain in ('for-ever', 'two-seconds', 'an-hour')")
	list, _, err := s.client.Domains(ctx)
	must(t, err)
	if diff := cmp.Diff([]lrp.Domain{"an-hour", "for-ever"}, list); diff != "" {
		t.Errorf("domains (-want +got):\n%s", diff)
	}
	if err := s.client.UpsertDomain(ctx, "", 0); !names(err, "domain") {
		t.Errorf("a domain without a name: %v, want domain named", err)
	}
}

// TestAcceptanceInstances is how instances follow what is desired. No comparison is due for an hour: all
// of it happens at once.
func TestAcceptanceInstances(t *testing.T) {
	t.Parallel()
	s := newScene(t, time.Hour)
	s.newCell(t, "c1", time.Minute)
	for name, test := range map[string]func(*testing.T){
		"instances": s.instances, "update": s.update, "retire": s.retire,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t) })
	}
}

func (s *scene) scale(t *testing.T, process string, instances int32) {
	t.Helper()
	must(t, s.client.Update(t.Context(), lrp.ProcessGUID(process), lrp.Update{Instances: &instances}))
}

// §19 "instances"
func (s *scene) instances(t *testing.T) {
	must(t, s.client.Desire(t.Context(), app("scaled", 0)))
	if list := s.actuals(t, "scaled"); len(list) != 0 {
		t.Errorf("no instance is desired, and there are %+v", list)
	}
	for _, n := range []int32{3, 0, 2} {
		s.scale(t, "scaled", n)
		s.until(t, "scaled", fmt.Sprintf("%d instances", n), all(int(n), lrp.Running))
		if d, err := s.client.Desired(t.Context(), "scaled"); err != nil || d.Instances != n {
			t.Errorf("scaled to %d it is %+v (%v)", n, d, err)
		}
	}
}

// §19 "update"
func (s *scene) update(t *testing.T) {
	ctx := t.Context()
	must(t, s.client.Desire(ctx, app("updated", 1)))
	want, err := s.client.Desired(ctx, "updated")
	must(t, err)
	two, three, first, last := int32(2), int32(3), "first", "last"
	routes := func(host string) map[string][]byte {
		return map[string][]byte{"cf-router": fmt.Appendf(nil, `[{"hostnames":[%q],"port":8080}]`, host), "other": []byte(`{"x": 1}`)}
	}
	for what, u := range map[string]lrp.Update{
		"instances":  {Instances: &two},
		"routes":     {Routes: routes("b.example")},
		"annotation": {Annotation: &first},
		"all":        {Instances: &three, Routes: routes("c.example"), Annotation: &last},
	} {
		must(t, s.client.Update(ctx, "updated", u))
		if u.Instances != nil {
			want.Instances = *u.Instances
		}
		if u.Routes != nil {
			want.Routes = u.Routes
		}
		if u.Annotation != nil {
			want.Annotation = *u.Annotation
		}
		got, err := s.client.Desired(ctx, "updated")
		must(t, err)
		if got.Tag.Epoch != want.Tag.Epoch || got.Tag.Index <= want.Tag.Index {
			t.Errorf("%s: the tag was %+v and is %+v", what, want.Tag, got.Tag)
		}
		want.Tag = got.Tag
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		s.until(t, "updated", "as many as desired", all(int(want.Instances), lrp.Running))
	}
	if err := s.client.Update(ctx, "unknown", lrp.Update{Instances: &two}); !isLRP(err, lrp.NotFound) {
		t.Errorf("update of what is not there: %v, want %s", err, lrp.NotFound)
	}
}

// §19 "retire": the instance comes back at once, without any comparison, and in a record of its own.
func (s *scene) retire(t *testing.T) {
	must(t, s.client.Desire(t.Context(), app("retired", 3)))
	before := s.until(t, "retired", "running", all(3, lrp.Running))
	must(t, s.client.Apply(t.Context(), lrp.Event{Name: lrp.Retire, Key: key("retired", 1)}))
	after := s.until(t, "retired", "back", func(list []lrp.Actual) bool {
		return all(3, lrp.Running)(list) && list[1].Instance != before[1].Instance
	})
	if !after[1].Since.After(before[1].Since) {
		t.Errorf("since %v, and before %v", after[1].Since, before[1].Since)
	}
	for _, i := range []int{0, 2} {
		if diff := cmp.Diff(before[i], after[i]); diff != "" {
			t.Errorf("instance %d changed (-before +after):\n%s", i, diff)
		}
	}
}

// §19 "retire", of a CRASHED instance: its record goes, and here a wanted slot gets a new one in the same
// step, where Diego leaves none until it converges.
func TestAcceptanceRetireCrashed(t *testing.T) {
	t.Parallel()
	s := newScene(t, time.Hour)
	c, _ := s.newCell(t, "c1", time.Minute, func(c *testCell) { c.crashes["p"] = true })
	must(t, s.client.Desire(t.Context(), app("p", 1)))
	crashed := s.until(t, "p", "crashed", one(lrp.Crashed, 3))
	c.set(func(c *testCell) { delete(c.crashes, "p") })
	must(t, s.client.Apply(t.Context(), lrp.Event{Name: lrp.Retire, Key: key("p", 0)}))
	list := s.until(t, "p", "running, without a past", one(lrp.Running, 0))
	if list[0].Tag.Epoch == crashed[0].Tag.Epoch || list[0].CrashReason != "" {
		t.Errorf("after the crash %+v it is %+v, want a new record", crashed[0], list[0])
	}
}

// §19 "remove while claimed": whatever the cell does then, nothing stays.
func TestAcceptanceRemoveWhileClaimed(t *testing.T) {
	t.Parallel()
	s := newScene(t, time.Hour)
	ctx := t.Context()
	for name, then := range map[string]func(process string, by lrp.InstanceKey, c *bbsclient.Client){
		"starts": func(process string, by lrp.InstanceKey, c *bbsclient.Client) {
			var refused *lrp.Refusal
			if err := c.Apply(ctx, start(process, 0, by)); err != nil && !errors.As(err, &refused) {
				t.Error(err)
			}
		},
		"crashes": func(process string, by lrp.InstanceKey, c *bbsclient.Client) {
			must(t, c.Apply(ctx, lrp.Event{Name: lrp.Crash, Key: key(process, 0), By: by, Reason: "r"}))
		},
		"gives-it-up": func(string, lrp.InstanceKey, *bbsclient.Client) {},
	} {
		c := s.present(t, "c-"+name, time.Minute)
		by := lrp.InstanceKey{Instance: "i", Cell: lrp.CellID("c-" + name)}
		must(t, s.client.Desire(ctx, app(name, 1)))
		must(t, c.Apply(ctx, claim(name, 0, by)))
		must(t, s.client.RemoveDesired(ctx, lrp.ProcessGUID(name)))
		then(name, by, c)
		// A cell that looks at its records now removes what it is told to.
		_, stop := s.newCell(t, "c-"+name, time.Minute)
		s.until(t, name, "gone", func(list []lrp.Actual) bool { return len(list) == 0 })
		stop()
	}
}

// §19 "events": in this order. An instance that is to go says so first, and goes when its cell stopped it;
// Diego announces its end twice.
func TestAcceptanceEvents(t *testing.T) {
	t.Parallel()
	s := newScene(t, time.Hour)
	ctx := t.Context()
	watch, err := s.client.Watch(ctx, 0, bbsclient.WatchFilter{Process: "p"})
	must(t, err)
	_, stop := s.newCell(t, "c1", time.Minute)
	must(t, s.client.Desire(ctx, app("p", 1)))
	s.until(t, "p", "running", all(1, lrp.Running))
	must(t, s.client.RemoveDesired(ctx, "p"))
	var got []string
	for len(got) == 0 || got[len(got)-1] != "instance removed" {
		events, _, err := watch.Recv()
		must(t, err)
		for _, ev := range events {
			got = append(got, inWords(ev))
		}
	}
	stop()
	want := []string{
		"desired created", "instance created UNCLAIMED", "instance changed CLAIMED", "instance changed RUNNING",
		"desired removed", "instance changed RUNNING retiring", "instance removed",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func inWords(ev bbsclient.Event) string {
	switch {
	case ev.Desired != nil:
		return "desired " + happened(ev.Desired.Before == nil, ev.Desired.After == nil)
	case ev.Actual == nil:
		return fmt.Sprintf("%+v", ev)
	}
	text := "instance " + happened(ev.Actual.Before == nil, ev.Actual.After == nil)
	if a := ev.Actual.After; a != nil {
		text += " " + string(a.State)
		if a.Retiring {
			text += " retiring"
		}
	}
	return text
}

func happened(created, removed bool) string {
	switch {
	case created:
		return "created"
	case removed:
		return "removed"
	default:
		return "changed"
	}
}
