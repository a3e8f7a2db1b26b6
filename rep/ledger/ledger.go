// Package ledger keeps the books of a cell: what is reserved by which instance, what may still be
// accepted (Ledger), and which host ports are free (Ports). It is a CORE: no I/O, no clock, no lock;
// its owner serialises the calls and passes the time.
//
// # Invariants
//
// Tests cite them by number.
//
//	L1  What is available is the total minus all that is held, and never negative.
//	L2  Reserve takes all resources of a want or none.
//	L3  Reserve never lets what is held exceed the total; Adopt may, because the container exists.
//	L4  Releasing gives back exactly what was taken, once.
//	P1  A port is held by at most one instance.
//	P2  A freed port is not handed out again before its quarantine is over.
package ledger

import (
	"fmt"
	"strings"

	"muster/bbs/lrp"
	"muster/cells"
)

// Ledger says who holds how much of a cell. Not for concurrent use.
type Ledger struct {
	total cells.Resources
	held  map[lrp.InstanceGUID]cells.Resources
	sum   sums
}

// sums is wider than cells.Resources so that adding up cannot overflow.
type sums struct{ memory, disk, containers int64 }

// New returns a ledger in which nothing is held.
func New(total cells.Resources) *Ledger {
	return &Ledger{total: total, held: map[lrp.InstanceGUID]cells.Resources{}}
}

// Refusal says which resources were too little; its text is Diego's.
type Refusal struct{ Short []string } // among containers, disk, memory; sorted

// Error returns, for example, insufficient resources: disk, memory.
func (r *Refusal) Error() string { return "insufficient resources: " + strings.Join(r.Short, ", ") }

// Reserve takes what an instance wants, or answers with a *Refusal and takes nothing. An instance
// that holds something already, or a negative amount, is an error of another kind.
func (l *Ledger) Reserve(id lrp.InstanceGUID, want cells.Resources) error {
	if err := l.check(id, want); err != nil {
		return err
	}
	var short []string
	free := l.free()
	if int64(want.Containers) > free.containers {
		short = append(short, "containers")
	}
	if int64(want.DiskMB) > free.disk {
		short = append(short, "disk")
	}
	if int64(want.MemoryMB) > free.memory {
		short = append(short, "memory")
	}
	if short != nil {
		return &Refusal{Short: short}
	}
	l.take(id, want)
	return nil
}

// Adopt charges what an existing container holds, even beyond the total: it is there, whether it
// fits or not. Until enough is released nothing else is accepted.
func (l *Ledger) Adopt(id lrp.InstanceGUID, has cells.Resources) error {
	if err := l.check(id, has); err != nil {
		return err
	}
	l.take(id, has)
	return nil
}

func (l *Ledger) check(id lrp.InstanceGUID, r cells.Resources) error {
	if _, ok := l.held[id]; ok {
		return fmt.Errorf("instance %s holds resources already", id)
	}
	if r.MemoryMB < 0 || r.DiskMB < 0 || r.Containers < 0 {
		return fmt.Errorf("instance %s wants a negative amount: %+v", id, r)
	}
	return nil
}

func (l *Ledger) take(id lrp.InstanceGUID, r cells.Resources) {
	l.held[id] = r
	l.sum.memory += int64(r.MemoryMB)
	l.sum.disk += int64(r.DiskMB)
	l.sum.containers += int64(r.Containers)
}

// Release gives back what an instance holds; one that holds nothing is no error.
func (l *Ledger) Release(id lrp.InstanceGUID) {
	r, ok := l.held[id]
	if !ok {
		return
	}
	delete(l.held, id)
	l.sum.memory -= int64(r.MemoryMB)
	l.sum.disk -= int64(r.DiskMB)
	l.sum.containers -= int64(r.Containers)
}

func (l *Ledger) free() sums {
	return sums{
		memory:     max(0, int64(l.total.MemoryMB)-l.sum.memory),
		disk:       max(0, int64(l.total.DiskMB)-l.sum.disk),
		containers: max(0, int64(l.total.Containers)-l.sum.containers),
	}
}

// Available returns what may still be reserved.
func (l *Ledger) Available() cells.Resources {
	f := l.free()
	return cells.Resources{MemoryMB: int32(f.memory), DiskMB: int32(f.disk), Containers: int32(f.containers)}
}

// Total returns what there is in all.
func (l *Ledger) Total() cells.Resources { return l.total }
