package ledger

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/bbs/lrp"
	"muster/cells"
)

func TestRefusalTexts(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		want cells.Resources
		text string
	}{
		{"memory alone", cells.Resources{MemoryMB: 101, DiskMB: 1, Containers: 1}, "insufficient resources: memory"},
		{"disk alone", cells.Resources{MemoryMB: 1, DiskMB: 201, Containers: 1}, "insufficient resources: disk"},
		{"all, in alphabetical order", cells.Resources{MemoryMB: 101, DiskMB: 201, Containers: 4}, "insufficient resources: containers, disk, memory"},
	} {
		l := New(cells.Resources{MemoryMB: 100, DiskMB: 200, Containers: 3})
		err := l.Reserve("i", row.want)
		var refusal *Refusal
		if !errors.As(err, &refusal) || err.Error() != row.text {
			t.Errorf("%s: got %v, want %q", row.name, err, row.text)
		}
		if got := l.Available(); got != l.Total() {
			t.Errorf("%s: a refused reservation left %v available", row.name, got) // L2
		}
	}
}

func TestReserveRejectsNonsense(t *testing.T) {
	t.Parallel()
	l := New(cells.Resources{MemoryMB: 100, DiskMB: 100, Containers: 3})
	if err := l.Reserve("i", cells.Resources{MemoryMB: -1, Containers: 1}); err == nil {
		t.Error("a negative amount was accepted")
	}
	if err := l.Reserve("i", cells.Resources{MemoryMB: 1, Containers: 1}); err != nil {
		t.Fatal(err)
	}
	var refusal *Refusal
	if err := l.Reserve("i", cells.Resources{MemoryMB: 1, Containers: 1}); err == nil || errors.As(err, &refusal) {
		t.Errorf("a second reservation answered %v", err)
	}
}

// TestLedgerAgainstBook compares the ledger with one that adds everything up anew (L1-L4).
func TestLedgerAgainstBook(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		amount := func(label string, most int32) int32 { return rapid.Int32Range(0, most).Draw(t, label) }
		total := cells.Resources{MemoryMB: amount("memory", 100), DiskMB: amount("disk", 100), Containers: amount("containers", 6)}
		l := New(total)
		book := map[lrp.InstanceGUID]cells.Resources{}
		free := func() cells.Resources {
			f := total
			for _, r := range book {
				f = f.Sub(r)
			}
			return f
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			id := lrp.InstanceGUID(fmt.Sprint(rapid.IntRange(0, 7).Draw(t, "id")))
			want := cells.Resources{MemoryMB: amount("m", 50), DiskMB: amount("d", 50), Containers: 1}
			_, holds := book[id]
			switch rapid.SampledFrom([]string{"reserve", "adopt", "release"}).Draw(t, "verb") {
			case "reserve":
				f := free()
				fits := !holds && want.MemoryMB <= max(0, f.MemoryMB) && want.DiskMB <= max(0, f.DiskMB) && want.Containers <= max(0, f.Containers)
				if err := l.Reserve(id, want); (err == nil) != fits {
					t.Fatalf("reserve %v of %v: %v", want, f, err)
				}
				if fits {
					book[id] = want
				}
			case "adopt":
				if err := l.Adopt(id, want); (err == nil) == holds {
					t.Fatalf("adopt: %v", err)
				}
				if !holds {
					book[id] = want
				}
			case "release":
				l.Release(id)
				delete(book, id)
			}
			f := free()
			want = cells.Resources{MemoryMB: max(0, f.MemoryMB), DiskMB: max(0, f.DiskMB), Containers: max(0, f.Containers)}
			if diff := cmp.Diff(want, l.Available()); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

// TestPorts draws random histories and checks P1 and P2, and that a refusal is honest.
func TestPorts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const first, last = 61001, 61008
		p := NewPorts(first, last, first)
		now := time.Unix(1000, 0)
		holder := map[uint16]lrp.InstanceGUID{}
		freed := map[uint16]time.Time{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			id := lrp.InstanceGUID(fmt.Sprint(rapid.IntRange(0, 5).Draw(t, "id")))
			switch rapid.SampledFrom([]string{"take", "free", "wait", "adopt"}).Draw(t, "verb") {
			case "take":
				n := rapid.IntRange(0, 4).Draw(t, "n")
				free := 0
				for port := uint16(first); port <= last; port++ {
					at, was := freed[port]
					if holder[port] == "" && (!was || !now.Before(at.Add(PortQuarantine))) {
						free++
					}
				}
				got, err := p.Take(id, n, now)
				if (err == nil) != (n <= free) {
					t.Fatalf("take %d of %d free: %v", n, free, err)
				}
				for _, port := range got {
					if at, was := freed[port]; holder[port] != "" || was && now.Before(at.Add(PortQuarantine)) || port < first || port > last {
						t.Fatalf("port %d handed out: held by %q, freed at %v", port, holder[port], at)
					}
					holder[port] = id
				}
			case "adopt":
				port := uint16(rapid.IntRange(first, last).Draw(t, "port"))
				other := p.Adopt(id, port)
				if want := holder[port]; other != "" && other != want || other == "" && want != "" && want != id {
					t.Fatalf("adopt %d: other %q, want %q", port, other, want)
				}
				if other == "" {
					holder[port] = id
				}
			case "free":
				p.Free(id, now)
				for port, h := range holder {
					if h == id {
						delete(holder, port)
						freed[port] = now
					}
				}
			case "wait":
				now = now.Add(time.Duration(rapid.IntRange(1, 40).Draw(t, "seconds")) * time.Second)
			}
		}
	})
}

func TestPortsAtTheEndOfTheRange(t *testing.T) {
	t.Parallel()
	p := NewPorts(65534, 65535, 65535)
	now := time.Unix(0, 0)
	for i := range 3 {
		id := lrp.InstanceGUID(fmt.Sprint(i))
		got, err := p.Take(id, 2, now)
		if err != nil || len(got) != 2 {
			t.Fatalf("round %d: %v, %v", i, got, err)
		}
		p.Free(id, now)
		now = now.Add(PortQuarantine)
	}
}
