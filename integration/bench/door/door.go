package main

import (
	"context"

	"muster/bbs/lrp"
	"muster/integration/bench/rig"
	"muster/integration/diego"
	"muster/internal/identity"
)

// startPath is the route of a start.
const startPath = "/v1/actual_lrps/start.r1"

// door is how cells call the routes of Diego.
type door struct{ cells []*diego.Client }

// openDoor makes a client for each cell.
func openDoor(r *rig.Rig, b *rig.Replica, ids []identity.ID) (*door, error) {
	d := &door{}
	for _, id := range ids {
		config, err := r.DiegoTLS(id)
		if err != nil {
			return nil, err
		}
		d.cells = append(d.cells, diego.New(b.Diego, config))
	}
	return d, nil
}

// start reports a start as rig.Start makes it.
func (d *door) start(ctx context.Context, s lrp.Slot, cell int) error {
	_, err := d.cells[cell].Do(ctx, startPath, message(rig.Start(s, rig.Cell(cell))))
	return err
}

// message is the request of a start.
func message(ev lrp.Event) diego.Message {
	key := diego.Message{}.Text(1, string(ev.Key.Process)).Number(2, int64(ev.Key.Index)).Text(3, string(ev.Key.Domain))
	by := diego.Message{}.Text(1, string(ev.By.Instance)).Text(2, string(ev.By.Cell))
	net := diego.Message{}.Text(1, ev.NetInfo.Address)
	for _, p := range ev.NetInfo.Ports {
		net = net.Message(2, diego.Message{}.Number(1, int64(p.ContainerPort)).Number(2, int64(p.HostPort)).
			Number(3, int64(p.ContainerTLSProxyPort)).Number(4, int64(p.HostTLSProxyPort)))
	}
	net = net.Text(3, ev.NetInfo.InstanceAddress)
	m := make(diego.Message, 0, 1280).Message(1, key).Message(2, by).Message(3, net)
	for _, hostname := range ev.InternalRoutes {
		m = m.Message(4, diego.Message{}.Text(1, hostname))
	}
	for name, value := range ev.MetricTags {
		m = m.Entry(5, name, value)
	}
	routable := int64(0)
	if ev.Routable {
		routable = 1
	}
	return m.Present(6, routable).Text(7, ev.AvailabilityZone)
}
