package image

import (
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	build "muster/integration/apps/image"
)

// entry is an image in an index, said to be for a platform such as linux/amd64.
func entry(t *testing.T, platform string) mutate.IndexAddendum {
	t.Helper()
	os, arch, _ := strings.Cut(platform, "/")
	img, err := build.FromFiles(build.Base(), build.Config{Architecture: arch, Command: []string{"/bin/" + arch}})
	if err != nil {
		t.Fatal(err)
	}
	return mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: os, Architecture: arch}}}
}

func onDisk(t *testing.T, index v1.ImageIndex) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := layout.Write(dir, index); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestIndexes(t *testing.T) {
	t.Parallel()
	amd, attestation := entry(t, "linux/amd64"), entry(t, "unknown/unknown")
	index := func(list ...mutate.IndexAddendum) v1.ImageIndex { return mutate.AppendManifests(empty.Index, list...) }
	nested := func(depth int) v1.ImageIndex {
		in := index(amd)
		for range depth {
			in = index(mutate.IndexAddendum{Add: in})
		}
		return in
	}
	// An image whose own configuration would do, said to be for another platform.
	misnamed := entry(t, "linux/amd64")
	misnamed.Platform = &v1.Platform{OS: "linux", Architecture: "arm64"}
	for what, tc := range map[string]struct {
		index v1.ImageIndex
		want  string // of the error; empty: it is found
	}{
		"with an attestation":  {index(attestation, amd), ""},
		"only an attestation":  {index(attestation), "its index.json lists no image"},
		"index within":         {nested(2), ""},
		"too many within":      {nested(6), "more than 4 deep"},
		"for another":          {index(misnamed), "is for linux/arm64: build or pick one for linux/amd64"},
		"for another and ours": {index(misnamed, amd), ""},
	} {
		img, err := Open(t.Context(), onDisk(t, tc.index))
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: %v", what, err)
		case tc.want == "" && img.Config.Cmd[0] != "/bin/amd64":
			t.Errorf("%s: found %v", what, img.Config.Cmd)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: %v, want it to say %q", what, err, tc.want)
		}
	}
}

func TestIndexOfARegistry(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	ref, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/team/app:arms")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, mutate.AppendManifests(empty.Index, entry(t, "linux/arm64"), entry(t, "linux/s390x"))); err != nil {
		t.Fatal(err)
	}
	var wrong *WrongPlatform
	if _, err := Open(t.Context(), ref.String()); !errors.As(err, &wrong) || !strings.Contains(err.Error(), "is for linux/arm64, linux/s390x: build or pick") {
		t.Errorf("error %v, want one that lists the platforms", err)
	}
}

func TestDockerURLs(t *testing.T) {
	t.Parallel()
	digest := "sha256:" + strings.Repeat("0", 64)
	for text, want := range map[string]string{
		"busybox":                      "docker:///library/busybox#latest",
		"team/app:v1":                  "docker:///team/app#v1",
		"registry.test:5000/a/b/c:v2":  "docker://registry.test:5000/a/b/c#v2",
		"registry.test/app@" + digest:  "docker://registry.test/app@" + digest,
		"index.docker.io/library/x:v1": "docker:///library/x#v1",
	} {
		ref, err := name.ParseReference(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := dockerURL(ref); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}
