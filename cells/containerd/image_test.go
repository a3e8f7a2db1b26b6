package containerd

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"muster/bbs/lrp"
	"muster/cells/engine"
	"muster/cells/step"
	appimage "muster/integration/apps/image"
)

// probeSpec returns a container that runs the probe.
func probeSpec(id engine.ID, rootFS string, args ...string) engine.Spec {
	return engine.Spec{ID: id, RootFS: rootFS, Program: step.Program{
		Action:   &lrp.Action{Run: &lrp.RunAction{Path: "/bin/probe", Args: args, User: "app"}},
		Graceful: time.Minute, LogBytes: -1,
	}}
}

// runOnce makes a container, starts it, waits for its end and destroys it.
func runOnce(t *testing.T, e *Engine, spec engine.Spec) engine.Exit {
	t.Helper()
	_, err := e.Create(t.Context(), spec)
	check(t, err)
	check(t, e.Start(t.Context(), spec.ID))
	exit, err := e.Wait(t.Context(), spec.ID)
	check(t, err)
	check(t, e.Destroy(t.Context(), spec.ID))
	return exit
}

// refused checks that a container is refused for a reason, in words that help, and leaves nothing.
func (s *stack) refused(t *testing.T, e *Engine, spec engine.Spec, why error, texts ...string) {
	t.Helper()
	_, err := e.Create(t.Context(), spec)
	if !errors.Is(err, why) {
		t.Fatalf("got %v, want %v", err, why)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q is not named in: %v", text, err)
		}
	}
	if left := s.traces(t); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestImageOfAnotherPlatform(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	e := s.engine(t)
	url := s.archive(t, "arm.tar", appimage.Config{Architecture: "arm64"})
	s.refused(t, e, probeSpec("arm", url, "exit", "0"), engine.ErrImage, url, "no linux/amd64 variant", "it has linux/arm64")

	both := filepath.Join(s.cfg.ImageDir, "both.tar")
	amd, err := appimage.FromFiles(probeFiles(t), appimage.Config{})
	check(t, err)
	arm, err := appimage.FromFiles(appimage.Base(), appimage.Config{Architecture: "arm64"})
	check(t, err)
	check(t, appimage.WriteArchive(both, arm, amd))
	if exit := runOnce(t, e, probeSpec("both", "oci-archive://"+both, "exit", "6")); exit.Code != 6 {
		t.Errorf("exit %+v of the variant for this machine", exit)
	}
}

func TestImagePathsStayBelowTheImageDir(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	e := s.engine(t)
	inside := s.archive(t, "app.tar", appConfig)
	path := strings.TrimPrefix(inside, "oci-archive://")
	outside := filepath.Join(s.dir, "outside.tar")
	check(t, os.Rename(path, outside))
	check(t, os.Symlink(outside, filepath.Join(s.cfg.ImageDir, "link.tar")))
	check(t, os.Symlink("../..", filepath.Join(s.cfg.ImageDir, "up")))
	for _, path := range []string{
		outside, filepath.Join(s.cfg.ImageDir, "link.tar"), s.cfg.ImageDir + "/../outside.tar", filepath.Join(s.cfg.ImageDir, "up", filepath.Base(s.dir), "outside.tar"),
	} {
		s.refused(t, e, probeSpec("outside", "oci-archive://"+path, "exit", "0"), engine.ErrImage, path)
		s.refused(t, e, probeSpec("outside", "oci-layout://"+path, "exit", "0"), engine.ErrImage, path)
	}
	check(t, os.WriteFile(filepath.Join(s.cfg.ImageDir, "junk.tar"), []byte("this is no archive"), 0o600))
	s.refused(t, e, probeSpec("junk", "oci-archive://"+filepath.Join(s.cfg.ImageDir, "junk.tar"), "exit", "0"), engine.ErrImage, "junk.tar")
	s.refused(t, e, probeSpec("scheme", "ftp://x/y", "exit", "0"), engine.ErrImage, "ftp://x/y", "docker://")
}

func TestLayoutDirectory(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	e := s.engine(t)
	dir := filepath.Join(s.cfg.ImageDir, "layout")
	check(t, os.MkdirAll(s.cfg.ImageDir, 0o755))
	img, err := appimage.FromFiles(probeFiles(t), appimage.Config{})
	check(t, err)
	check(t, appimage.WriteLayout(dir, img))
	if exit := runOnce(t, e, probeSpec("layout", "oci-layout://"+dir, "exit", "8")); exit.Code != 8 {
		t.Errorf("exit %+v", exit)
	}
}

// A present image is not read again, neither by the same engine nor by the next one; a changed one is.
func TestImagesAreImportedOnce(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	url := s.archive(t, "app.tar", appConfig)
	var imports atomic.Int32
	s.cfg.Step = func(_ engine.ID, step string, _ time.Duration) {
		if step == "import" {
			imports.Add(1)
		}
	}
	e := s.engine(t)
	var all sync.WaitGroup
	for i := range 4 { // at the same time
		all.Go(func() {
			id := engine.ID(fmt.Sprint("same-", i))
			_, err := e.Create(t.Context(), probeSpec(id, url, "exit", "0"))
			if err == nil {
				err = e.Destroy(t.Context(), id)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	next := s.engine(t)
	runOnce(t, next, probeSpec("next", url, "exit", "0"))
	if n := imports.Load(); n != 1 {
		t.Errorf("imported %d times, want once", n)
	}
	s.archive(t, "app.tar", appimage.Config{Env: []string{"CHANGED=1"}})
	runOnce(t, next, probeSpec("changed", url, "exit", "0"))
	if n := imports.Load(); n != 2 {
		t.Errorf("imported %d times after a change, want twice", n)
	}
}

// privateRegistry is a registry that wants credentials; it counts what it delivers.
func privateRegistry(t *testing.T, username, password string) (host string, blobs *atomic.Int32) {
	t.Helper()
	blobs = new(atomic.Int32)
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); !ok || u != username || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			blobs.Add(1)
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://"), blobs
}

func TestPrivateRegistry(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	e := s.engine(t)
	host, blobs := privateRegistry(t, "user", "secret")
	push := func(tag string, cfg appimage.Config) {
		img, err := appimage.FromFiles(probeFiles(t), cfg)
		check(t, err)
		ref, err := name.NewTag(host+"/team/app:"+tag, name.Insecure)
		check(t, err)
		check(t, remote.Write(ref, img, remote.WithAuth(&authn.Basic{Username: "user", Password: "secret"})))
	}
	push("v1", appimage.Config{Env: []string{"VERSION=1"}})
	push("arm", appimage.Config{Architecture: "arm64"})
	spec := func(id engine.ID, tag string) engine.Spec {
		spec := probeSpec(id, "docker://"+host+"/team/app#"+tag, "exit", "3")
		spec.Username, spec.Password = "user", "secret"
		return spec
	}
	if exit := runOnce(t, e, spec("first", "v1")); exit.Code != 3 {
		t.Errorf("exit %+v", exit)
	}
	fetched := blobs.Load()
	runOnce(t, e, spec("second", "v1"))
	if again := blobs.Load() - fetched; again != 0 {
		t.Errorf("%d blobs fetched for an image that is there", again)
	}
	// Credentials are asked for although the image is on the cell.
	stranger := spec("stranger", "v1")
	stranger.Username, stranger.Password = "", ""
	s.refused(t, e, stranger, engine.ErrImage, stranger.RootFS, "without credentials")
	stranger.Username, stranger.Password = "user", "wrong"
	s.refused(t, e, stranger, engine.ErrImage, `user "user"`, "check the user name and the password")
	s.refused(t, e, spec("missing", "v9"), engine.ErrImage, "v9", "check repository and tag")
	s.refused(t, e, spec("arm", "arm"), engine.ErrImage, "no linux/amd64 variant", "it has linux/arm64")
	moved := blobs.Load()
	push("v1", appimage.Config{Env: []string{"VERSION=2"}})
	runOnce(t, e, spec("moved", "v1"))
	if blobs.Load() == moved {
		t.Error("a tag that moved was not noticed")
	}
}

func TestReferences(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"docker://reg.example:5000/team/app#v1":            "reg.example:5000/team/app:v1",
		"docker://reg.example/app":                         "reg.example/app:latest",
		"docker:///cloudfoundry/grace#tag":                 "docker.io/cloudfoundry/grace:tag",
		"docker:///busybox":                                "docker.io/library/busybox:latest",
		"docker:///library/x#tag":                          "docker.io/library/x:tag",
		"docker://h/app#sha256:" + strings.Repeat("a", 64): "h/app@sha256:" + strings.Repeat("a", 64),
	} {
		if got, err := reference(url); err != nil || got != want {
			t.Errorf("%s is %s, %v; want %s", url, got, err, want)
		}
	}
	if got, err := reference("docker://host"); err == nil {
		t.Errorf("docker://host is %s", got)
	}
}

func TestDebianNginxServesAPage(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	e := s.engine(t)
	check(t, os.MkdirAll(s.cfg.ImageDir, 0o755))
	archive := filepath.Join(s.cfg.ImageDir, "nginx.tar")
	cache, err := os.UserCacheDir()
	check(t, err)
	check(t, appimage.DebianNginx(t.Context(), filepath.Join(cache, "muster"), archive))
	port := engine.Port{Container: 8080, Host: port()}
	spec := engine.Spec{
		ID: "nginx", RootFS: "oci-archive://" + archive, Ports: []engine.Port{port},
		Program: step.Program{Action: &lrp.Action{Run: &lrp.RunAction{Path: appimage.NginxCommand[0], Args: appimage.NginxCommand[1:]}}, LogBytes: -1},
		Limits:  engine.Limits{MemoryMB: 64, MaxPids: 20},
	}
	c, err := e.Create(t.Context(), spec)
	check(t, err)
	check(t, e.Start(t.Context(), spec.ID))
	awaitListening(t, fmt.Sprintf("%s:%d", c.Address, port.Container))
	for _, page := range reach(t, c, port) {
		if page != appimage.NginxPage {
			t.Errorf("page %q", page)
		}
	}
	check(t, e.Destroy(t.Context(), spec.ID))
}
