package store

import (
	"reflect"

	"muster/bbs/lrp"
)

// places are the three records of a group, by their presence.
type places [3]*lrp.Actual

func placesOf(g lrp.Group) places {
	return places{lrp.Ordinary: g.Ordinary, lrp.Evacuating: g.Evacuating, lrp.Suspect: g.Suspect}
}

// moveColumns is the number of columns of move_actuals.
const moveColumns = 7

// planMoves plans the records of a group that go to another place and are the same otherwise: their
// rows keep what they hold. It returns what is left to plan place by place. What is in the way of a
// record is deleted before anything moves, and what takes the freed place is inserted after it.
func (p *plan) planMoves(before, after lrp.Group) (was, is places) {
	was, is = placesOf(before), placesOf(after)
	for to, a := range is {
		for from, b := range was {
			if from != to && moved(b, a) && !stays(was[to], is) {
				if p.moveActuals == nil {
					p.moveActuals = make(columns, moveColumns)
				}
				row(p.moveActuals, string(a.Process), a.Index, presenceName(b.Presence), presenceName(a.Presence), a.Since,
					a.Tag.Epoch, int64(a.Tag.Index))
				was[from], is[to] = nil, nil
				break
			}
		}
	}
	return was, is
}

// moved tells whether a record is another one in another place: what a move does not write is equal.
func moved(before, after *lrp.Actual) bool {
	if before == nil || after == nil || before.Instance == "" || before.InstanceKey != after.InstanceKey {
		return false
	}
	same := *before
	same.Presence, same.Since, same.Tag = after.Presence, after.Since, after.Tag
	return reflect.DeepEqual(same, *after)
}

// stays tells whether a record of a group is in some place of another one, so that its row cannot be
// deleted to make room.
func stays(b *lrp.Actual, is places) bool {
	for _, a := range is {
		if moved(b, a) {
			return true
		}
	}
	return false
}
