package issuer

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// place is where a pair is kept.
type place interface {
	read() (Pair, error)
	write(Pair) error
}

// twoFiles are those that apps know. The key is replaced first; who reads between the two sees a pair that does
// not match, for an instant.
type twoFiles struct{ cert, key string }

func (t twoFiles) read() (p Pair, err error) {
	if p.Chain, err = os.ReadFile(t.cert); err != nil {
		return p, err
	}
	p.Key, err = os.ReadFile(t.key)
	return p, err
}

// write lets anybody read: apps run as any user, and only they can get there.
func (t twoFiles) write(p Pair) error {
	if err := replace(t.key, p.Key, 0o644); err != nil {
		return err
	}
	return replace(t.cert, p.Chain, 0o644)
}

// file holds chain and key together, so that they are replaced at once.
type file struct{ name string }

// read returns the whole text twice: each reader finds its part in it.
func (f file) read() (Pair, error) {
	text, err := os.ReadFile(f.name)
	return Pair{Chain: text, Key: text}, err
}

func (f file) write(p Pair) error {
	return replace(f.name, p.joined(), 0o600)
}

func (p Pair) joined() []byte { return slices.Concat(p.Chain, p.Key) }

// replace writes a file so that readers see the old or the new one.
func replace(name string, text []byte, mode fs.FileMode) error {
	temporary := name + ".new"
	err := os.WriteFile(temporary, text, mode)
	if err == nil {
		err = os.Chmod(temporary, mode) // whatever the umask says
	}
	if err == nil {
		err = os.Rename(temporary, name)
	}
	if err != nil {
		return fmt.Errorf("write instance certificate: %w", err)
	}
	return nil
}
