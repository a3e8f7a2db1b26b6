package ledger

import (
	"fmt"
	"time"

	"muster/bbs/lrp"
)

// PortQuarantine is how long a freed port is left alone: connections to the old instance may still
// be open, and routers may still know the port.
const PortQuarantine = 60 * time.Second

// Ports hands out host ports from a range, in rotation, so that a freed port comes round late.
// Not for concurrent use.
type Ports struct {
	first, last uint16
	next        uint16
	holder      map[uint16]lrp.InstanceGUID
	freeAfter   map[uint16]time.Time
}

// NewPorts returns an allocator for the inclusive range; next, of the range, is handed out first.
func NewPorts(first, last, next uint16) *Ports {
	return &Ports{
		first: first, last: last, next: next,
		holder: map[uint16]lrp.InstanceGUID{}, freeAfter: map[uint16]time.Time{},
	}
}

// Take gives n ports to an instance, or none and an error.
func (p *Ports) Take(id lrp.InstanceGUID, n int, now time.Time) ([]uint16, error) {
	if n == 0 {
		return nil, nil
	}
	size := int(p.last) - int(p.first) + 1
	var ports []uint16
	port := p.next
	for range size {
		if p.isFree(port, now) {
			ports = append(ports, port)
		}
		port = p.after(port)
		if len(ports) == n {
			p.next = port
			for _, port := range ports {
				p.holder[port] = id
				delete(p.freeAfter, port)
			}
			return ports, nil
		}
	}
	return nil, fmt.Errorf("%d host ports wanted, %d of %d in %d-%d are free: widen port_range", n, len(ports), size, p.first, p.last)
}

func (p *Ports) isFree(port uint16, now time.Time) bool {
	if _, held := p.holder[port]; held {
		return false
	}
	return !now.Before(p.freeAfter[port])
}

func (p *Ports) after(port uint16) uint16 {
	if port >= p.last {
		return p.first
	}
	return port + 1
}

// Adopt marks a port as held by an existing container, also one outside of the range. It returns who
// holds the port already, or nobody.
func (p *Ports) Adopt(id lrp.InstanceGUID, port uint16) (other lrp.InstanceGUID) {
	if other, held := p.holder[port]; held && other != id {
		return other
	}
	p.holder[port] = id
	return ""
}

// Free puts all ports of an instance into quarantine.
func (p *Ports) Free(id lrp.InstanceGUID, now time.Time) {
	for port, holder := range p.holder {
		if holder == id {
			delete(p.holder, port)
			p.freeAfter[port] = now.Add(PortQuarantine)
		}
	}
}
