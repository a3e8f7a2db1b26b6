package hub

import (
	"context"
	"time"
)

// pacer wakes watches that have something to take. One message to a watch costs the same whether it
// carries one change or fifty, so when many watches have something again and again, the time between
// two rounds grows with their number, and each finds more. With few there is no delay worth naming.
//
// There are two: one for watches that see everything, which are few and are to know at once, and one
// for the others, of which there may be thousands.
type pacer struct {
	due  chan struct{} // capacity 1: waiting is not empty
	now  func() time.Time
	next time.Time // when the next round may be
	// perWake is how much later that is for each watch that is woken, and most how much at most.
	perWake, most time.Duration

	waiting []*Watch // each once, in no order
}

func newPacer(perWake, most time.Duration) *pacer {
	return &pacer{due: make(chan struct{}, 1), now: time.Now, perWake: perWake, most: most}
}

// add notes that a watch has something to take. The caller holds the lock of the hub.
func (p *pacer) add(w *Watch) {
	if !w.waiting {
		w.waiting = true
		p.waiting = append(p.waiting, w)
	}
}

// hand wakes the watches that wait, if it is time and they are few; otherwise run does it. So the
// writer, in whose goroutine this runs, never does much here. The caller holds the lock of the hub.
func (p *pacer) hand() {
	switch {
	case len(p.waiting) == 0:
	case len(p.waiting) <= handAtOnce && !p.now().Before(p.next):
		p.round()
	default:
		signal(p.due)
	}
}

// round wakes all that wait. The caller holds the lock of the hub.
func (p *pacer) round() {
	for i, w := range p.waiting {
		w.waiting = false
		w.wake()
		p.waiting[i] = nil
	}
	p.next = p.now().Add(min(p.most, time.Duration(len(p.waiting))*p.perWake))
	p.waiting = p.waiting[:0]
}

// run makes the rounds that hand leaves to it, until ctx ends.
func (p *pacer) run(ctx context.Context, h *Hub) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.due:
		}
		h.mu.Lock()
		wait := p.next.Sub(p.now())
		h.mu.Unlock()
		t.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		h.mu.Lock()
		p.round()
		h.mu.Unlock()
	}
}

// signal puts a token into a channel of capacity 1, unless there is one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
