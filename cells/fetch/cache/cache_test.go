package cache

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var begin = time.Unix(1_000_000, 0)

func at(second int) time.Time { return begin.Add(time.Duration(second) * time.Second) }

// put adds a complete entry that nobody uses.
func put(t *testing.T, c *Cache, k Key, size int64, used int) {
	t.Helper()
	if _, err := c.Reserve(k, size); err != nil {
		t.Fatal(err)
	}
	c.Commit(k, size, "first", at(used))
	c.Release(k, "first")
}

func TestLeastRecentlyUsedGoes(t *testing.T) {
	t.Parallel()
	c := New(100)
	put(t, c, "a", 40, 1)
	put(t, c, "b", 40, 2)
	c.Use("a", "u", at(3))
	c.Release("a", "u")
	gone, err := c.Reserve("c", 50)
	if diff := cmp.Diff([]Key{"b"}, gone); err != nil || diff != "" { // C4
		t.Errorf("%v %s", err, diff)
	}
}

func TestWhatIsInUseStays(t *testing.T) {
	t.Parallel()
	c := New(100)
	put(t, c, "a", 40, 1)
	put(t, c, "b", 40, 2)
	c.Use("a", "u", at(1))
	before := c.Usage()
	_, err := c.Reserve("c", 61)
	var full *Full
	if !errors.As(err, &full) || full.Error() != "61 bytes do not fit: 40 of the 100 bytes of the cache are in use" {
		t.Errorf("got %v", err) // C3
	}
	if diff := cmp.Diff(before, c.Usage()); diff != "" {
		t.Error(diff) // C5
	}
	if gone, err := c.Reserve("c", 60); err != nil || !slices.Equal(gone, []Key{"b"}) {
		t.Errorf("got %v, %v", gone, err)
	}
}

func TestForgottenGoesWithItsLastUser(t *testing.T) {
	t.Parallel()
	c := New(100)
	put(t, c, "a", 40, 1)
	c.Use("a", "u", at(2))
	c.Use("a", "v", at(2))
	if gone := c.Forget("a"); gone != nil {
		t.Errorf("%v went although it is used", gone) // C6
	}
	if gone := c.ReleaseAll("u"); gone != nil {
		t.Errorf("%v went with its first user", gone)
	}
	if !c.Use("a", "w", at(3)) {
		t.Error("a forgotten entry cannot be used")
	}
	c.Release("a", "w")
	if gone := c.Release("a", "v"); !slices.Equal(gone, []Key{"a"}) {
		t.Errorf("%v went with its last user", gone)
	}
	if c.Use("a", "u", at(4)) || c.Usage().Bytes != 0 {
		t.Error("it is still there")
	}
}

func TestTrimAfterRestore(t *testing.T) {
	t.Parallel()
	c := New(100)
	c.Restore("a", 60, at(2))
	c.Restore("b", 60, at(1))
	c.Restore("c", 60, at(3))
	c.Use("b", "u", at(1))
	if gone := c.Trim(); !slices.Equal(gone, []Key{"a", "c"}) {
		t.Errorf("%v went", gone)
	}
}

// model says the same in the plainest way.
type model struct {
	size      map[Key]int64
	used      map[Key]time.Time
	users     map[Key]map[User]bool
	underWay  map[Key]bool
	forgotten map[Key]bool
}

func (m *model) total() (n int64) {
	for _, size := range m.size {
		n += size
	}
	return n
}

func (m *model) drop(k Key) {
	delete(m.size, k)
	delete(m.used, k)
	delete(m.users, k)
	delete(m.underWay, k)
	delete(m.forgotten, k)
}

// oldest returns the least recently used entry that may go.
func (m *model) oldest() (Key, bool) {
	var found Key
	for k := range m.size {
		if m.underWay[k] || len(m.users[k]) > 0 {
			continue
		}
		if found == "" || m.used[k].Before(m.used[found]) || m.used[k].Equal(m.used[found]) && k < found {
			found = k
		}
	}
	return found, found != ""
}

// settle drops what was forgotten and is not used.
func (m *model) settle() (gone []Key) {
	for k := range m.size {
		if m.forgotten[k] && len(m.users[k]) == 0 {
			gone = append(gone, k)
		}
	}
	for _, k := range gone {
		m.drop(k)
	}
	slices.Sort(gone)
	return gone
}

func (m *model) fits(k Key, n, bound int64) (gone []Key, fits bool) {
	total, left := m.total(), &model{size: map[Key]int64{}, used: m.used, users: m.users, underWay: m.underWay}
	for k, size := range m.size {
		left.size[k] = size
	}
	for total+n > bound {
		old, ok := left.oldest()
		if !ok {
			return nil, false
		}
		total -= left.size[old]
		delete(left.size, old)
		gone = append(gone, old)
	}
	return gone, true
}

// TestCacheAgainstModel draws histories (C1 to C6).
func TestCacheAgainstModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const bound = 100
		c := New(bound)
		m := &model{map[Key]int64{}, map[Key]time.Time{}, map[Key]map[User]bool{}, map[Key]bool{}, map[Key]bool{}}
		now := 0
		same := func(want, got []Key) {
			if len(want)+len(got) > 0 && !slices.Equal(want, got) {
				t.Fatalf("removed are %v, want %v", got, want)
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			k := Key(fmt.Sprint(rapid.IntRange(0, 5).Draw(t, "key")))
			u := User(fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "user")))
			now += rapid.IntRange(0, 2).Draw(t, "wait")
			_, there := m.size[k]
			complete := there && !m.underWay[k]
			switch rapid.SampledFrom([]string{"reserve", "commit", "use", "release", "releaseAll", "forget"}).Draw(t, "verb") {
			case "reserve":
				n := rapid.Int64Range(0, 60).Draw(t, "n")
				if complete {
					continue
				}
				want, fits := m.fits(k, n, bound)
				got, err := c.Reserve(k, n)
				if (err == nil) != fits {
					t.Fatalf("reserve %d: %v", n, err)
				}
				same(want, got)
				if fits {
					for _, old := range want {
						m.drop(old)
					}
					m.size[k] += n
					m.underWay[k] = true
				}
			case "commit":
				if !m.underWay[k] {
					continue
				}
				size := rapid.Int64Range(0, m.size[k]).Draw(t, "size")
				c.Commit(k, size, u, at(now))
				delete(m.underWay, k)
				m.size[k], m.used[k], m.users[k] = size, at(now), map[User]bool{u: true}
			case "use":
				if got := c.Use(k, u, at(now)); got != complete {
					t.Fatalf("use %s: %v", k, got)
				}
				if complete {
					m.used[k], m.users[k][u] = at(now), true
				}
			case "release":
				delete(m.users[k], u)
				same(m.settle(), c.Release(k, u))
			case "releaseAll":
				for _, users := range m.users {
					delete(users, u)
				}
				same(m.settle(), c.ReleaseAll(u))
			case "forget":
				if there {
					m.forgotten[k] = true
				}
				same(m.settle(), c.Forget(k))
			}
			usage := Usage{Bytes: m.total(), Most: bound}
			for k, size := range m.size {
				if !m.underWay[k] {
					usage.Entries++
				}
				if m.underWay[k] || len(m.users[k]) > 0 {
					usage.Held += size
				}
			}
			if diff := cmp.Diff(usage, c.Usage()); diff != "" || usage.Bytes > bound {
				t.Fatal(diff, usage)
			}
		}
	})
}
