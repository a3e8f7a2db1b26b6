package auction

// scan finds the cell for a need by looking at every cell: the rule itself, without cleverness. It
// returns nil and what it saw when there is none.
func (p *pool) scan(n need) (best *cell, score float64, seen Seen) {
	seen.Cells = len(p.cells)
	for _, c := range p.cells {
		switch c.offers.match(n) {
		case failsRootFS:
			seen.RootFS++
			continue
		case failsDrivers:
			seen.Drivers++
			continue
		case failsTags:
			seen.Tags++
			continue
		}
		if l := c.lacks(n); l.any() {
			seen.add(l)
			continue
		}
		if n.avoids(c.id) {
			seen.Avoided++
			continue
		}
		s := c.score(n, p.weights)
		if best == nil || better(n, c, s, best, score) {
			best, score = c, s
		}
	}
	return best, score, seen
}

// better tells whether a wins against b. Comparing the zones first, cell by cell, is the same as
// visiting the zones from the emptiest to the fullest and stopping at the first with room.
func better(n need, a *cell, scoreA float64, b *cell, scoreB float64) bool {
	if x, y := a.zone.instances[n.process], b.zone.instances[n.process]; x != y {
		return x < y
	}
	if scoreA != scoreB {
		return scoreA < scoreB
	}
	return a.id < b.id
}

func (s *Seen) add(l lacks) {
	if l.memory {
		s.Memory++
	}
	if l.disk {
		s.Disk++
	}
	if l.containers {
		s.Containers++
	}
	s.Short++
}
