package archive

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
)

// Directories that an archive leaves out take room and count as entries, like those that it names.
func TestImpliedDirectoriesCount(t *testing.T) {
	t.Parallel()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var asked int64
	room := func(n int64) error { asked += n; return nil }
	src := tarOf(t, file(strings.Repeat("d/", 10)+"a", "x"), file(strings.Repeat("d/", 10)+"b", "x"))
	if err := Read(context.Background(), bytes.NewReader(src), NewTree(root, Owner{}, room), t.TempDir(), room); err != nil || asked != (10+2*2)*blockBytes {
		t.Errorf("asked for %d bytes, %v", asked, err)
	}
}

func TestDepth(t *testing.T) {
	t.Parallel()
	deep := func(n int) string { return strings.Repeat("d/", n) + "a" }
	if _, err := local(deep(MaxDepth)); err != nil {
		t.Error(err)
	}
	if _, err := local(deep(MaxDepth + 1)); err == nil || !strings.Contains(err.Error(), "in 257 directories: at most 256") {
		t.Errorf("got %v", err)
	}
}

func TestTooManyImpliedDirectories(t *testing.T) {
	t.Parallel()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	tree := NewTree(root, Owner{}, unlimited)
	tree.made = MaxEntries - 1
	if err := tree.Entry(Entry{Name: "a/b"}, strings.NewReader("")); err != nil {
		t.Error(err)
	}
	var wrong *Error
	if err := tree.Entry(Entry{Name: "c/d"}, strings.NewReader("")); !errors.As(err, &wrong) || !strings.Contains(err.Error(), "leaves out more than 250000") {
		t.Errorf("got %v", err)
	}
}
