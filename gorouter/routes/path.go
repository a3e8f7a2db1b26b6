package routes

import (
	"bytes"
	"slices"
	"strings"
)

// node is what is registered for a prefix of a path below one host. Nodes are never changed.
type node[P, E any] struct {
	pool     *Pool[P, E]
	children []child[P, E] // sorted by segment
}

type child[P, E any] struct {
	segment string
	node    *node[P, E]
}

// find returns the index of a segment, in any case, or where it would be.
func (n *node[P, E]) find(segment []byte) (int, bool) {
	lo, hi := 0, len(n.children)
	for lo < hi {
		mid := (lo + hi) / 2
		switch c := foldCompare(segment, n.children[mid].segment); {
		case c == 0:
			return mid, true
		case c < 0:
			hi = mid
		default:
			lo = mid + 1
		}
	}
	return lo, false
}

func foldCompare(b []byte, low string) int {
	for i := range min(len(b), len(low)) {
		if c := lower(b[i]); c != low[i] {
			return int(c) - int(low[i])
		}
	}
	return len(b) - len(low)
}

// lookup returns the longest prefix of path that has endpoints or, when none has, the pool of the
// last node reached, which is then empty; nil when that has none.
func (n *node[P, E]) lookup(path []byte) *Pool[P, E] {
	var best *Pool[P, E]
	for {
		if n.pool != nil && len(n.pool.Endpoints) > 0 {
			best = n.pool
		}
		if len(path) == 0 || len(n.children) == 0 {
			break
		}
		segment := path
		if i := bytes.IndexByte(path, '/'); i >= 0 {
			segment, path = path[:i], path[i+1:]
		} else {
			path = nil
		}
		at, ok := n.find(segment)
		if !ok {
			break
		}
		n = n.children[at].node
	}
	if best == nil {
		return n.pool
	}
	return best
}

// at returns the pool of exactly this path.
func (n *node[P, E]) at(path string) *Pool[P, E] {
	for n != nil && path != "" {
		segment, rest, _ := strings.Cut(path, "/")
		at, ok := n.find([]byte(segment))
		if !ok {
			return nil
		}
		n, path = n.children[at].node, rest
	}
	if n == nil {
		return nil
	}
	return n.pool
}

// with returns the node with a pool at path; a nil pool removes it. A node that holds nothing is nil.
func (n *node[P, E]) with(path string, pool *Pool[P, E]) *node[P, E] {
	next := &node[P, E]{}
	if n != nil {
		*next = *n
	}
	if path == "" {
		next.pool = pool
	} else {
		segment, rest, _ := strings.Cut(path, "/")
		at, ok := next.find([]byte(segment))
		next.children = slices.Clone(next.children)
		var old *node[P, E]
		if ok {
			old = next.children[at].node
		}
		switch sub := old.with(rest, pool); {
		case sub != nil && ok:
			next.children[at].node = sub
		case sub != nil:
			next.children = slices.Insert(next.children, at, child[P, E]{segment, sub})
		case ok:
			next.children = slices.Delete(next.children, at, at+1)
		}
	}
	if next.pool == nil && len(next.children) == 0 {
		return nil
	}
	return next
}

func (n *node[P, E]) each(visit func(*Pool[P, E]) bool) bool {
	if n.pool != nil && !visit(n.pool) {
		return false
	}
	for _, c := range n.children {
		if !c.node.each(visit) {
			return false
		}
	}
	return true
}
