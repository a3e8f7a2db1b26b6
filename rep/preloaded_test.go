package rep

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/cells"
)

func TestPreloadedProblems(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := Defaults()
	c.RootFSPreloaded = []string{"stack=" + dir, "cflinuxfs4=" + dir + "/=odd", "stack=" + dir, "-x=" + dir, "far=relative", "none"}
	c.RootFSSchemes = []string{"docker", "preloaded"}
	var texts []string
	for _, err := range c.preloadedProblems() {
		texts = append(texts, err.Error())
	}
	for i, want := range []string{
		`rootfs_preloaded has "cflinuxfs4=` + dir + `/=odd": want a path that is there`, `each name once`, `"-x=` + dir + `": want NAME=PATH`,
		`"far=relative": want NAME=PATH with an absolute path`, `"none": want NAME=PATH with an absolute path`, `rootfs_schemes has "preloaded"`,
	} {
		if i >= len(texts) || !strings.Contains(texts[i], want) {
			t.Errorf("problem %d: want %s in %q", i, want, texts)
		}
	}
	c.RootFSPreloaded = make([]string, maxPreloaded+1)
	if errs := c.preloadedProblems(); !strings.Contains(errs[0].Error(), "has 65 entries: want at most 64") {
		t.Error(errs[0])
	}
}

func TestProviders(t *testing.T) {
	t.Parallel()
	c := Defaults()
	c.RootFSSchemes = []string{"docker"}
	c.RootFSPreloaded = []string{"b=/", "a=/"}
	if diff := cmp.Diff(map[string]cells.Provider{"docker": {}, "preloaded": {Names: []string{"a", "b"}}}, c.providers()); diff != "" {
		t.Error(diff)
	}
	if len(c.preloadedProblems()) != 0 {
		t.Error(c.preloadedProblems())
	}
	c.RootFSPreloaded = nil
	if _, ok := c.providers()["preloaded"]; ok {
		t.Error("nothing is preloaded, and yet announced")
	}
}
