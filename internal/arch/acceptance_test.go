package arch

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// acceptance are the lines of bbs reference §19, by their areas.
var acceptance = []string{
	"guids", "annotation", "duplicates", "missing", "required fields", "instances", "update", "remove while claimed",
	"retire", "lists", "domains", "tasks", "callback", "placement error", "crash", "crash back-off", "container vanishes",
	"task expiry, cell loss", "cell loss", "promote", "late helpers", "evacuation", "events", "lock", "encryption", "tracing",
}

// TestAcceptanceIsNamed looks that each line of the acceptance list has a test that says so in its comment,
// as §19 "area", and that no comment names a line that is not there.
func TestAcceptanceIsNamed(t *testing.T) {
	t.Parallel()
	named := map[string][]string{}
	const self = "../../internal/arch/acceptance_test.go"
	mark := regexp.MustCompile(`§19 "([^"\n]+)"`)
	err := filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && strings.HasPrefix(e.Name(), ".") && len(e.Name()) > 2:
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go") || path == self:
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(strings.TrimSpace(line), "//") {
				continue
			}
			for _, m := range mark.FindAllStringSubmatch(line, -1) {
				named[m[1]] = append(named[m[1]], path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, area := range acceptance {
		if len(named[area]) == 0 {
			t.Errorf("no test names §19 %q in its comment", area)
		}
	}
	for area, where := range named {
		if !slices.Contains(acceptance, area) {
			t.Errorf("%q name §19 %q, which is no line of it", where, area)
		}
	}
}
