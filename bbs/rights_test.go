package bbs

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/cells"
	"muster/internal/identity"
	"muster/internal/pgtest"
)

// What the table of rights says holds for real calls and streams, and secrets stay where they belong.
func TestRightsOnTheWire(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	address, _ := w.replica(w.config())
	client, cell := w.client(address, identity.Client), w.cell(address, "c1")
	ctx := t.Context()
	must(t, client.Desire(ctx, app("p", 1)))
	by := lrp.InstanceKey{Instance: "i", Cell: "c2"}
	must(t, w.cell(address, "c2").Apply(ctx, claim("p", 0, by)))
	watch := func(c *bbsclient.Client, f bbsclient.WatchFilter) error {
		stream, err := c.Watch(ctx, 0, f)
		if err == nil {
			_, _, err = stream.Recv()
		}
		return err
	}
	for name, err := range map[string]error{
		"a cell desires":                    cell.Desire(ctx, app("q", 1)),
		"a cell reports for another":        cell.Apply(ctx, start("p", 0, by)),
		"a cell lives for another":          cell.Heartbeat(ctx, cells.Presence{Cell: "c2"}, time.Second),
		"a cell watches everybody":          watch(cell, bbsclient.WatchFilter{}),
		"a cell watches another":            watch(cell, bbsclient.WatchFilter{Cell: "c2"}),
		"a cell reads what others run":      second(cell.Desired(ctx, "p")),
		"a cell asks for what is not there": second(cell.Desired(ctx, "absent")),
		"a router desires":                  w.client(address, identity.RouteEmitter).Desire(ctx, app("q", 1)),
		"a gorouter watches":                watch(w.client(address, identity.Gorouter), bbsclient.WatchFilter{}),
	} {
		if status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v, want %v", name, err, codes.PermissionDenied)
		}
	}
	list, _, err := client.DesiredList(ctx, bbsclient.DesiredFilter{})
	if err != nil || len(list) != 1 || list[0].RunInfo.ImagePassword != "" {
		t.Errorf("the client lists %+v (%v), want the record without its password", list, err)
	}
}

func second[T any](_ T, err error) error { return err }

// Whoever follows lists again every so often, and not because something failed.
func TestFollowersListAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	address, _ := w.replica(w.config())
	client := w.client(address, identity.Client)
	f := w.follow(client, bbsclient.FollowOptions{Relist: 20 * time.Millisecond})
	f.until(t, "a third list", func(f *follower) bool { return f.lists >= 3 })
	must(t, client.Desire(t.Context(), app("p", 0)))
	f.until(t, "a fourth list", func(f *follower) bool { return f.lists >= 4 })
}
