package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/jackc/pgx/v5"

	"muster/bbs/lrp"
	"muster/internal/pgcluster"
	"muster/internal/pgtest"
)

// slotState is what the rules know of a slot in a recorded history: ordinary instances of a wanted slot,
// at one time.
type slotState struct {
	state   lrp.State
	by      lrp.InstanceKey
	crashes int32
}

// unknown is the output of a call whose effect is not known.
const unknown = "unknown"

var historyTime = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// slotStep is one call on a slot by the rules: whether its answer fits, and what the slot becomes.
func slotStep(state, input, output any) (bool, any) {
	was, ev := state.(slotState), input.(lrp.Event)
	a := &lrp.Actual{Key: ev.Key, InstanceKey: was.by, State: was.state, CrashCount: was.crashes, Since: historyTime}
	if was.state == lrp.Running {
		a.NetInfo = start("", 0, was.by).NetInfo
	}
	answer := "done"
	out, err := lrp.Apply(lrp.Group{Wanted: true, Domain: ev.Key.Domain, Ordinary: a}, ev, historyTime)
	if err != nil {
		answer = err.Error()
	}
	o := out.Group.Ordinary
	return output == unknown || output == answer, slotState{o.State, o.InstanceKey, o.CrashCount}
}

// slotModel is a slot as a register that the rules of bbs/lrp move.
func slotModel() porcupine.Model {
	return porcupine.Model{
		Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
			slots := map[lrp.Slot][]porcupine.Operation{}
			for _, o := range all {
				slot := o.Input.(lrp.Event).Key.Slot
				slots[slot] = append(slots[slot], o)
			}
			var parts [][]porcupine.Operation
			for _, part := range slots {
				parts = append(parts, part)
			}
			return parts
		},
		Init:              func() any { return slotState{state: lrp.Unclaimed} },
		Step:              slotStep,
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %v", input, output) },
	}
}

// recorder is clients that claim, start, crash and remove the instances of a few slots, and what they
// were told.
type recorder struct {
	s        *Store
	begin    time.Time
	progress chan struct{} // told of calls that succeeded
	outage   chan struct{} // told of calls that found no database
	stop     chan struct{}
	wg       sync.WaitGroup

	mu          sync.Mutex
	history     []porcupine.Operation
	unavailable int
	wrong       []error
}

const historySlots, historyClients = 4, 6

func startClients(t *testing.T, s *Store) *recorder {
	t.Helper()
	must(t, s.Desire(t.Context(), app("p", historySlots), Call{}))
	r := &recorder{s: s, begin: time.Now(), progress: make(chan struct{}), outage: make(chan struct{}), stop: make(chan struct{})}
	for c := range historyClients {
		r.wg.Go(func() { r.client(c) })
	}
	return r
}

func (r *recorder) client(c int) {
	names := []lrp.EventName{lrp.Claim, lrp.Start, lrp.Crash, lrp.Claim, lrp.Remove, lrp.Start, lrp.Remove}
	for i := 0; ; i++ {
		select {
		case <-r.stop:
			return
		default:
		}
		by := lrp.InstanceKey{Instance: lrp.InstanceGUID(fmt.Sprint("i", c)), Cell: lrp.CellID(fmt.Sprint("c", c))}
		ev := start("p", int32((i/3+c)%historySlots), by)
		ev.Name, ev.Reason, ev.Epoch = names[(i+c)%len(names)], "r", newEpoch()
		if ev.Name == lrp.Remove && i%2 == 0 {
			ev.By = lrp.InstanceKey{} // whoever has it, or one that crashed too often would stay
		}
		r.call(c, ev)
	}
}

// call makes a call and records it.
func (r *recorder) call(client int, ev lrp.Event) {
	o := porcupine.Operation{ClientId: client, Input: ev, Call: int64(time.Since(r.begin))}
	err := r.s.Apply(context.Background(), ev, Call{})
	o.Return, o.Output = int64(time.Since(r.begin)), "done"
	var refusal *lrp.Refusal
	switch {
	case errors.As(err, &refusal):
		o.Output = err.Error()
	case err != nil:
		o.Output, o.Return = unknown, math.MaxInt64 // it may happen at any time, or never
	}
	r.mu.Lock()
	r.history = append(r.history, o)
	if err != nil && refusal == nil {
		r.unavailable++
		if !errors.Is(err, ErrUnavailable) {
			r.wrong = append(r.wrong, err)
		}
	}
	r.mu.Unlock()
	tell := r.progress
	if o.Output == unknown {
		tell = r.outage
	}
	select {
	case tell <- struct{}{}:
	default:
	}
}

// await waits for some calls to be told of.
func await(calls int, told chan struct{}) {
	for range calls {
		<-told
	}
}

// check ends the clients and fails unless their history is one that the rules allow.
func (r *recorder) check(t *testing.T) {
	t.Helper()
	close(r.stop)
	r.wg.Wait()
	for _, err := range r.wrong {
		t.Errorf("a caller was told %v, want success, a refusal or %v", err, ErrUnavailable)
	}
	// What is there now is the last thing that was seen.
	for index := range int32(historySlots) {
		r.call(historyClients, lrp.Event{Name: lrp.Crash, Key: slotKey("p", index), By: lrp.InstanceKey{Instance: "nobody", Cell: "c"}, Epoch: "e"})
	}
	if !porcupine.CheckOperations(slotModel(), r.history) {
		t.Errorf("no order of the %d calls explains their answers", len(r.history))
	}
	t.Logf("%d calls, %d of them with unknown effect", len(r.history), r.unavailable)
	checkReplay(t, r.s)
}

// The check itself notices an answer that cannot be.
func TestHistoryCheck(t *testing.T) {
	t.Parallel()
	op := func(call, ret int64, ev lrp.Event, output string) porcupine.Operation {
		return porcupine.Operation{Input: ev, Call: call, Return: ret, Output: output}
	}
	a, b := lrp.InstanceKey{Instance: "a", Cell: "c"}, lrp.InstanceKey{Instance: "b", Cell: "c"}
	for name, h := range map[string]struct {
		ok      bool
		history []porcupine.Operation
	}{
		"one after the other": {true, []porcupine.Operation{op(1, 2, claim("p", 0, a), "done"), op(3, 4, start("p", 0, a), "done")}},
		"two have one slot":   {false, []porcupine.Operation{op(1, 2, claim("p", 0, a), "done"), op(3, 4, claim("p", 0, b), "done")}},
		"lost":                {false, []porcupine.Operation{op(1, 2, start("p", 0, a), "done"), op(3, 4, start("p", 0, b), "done")}},
		"it did not happen":   {true, []porcupine.Operation{op(1, math.MaxInt64, claim("p", 0, a), unknown), op(3, 4, claim("p", 0, b), "done")}},
	} {
		if got := porcupine.CheckOperations(slotModel(), h.history); got != h.ok {
			t.Errorf("%s: %v, want %v", name, got, h.ok)
		}
	}
}

// outage is a way for the database to fail. It breaks, and returns how to mend.
type outage func(t *testing.T, c *pgcluster.Cluster, db string) (mend func())

// Whatever happens to the database, callers are told the truth or that it is not known: the history of
// each slot is one that the rules allow, and the log tells the same as the tables.
func TestHistoryUnderFaults(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]outage{
		"killed":            killed,
		"restarted":         restarted,
		"disconnected":      disconnected,
		"read only":         withSetting("default_transaction_read_only", "on"),
		"statement timeout": tooSlow,
		"no connections":    noConnections,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := pgtest.Cluster(t)
			url := pgtest.DatabaseOn(t, c, Migrate)
			s := open(t, url, Options{Now: func() time.Time { return historyTime }})
			r := startClients(t, s)
			for range 2 {
				await(50, r.progress)
				if mend := fail(t, c, database(t, url)); mend != nil {
					await(historyClients, r.outage)
					mend()
					break
				}
			}
			await(50, r.progress)
			r.check(t)
		})
	}
}

// database returns the name of a database.
func database(t *testing.T, url string) string {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	must(t, err)
	return cfg.Database
}

func reopen(t *testing.T, c *pgcluster.Cluster) {
	t.Helper()
	_, err := pgcluster.Open(t.Context(), pgcluster.Config{Dir: c.Dir(), FastUnsafe: true})
	must(t, err)
}

func killed(t *testing.T, c *pgcluster.Cluster, _ string) func() {
	must(t, c.Kill(t.Context()))
	reopen(t, c)
	return nil
}

func restarted(t *testing.T, c *pgcluster.Cluster, _ string) func() {
	must(t, pgcluster.Stop(t.Context(), c.Dir()))
	return func() { reopen(t, c) }
}

// admin runs statements beside the store.
func admin(t *testing.T, c *pgcluster.Cluster, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.URL("postgres"))
	must(t, err)
	defer conn.Close(context.Background())
	for _, sql := range statements {
		_, err := conn.Exec(t.Context(), sql)
		must(t, err)
	}
}

const disconnect = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'muster-bbs'"

func disconnected(t *testing.T, c *pgcluster.Cluster, _ string) func() {
	admin(t, c, disconnect)
	return nil
}

// withSetting gives each new connection a setting, and ends the others.
func withSetting(name, value string) outage {
	return func(t *testing.T, c *pgcluster.Cluster, db string) func() {
		admin(t, c, fmt.Sprintf("alter database %s set %s = '%s'", db, name, value), disconnect)
		return func() { admin(t, c, fmt.Sprintf("alter database %s reset %s", db, name), disconnect) }
	}
}

// tooSlow makes the writers wait for longer than a statement may take.
func tooSlow(t *testing.T, c *pgcluster.Cluster, db string) func() {
	holder, err := pgx.Connect(t.Context(), c.URL(db))
	must(t, err)
	mend := withSetting("statement_timeout", "20ms")(t, c, db)
	_, err = holder.Exec(t.Context(), "begin; lock table sequencer in access exclusive mode")
	must(t, err)
	return func() {
		must(t, holder.Close(context.Background()))
		mend()
	}
}

// noConnections takes all connections that the server has.
func noConnections(t *testing.T, c *pgcluster.Cluster, db string) func() {
	admin(t, c, "alter system set max_connections = 12", "alter system set superuser_reserved_connections = 0")
	must(t, pgcluster.Stop(t.Context(), c.Dir()))
	reopen(t, c)
	hog := func(ctx context.Context) (taken []*pgx.Conn) {
		for {
			conn, err := pgx.Connect(ctx, c.URL("postgres"))
			if err != nil {
				return taken
			}
			taken = append(taken, conn)
		}
	}
	taken := hog(t.Context())
	if len(taken) == 0 {
		t.Fatal("no connection to be had")
	}
	for left := 1; left > 0; { // the store may be quicker than we are
		_, err := taken[0].Exec(t.Context(), disconnect)
		must(t, err)
		taken = append(taken, hog(t.Context())...)
		must(t, taken[0].QueryRow(t.Context(), "select count(*) from pg_stat_activity where application_name = 'muster-bbs'").Scan(&left))
	}
	return func() {
		for _, conn := range taken {
			must(t, conn.Close(context.Background()))
		}
	}
}

// smallDisk returns a directory on a small file system, for a server to write to, and how to make room on
// it. It is mounted where only a process of its own sees it, which ends with the test, however that
// ends: nothing can be left behind.
func smallDisk(t *testing.T, c *pgcluster.Cluster) (dir string, makeRoom func()) {
	t.Helper()
	var owner syscall.Stat_t
	must(t, syscall.Stat(filepath.Join(c.Dir(), "data"), &owner))
	small := filepath.Join(c.Dir(), "small")
	must(t, os.Mkdir(small, 0o700))
	const script = `mount -t tmpfs -o size=48m,mode=0700,uid=$1,gid=$2 tmpfs "$3" && cd "$3" &&
		exec setpriv --reuid $1 --regid $2 --clear-groups sh -c 'mkdir space && head -c 24M /dev/zero >ballast && echo ready && exec cat'`
	cmd := exec.Command("sh", "-c", script, "small-disk", fmt.Sprint(owner.Uid), fmt.Sprint(owner.Gid), small)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	end, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	var trouble strings.Builder
	cmd.Stderr = &trouble
	must(t, cmd.Start())
	t.Cleanup(func() {
		must(t, c.Stop(context.Background()))
		must(t, end.Close())
		must(t, cmd.Wait())
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("mount a small file system, for which root is needed: %v: %s", err, &trouble)
	}
	seen := fmt.Sprintf("/proc/%d/root%s", cmd.Process.Pid, small)
	return filepath.Join(seen, "space"), func() { must(t, os.Remove(filepath.Join(seen, "ballast"))) }
}

// The disk is full: callers are told so, nothing is half written, and when there is room again
// everything goes on.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	c := pgtest.Cluster(t)
	dir, makeRoom := smallDisk(t, c)
	admin(t, c, "create tablespace small location '"+dir+"'", "create database full_disk tablespace small")
	must(t, Migrate(t.Context(), c.URL("full_disk")))
	s := open(t, c.URL("full_disk"), Options{})
	acknowledged := map[lrp.ProcessGUID]bool{}
	large := strings.Repeat("a", 1<<20)
	fill := func() (err error) {
		for err == nil {
			d := app(fmt.Sprint("p", len(acknowledged)), 50)
			d.RunInfo.CachedDependencies = []lrp.CachedDependency{{From: large, To: "/x"}}
			if err = s.Desire(t.Context(), d, Call{}); err == nil {
				acknowledged[d.Process] = true
			}
		}
		return err
	}
	before := 0
	for _, then := range []func(){makeRoom, func() {}} {
		if err := fill(); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("a full disk: %v, want %v", err, ErrUnavailable)
		}
		if len(acknowledged) <= before {
			t.Errorf("%d processes were acknowledged, %d before there was more room", len(acknowledged), before)
		}
		before = len(acknowledged)
		then()
		got := tables(t, s)
		if len(got.Desired) != len(acknowledged) || len(got.Actuals) != 50*len(acknowledged) {
			t.Errorf("%d processes with %d instances are stored, %d were acknowledged", len(got.Desired), len(got.Actuals), len(acknowledged))
		}
		checkReplay(t, s)
	}
}
