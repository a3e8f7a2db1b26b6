package containerd

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"muster/cells/engine"
	appimage "muster/integration/apps/image"
)

// liar is a registry whose answers about one object are not what they should be, for as long as lie is set.
type liar struct {
	host string
	lie  atomic.Pointer[func([]byte) []byte]
	of   atomic.Value // a string: what the path of the object ends with
}

func newLiar(t *testing.T) *liar {
	t.Helper()
	l := &liar{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lie, of := l.lie.Load(), l.of.Load()
		if lie == nil || r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, of.(string)) {
			inner.ServeHTTP(w, r)
			return
		}
		honest := httptest.NewRecorder()
		inner.ServeHTTP(honest, r)
		for _, header := range []string{"Content-Type", "Docker-Content-Digest"} {
			w.Header().Set(header, honest.Header().Get(header))
		}
		_, _ = w.Write((*lie)(honest.Body.Bytes()))
	}))
	t.Cleanup(server.Close)
	l.host = strings.TrimPrefix(server.URL, "http://")
	return l
}

// about makes it lie about an object.
func (l *liar) about(end string, lie func([]byte) []byte) {
	l.of.Store(end)
	l.lie.Store(&lie)
}

func (l *liar) push(t *testing.T, tag string, img v1.Image) {
	t.Helper()
	ref, err := name.NewTag(l.host+"/app:"+tag, name.Insecure)
	check(t, err)
	check(t, remote.Write(ref, img))
}

// flip changes one bit in the middle.
func flip(content []byte) []byte {
	content = bytes.Clone(content)
	content[len(content)/2] ^= 1
	return content
}

// A registry that delivers something else than the digests say is told apart from one that is away, nothing of it is
// kept, and the image runs once the registry is honest.
func TestImagesThatAreNotWhatTheirDigestSays(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	e := s.engine(t)
	l := newLiar(t)
	img, err := appimage.FromFiles(probeFiles(t), appConfig)
	check(t, err)
	l.push(t, "v1", img)
	digest, err := img.Digest()
	check(t, err)
	layers, err := img.Layers()
	check(t, err)
	layer, err := layers[len(layers)-1].Digest()
	check(t, err)
	config, err := img.ConfigName()
	check(t, err)
	other, err := appimage.FromFiles(probeFiles(t), appimage.Config{Env: []string{"OTHER=1"}})
	check(t, err)
	l.push(t, "other", other)
	manifest, err := other.RawManifest()
	check(t, err)

	byTag, byDigest := "docker://"+l.host+"/app#v1", "docker://"+l.host+"/app#"+digest.String()
	for what, test := range map[string]struct {
		url, end string
		lie      func([]byte) []byte
		texts    []string
	}{
		"a layer with another bit":  {byTag, layer.String(), flip, []string{layer.String()}},
		"a layer that is too short": {byTag, layer.String(), func(b []byte) []byte { return b[:len(b)/2] }, []string{"short read"}},
		"another config":            {byTag, config.String(), flip, []string{config.String()}},
		"another manifest":          {byDigest, digest.String(), func([]byte) []byte { return manifest }, []string{digest.String()}},
	} {
		l.about(test.end, test.lie)
		t.Log(what)
		s.refused(t, e, probeSpec("lied", test.url, "exit", "0"), engine.ErrImage, append(test.texts, test.url)...)
	}
	l.lie.Store(nil)
	missing := "docker://" + l.host + "/app#sha256:" + strings.Repeat("0", 64)
	s.refused(t, e, probeSpec("missing", missing, "exit", "0"), engine.ErrImage, missing, "check repository and tag")
	for id, url := range map[engine.ID]string{"tag": byTag, "digest": byDigest} {
		if exit := runOnce(t, e, probeSpec(id, url, "exit", "4")); exit.Code != 4 {
			t.Errorf("%s: exit %+v", url, exit)
		}
	}
}

// So it is with archives of the cell.
func TestArchivesThatAreDamaged(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	e := s.engine(t)
	url := s.archive(t, "app.tar", appConfig)
	whole, err := os.ReadFile(strings.TrimPrefix(url, "oci-archive://"))
	check(t, err)
	for name, content := range map[string][]byte{"bit.tar": flip(whole), "short.tar": whole[:len(whole)/2], "empty.tar": nil} {
		path := filepath.Join(s.cfg.ImageDir, name)
		check(t, os.WriteFile(path, content, 0o600))
		s.refused(t, e, probeSpec("damaged", "oci-archive://"+path, "exit", "0"), engine.ErrImage, path)
	}
	if exit := runOnce(t, e, probeSpec("whole", url, "exit", "5")); exit.Code != 5 {
		t.Errorf("exit %+v", exit)
	}
}
