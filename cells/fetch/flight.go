package fetch

import (
	"context"
	"fmt"

	"muster/cells/fetch/cache"
)

// flight is a download that is under way. All who ask for the same meanwhile wait for it; it goes on while
// one of them does.
type flight struct {
	asked  string // what was asked, credentials included: only who asks the same shares the answer
	user   cache.User
	cancel context.CancelFunc
	done   chan struct{} // closed with the fields below set

	it     *item // used by the flight while anybody waits
	cached bool
	err    error

	waiting int // guarded by Fetcher.mu
}

// acquire returns a download, which the user uses from then on.
func (f *Fetcher) acquire(ctx context.Context, j job, user cache.User) (*item, bool, error) {
	for {
		fl, mine, err := f.board(j)
		if err != nil {
			return nil, false, err
		}
		select {
		case <-fl.done:
		case <-ctx.Done():
		}
		if mine {
			return f.leave(ctx, j.id, fl, user)
		}
		if ctx.Err() != nil {
			return nil, false, context.Cause(ctx)
		}
	}
}

// board joins the flight for a download, or starts it. When one for the same content was asked for in
// another way, mine is false: its end has to be waited for.
func (f *Fetcher) board(j job) (fl *flight, mine bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.life.Err() != nil {
		return nil, false, errClosed
	}
	fl = f.flights[j.id]
	if fl == nil {
		fl = f.depart(j)
	}
	if fl.asked != j.asked {
		return fl, false, nil
	}
	fl.waiting++
	return fl, true, nil
}

// depart starts a flight. Under the lock.
func (f *Fetcher) depart(j job) *flight {
	ctx, cancel := context.WithCancel(f.life)
	f.last++
	fl := &flight{asked: j.asked, user: cache.User(fmt.Sprintf("flight-%d", f.last)), cancel: cancel, done: make(chan struct{})}
	f.flights[j.id] = fl
	f.running.Add(1)
	go func() {
		defer f.running.Done()
		it, cached, err := f.download(ctx, j, fl.user)
		f.arrive(j.id, fl, it, cached, err)
	}()
	return fl
}

// arrive hands the result of a flight to those who wait.
func (f *Fetcher) arrive(id string, fl *flight, it *item, cached bool, err error) {
	f.mu.Lock()
	fl.it, fl.cached, fl.err = it, cached, err
	if f.flights[id] == fl {
		delete(f.flights, id)
	}
	close(fl.done)
	fl.cancel()
	unwanted := fl.waiting == 0
	f.mu.Unlock()
	if unwanted {
		f.drop(fl)
	}
}

// leave takes the result of a flight, or gives up waiting. The last one to leave ends it.
func (f *Fetcher) leave(ctx context.Context, id string, fl *flight, user cache.User) (it *item, cached bool, err error) {
	f.mu.Lock()
	arrived := false
	select {
	case <-fl.done:
		arrived = true
	default:
	}
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case fl.err != nil:
		err = fl.err
	default:
		it, cached = fl.it, fl.cached
		f.store.use(it, user)
	}
	fl.waiting--
	last := fl.waiting == 0
	if last && !arrived {
		fl.cancel()
		if f.flights[id] == fl {
			delete(f.flights, id)
		}
	}
	f.mu.Unlock()
	if last && arrived {
		f.drop(fl)
	}
	return it, cached, err
}

// drop ends the use of a download by its flight.
func (f *Fetcher) drop(fl *flight) {
	if fl.it != nil {
		f.store.release(fl.it, fl.user)
	}
}
