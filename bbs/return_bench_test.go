package bbs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"muster/bbs/internal/store"
	"muster/bbs/lrp"
	"muster/cells"
)

// suspectRounds is how often the cells fall silent and return.
const suspectRounds = 2

// BenchmarkSuspects lets cells of 250 instances fall silent and return, and says what a suspect costs, in
// microseconds of processor time of this program and of the backends of PostgreSQL. The figures do not
// depend on what else the machine does, as rates would.
func BenchmarkSuspects(b *testing.B) {
	const cellCount, perCell, perProcess = 32, 250, 10
	r := newRecords(b)
	ctx := b.Context()
	var ids []lrp.CellID
	for i := range cellCount {
		ids = append(ids, lrp.CellID(fmt.Sprintf("cell-%04d", i)))
	}
	beat := func() {
		for _, id := range ids {
			must(b, r.store.Heartbeat(ctx, cells.Presence{Cell: id}, time.Hour, store.Call{}))
		}
	}
	beat()
	var desired []lrp.Desired
	var starts []lrp.Event
	for n := range cellCount * perCell / perProcess {
		process := fmt.Sprintf("5eed0000-0000-4000-8000-%012x-6d5f1e2a-93b4-4c7d-8e1f-%012x", n, n)
		desired = append(desired, app(process, perProcess))
		for i := range perProcess {
			ev := start(process, int32(i), lrp.InstanceKey{Instance: lrp.InstanceGUID(fmt.Sprintf("%s-%04x", process[len(process)-30:], i)), Cell: ids[(n*perProcess+i)%cellCount]})
			ev.MetricTags = map[string]string{}
			for _, tag := range []string{"app_id", "app_name", "organization_id", "organization_name", "process_id", "process_type", "source_id", "space_id", "space_name", "instance_id", "process_instance_id"} {
				ev.MetricTags[tag] = process[:30]
			}
			ev.InternalRoutes = []string{process[:36] + ".apps.internal"}
			starts = append(starts, ev)
		}
	}
	for _, errs := range [][]error{r.store.DesireAll(ctx, desired, store.Call{}), r.store.ApplyAll(ctx, starts, store.Call{})} {
		for _, err := range errs {
			must(b, err)
		}
	}
	r.exec("vacuum analyze")
	c := r.converger(1)
	sides := []struct {
		name   string
		before func()
	}{
		{"lose", func() { r.exec("update cells set lost_at = now()") }},
		{"return", func() { r.exec("update cells set lost_at = null") }},
	}
	for i := range suspectRounds * len(sides) {
		side := sides[i%len(sides)]
		side.before()
		r.exec("vacuum actual_lrps, events")
		c.changed.add(ids...)
		own, pg, at := ownCPU(b), r.postgresCPU(), time.Now()
		must(b, c.repairChanged(ctx))
		n := float64(cellCount * perCell)
		us := func(d time.Duration) float64 { return float64(d.Microseconds()) / n }
		b.Logf("%s: bbs %.1f us, PostgreSQL %.1f us, took %.1f us each", side.name, us(ownCPU(b)-own), us(r.postgresCPU()-pg), us(time.Since(at)))
		b.ReportMetric(us(ownCPU(b)-own), "bbs-us/"+side.name)
		b.ReportMetric(us(r.postgresCPU()-pg), "pg-us/"+side.name)
	}
}

// ownCPU is the processor time of this program.
func ownCPU(b *testing.B) time.Duration {
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// postgresCPU is the processor time of the backends that serve the database.
func (r *records) postgresCPU() (total time.Duration) {
	rows, err := r.store.Pools.Read.Query(r.t.Context(), "select pid from pg_stat_activity where datname = current_database()")
	must(r.t, err)
	defer rows.Close()
	for rows.Next() {
		var pid int
		must(r.t, rows.Scan(&pid))
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		must(r.t, err)
		_, rest, _ := strings.Cut(string(text), ") ")
		for _, f := range strings.Fields(rest)[11:13] {
			ticks, err := strconv.Atoi(f)
			must(r.t, err)
			total += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return total
}
