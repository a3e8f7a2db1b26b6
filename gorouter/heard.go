package gorouter

import (
	"hash/maphash"
	"time"

	"muster/gorouter/internal/proxy"
)

// maxHeard bounds the messages that one generation remembers.
const maxHeard = 1 << 20

// heard remembers what register messages led to. Nearly all that arrive say, byte for byte, what was said
// seconds before; such a message is not decoded again. Messages are forgotten when they were not heard for
// a while: there are two generations, and what is heard moves to the young one.
type heard struct {
	seeds      [2]maphash.Seed
	young, old map[digest][]registration
	turnEvery  time.Duration
	turnAt     time.Time
}

// digest stands for the bytes of a message. Its 128 bits are keyed at random, so nobody can make two
// messages meet.
type digest [2]uint64

// registration is an endpoint under a URI.
type registration struct {
	uri      string
	endpoint *proxy.Endpoint
}

// newHeard returns an empty memory that holds what was heard within the last turnEvery, and perhaps twice that.
func newHeard(turnEvery time.Duration) heard {
	return heard{
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		young: map[digest][]registration{}, turnEvery: turnEvery,
	}
}

func (h *heard) digest(payload []byte) digest {
	return digest{maphash.Bytes(h.seeds[0], payload), maphash.Bytes(h.seeds[1], payload)}
}

// refresh does what taking in the message again would do, if that is no more than refreshing what it has
// registered; else it returns false, and the message must be taken in.
func (h *heard) refresh(t *proxy.Table, id digest, now time.Time) bool {
	h.turn(now)
	led, young := h.young[id]
	if !young {
		var known bool
		if led, known = h.old[id]; !known {
			return false
		}
	}
	for _, r := range led {
		if !t.Refresh(r.uri, r.endpoint, now) {
			return false
		}
	}
	if !young {
		h.young[id] = led
	}
	return true
}

// add remembers a message that was taken in.
func (h *heard) add(id digest, led []registration) { h.young[id] = led }

// turn begins a generation when it is time.
func (h *heard) turn(now time.Time) {
	if now.Before(h.turnAt) && len(h.young) < maxHeard {
		return
	}
	h.young, h.old = make(map[digest][]registration, len(h.young)), h.young
	h.turnAt = now.Add(h.turnEvery)
}
