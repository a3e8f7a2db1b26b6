package engine

import (
	"fmt"
	"strings"
	"testing"
)

func TestCheckMounts(t *testing.T) {
	t.Parallel()
	many := make([]Mount, MaxMounts)
	for n := range many {
		many[n] = Mount{Source: "/a", Target: fmt.Sprintf("/m/%d", n)}
	}
	for _, test := range []struct {
		name   string
		mounts []Mount
		want   string // in the error; empty: none
	}{
		{"as many as can be", many, ""},
		{"too many", append(many, Mount{Source: "/a", Target: "/b"}), "257 of them, more than 256"},
		{"in each other", []Mount{{Source: "/a", Target: "/m"}, {Source: "/b", Target: "/m/in"}}, ""},
		{"beside a place of the engine", []Mount{{Source: "/a", Target: "/etc/hosts.d"}, {Source: "/a", Target: "/devices"}}, ""},
		{"twice the same", []Mount{{Source: "/a", Target: "/m"}, {Source: "/b", Target: "/m"}}, `mounts[1]: target "/m" is that of mounts[0]`},
		{"relative source", []Mount{{Source: "a", Target: "/m"}}, `mounts[0]: source "a"`},
		{"relative target", []Mount{{Source: "/a", Target: "m"}}, `target "m"`},
		{"root", []Mount{{Source: "/a", Target: "/"}}, `target "/"`},
		{"upwards", []Mount{{Source: "/a", Target: "/m/../proc"}}, `target "/m/../proc"`},
		{"in a place of the engine", []Mount{{Source: "/a", Target: "/dev/shm"}}, "/dev belongs to the cell"},
		{"around a place of the engine", []Mount{{Source: "/a", Target: "/etc"}}, "/etc/hosts belongs to the cell"},
	} {
		switch err := CheckMounts(test.mounts); {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

func TestMounted(t *testing.T) {
	t.Parallel()
	mounts := []Mount{{Source: "/a", Target: "/m"}, {Source: "/b", Target: "/m/in", Writable: true}}
	for name, want := range map[string]string{"/m": "/a", "/m/x/y": "/a/x/y", "/m/in/z": "/b/z", "/m/inner": "/a/inner", "/other": ""} {
		got, m, ok := Mounted(mounts, name)
		if got != want || ok != (want != "") || m.Writable != strings.HasPrefix(want, "/b") {
			t.Errorf("%s: %q %+v %v, want %q", name, got, m, ok, want)
		}
	}
}
