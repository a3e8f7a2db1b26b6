package auction

// counts maps small numbers to how often they occur: cells, or zones, to instances of a process. It is an
// open-addressed table, since a map for each process costs several times the memory and time.
type counts struct {
	slots []count // a power of two, or none
	used  int     // slots with a key, also those that count 0
}

// count is a slot: the key plus one, so that the zero value is empty, and the number.
type count struct{ key, n int32 }

// minSlots is how many slots the smallest table has.
const minSlots = 4

// find returns the slot of a key, or the empty one where it would be.
func (c *counts) find(key int32) int {
	mask := uint32(len(c.slots) - 1)
	i := uint32(key) * 0x9e3779b1 >> 7 & mask
	for c.slots[i].key != key+1 && c.slots[i].key != 0 {
		i = (i + 1) & mask
	}
	return int(i)
}

// of returns the number of a key.
func (c *counts) of(key int32) int32 {
	if len(c.slots) == 0 {
		return 0
	}
	return c.slots[c.find(key)].n
}

// add changes the number of a key and returns the new one.
func (c *counts) add(key, by int32) int32 {
	if (c.used+1)*4 > len(c.slots)*3 {
		c.grow()
	}
	i := c.find(key)
	if c.slots[i].key == 0 {
		c.slots[i].key = key + 1
		c.used++
	}
	c.slots[i].n += by
	return c.slots[i].n
}

// grow makes room, and drops what counts 0.
func (c *counts) grow() {
	live := 0
	for _, s := range c.slots {
		if s.n != 0 {
			live++
		}
	}
	size := minSlots
	for (live+1)*4 > size*3 {
		size *= 2
	}
	old := c.slots
	*c = counts{slots: make([]count, size), used: live}
	for _, s := range old {
		if s.n != 0 {
			c.slots[c.find(s.key-1)] = s
		}
	}
}
