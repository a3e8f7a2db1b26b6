package store

import (
	"context"
	"hash/maphash"
	"sync"

	"muster/bbs/lrp"
	"muster/bbs/task"
)

// chunk is a part of a bulk call that goes into one transaction, if it is not too large for that.
type chunk struct {
	requests []*request
	done     chan struct{} // closed when all are answered

	mu       sync.Mutex
	answers  []error
	answered []bool
	left     int
}

func newChunk(requests []*request) *chunk {
	c := &chunk{
		requests: requests, done: make(chan struct{}),
		answers: make([]error, len(requests)), answered: make([]bool, len(requests)), left: len(requests),
	}
	for i, r := range requests {
		r.chunk, r.place = c, i
	}
	return c
}

// reply notes the answer of one item.
func (c *chunk) reply(place int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers[place], c.answered[place] = err, true
	if c.left--; c.left == 0 {
		close(c.done)
	}
}

// collect hands over the answers there are, and missing for those that are not.
func (c *chunk) collect(missing error, each func(place int, err error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, err := range c.answers {
		if !c.answered[i] {
			err = missing
		}
		each(i, err)
	}
}

// DesireAll is Desire for many DesiredLRPs; each has its own answer, and each is remembered under the
// request id for itself: a call that is repeated does what is left of it.
func (s *Store) DesireAll(ctx context.Context, all []lrp.Desired, c Call) []error {
	items := make([]item, len(all))
	for i, d := range all {
		items[i] = item{op: &desireOp{desired: d, epoch: newEpoch}, subject: string(d.Process), weight: 1 + int(d.Instances)}
	}
	return s.bulk(ctx, items, c, true)
}

// ApplyAll is Apply for many events; each has its own answer. The events of a process happen in their
// order.
func (s *Store) ApplyAll(ctx context.Context, evs []lrp.Event, c Call) []error {
	items := make([]item, len(evs))
	for i, ev := range evs {
		if ev.Epoch == "" {
			ev.Epoch = newEpoch()
		}
		items[i] = item{op: &eventOp{ev: ev}, subject: string(ev.Key.Process), weight: 2}
	}
	return s.bulk(ctx, items, c, false)
}

// ApplyTasks is ApplyTask for many events; each has its own answer. The events of a task happen in
// their order.
func (s *Store) ApplyTasks(ctx context.Context, evs []task.Event, c Call) []error {
	items := make([]item, len(evs))
	for i, ev := range evs {
		items[i] = item{op: &taskOp{ev: ev, policy: s.TaskPolicy}, subject: string(ev.GUID), weight: 1}
	}
	return s.bulk(ctx, items, c, false)
}

// item is one part of a bulk call.
type item struct {
	op
	subject string // items with the same subject keep their order
	weight  int    // about how many changes it makes
}

// bulk sends the items of a call in lanes, one for each writer: what is in a lane is written in
// order, chunk after chunk, and while one lane waits for the disk the other one is decided.
func (s *Store) bulk(ctx context.Context, items []item, c Call, remembered bool) []error {
	answers := make([]error, len(items))
	if err := c.validate(); err != nil {
		for i := range answers {
			answers[i] = err
		}
		return answers
	}
	var lanes [Writers][]int
	seed := maphash.MakeSeed()
	for i, it := range items {
		lane := 0
		if len(items) > batchLimit { // fewer fit into one transaction
			lane = int(maphash.String(seed, it.subject) % Writers)
		}
		lanes[lane] = append(lanes[lane], i)
	}
	var wg sync.WaitGroup
	for _, lane := range lanes {
		wg.Go(func() { s.travel(ctx, items, lane, answers, &c, remembered) })
	}
	wg.Wait()
	return answers
}

// travel sends the items of a lane, one chunk at a time.
func (s *Store) travel(ctx context.Context, items []item, lane []int, answers []error, c *Call, remembered bool) {
	for len(lane) > 0 {
		var requests []*request
		weight := 0
		for _, i := range lane[:min(chunkLimit, len(lane))] {
			if weight += items[i].weight; weight > changeLimit && len(requests) > 0 {
				break
			}
			r := &request{ctx: ctx, op: items[i].op, call: c}
			if remembered {
				r.id = requestID{c.RequestID, int32(i)}
			}
			requests = append(requests, r)
		}
		ch := newChunk(requests)
		ch.collect(s.sendChunk(ctx, ch), func(place int, err error) { answers[lane[place]] = err })
		lane = lane[len(requests):]
	}
}

// sendChunk queues a chunk and waits for its answers. It says why some do not come.
func (s *Store) sendChunk(ctx context.Context, c *chunk) error {
	if err := s.handOver(ctx, c); err != nil {
		return err
	}
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closed:
		return ErrClosed
	}
}

// handOver waits until a writer takes a chunk.
func (s *Store) handOver(ctx context.Context, c *chunk) error {
	s.waitingChunks.Add(1)
	defer s.waitingChunks.Add(-1)
	select {
	case s.chunks <- c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closed:
		return ErrClosed
	}
}
