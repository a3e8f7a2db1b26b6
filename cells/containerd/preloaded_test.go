package containerd

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	containerdarchive "github.com/containerd/containerd/v2/pkg/archive"

	"muster/cells/engine"
	appimage "muster/integration/apps/image"
)

// rootTar returns the tar file of a root file system with the probe.
func rootTar(t *testing.T, more ...appimage.File) []byte {
	t.Helper()
	img, err := appimage.FromFiles(append(probeFiles(t), more...), appimage.Config{})
	check(t, err)
	layers, err := img.Layers()
	check(t, err)
	r, err := layers[0].Uncompressed()
	check(t, err)
	defer r.Close()
	text, err := io.ReadAll(r)
	check(t, err)
	return text
}

// preload puts a root file system on the cell in every form, by the name of the form.
func (s *stack) preload(t *testing.T) {
	t.Helper()
	plain := rootTar(t, appimage.File{Path: "/home/app/mine", Mode: 0o600, UID: 1000, Data: []byte("kept\n")})
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err := w.Write(plain)
	check(t, err)
	check(t, w.Close())
	img, err := appimage.FromFiles(append(probeFiles(t), appimage.File{Path: "/home/app/mine", Mode: 0o600, UID: 1000, Data: []byte("kept\n")}), appimage.Config{})
	check(t, err)
	s.cfg.Preloaded = map[string]string{}
	for _, form := range []string{"tar", "tgz", "dir", "archive", "layout"} {
		s.cfg.Preloaded[form] = filepath.Join(s.dir, "stack-"+form)
	}
	check(t, os.WriteFile(s.cfg.Preloaded["tar"], plain, 0o600))
	check(t, os.WriteFile(s.cfg.Preloaded["tgz"], packed.Bytes(), 0o600))
	check(t, os.Mkdir(s.cfg.Preloaded["dir"], 0o755))
	_, err = containerdarchive.Apply(t.Context(), s.cfg.Preloaded["dir"], bytes.NewReader(plain))
	check(t, err)
	check(t, os.Link(filepath.Join(s.cfg.Preloaded["dir"], "bin/probe"), filepath.Join(s.cfg.Preloaded["dir"], "bin/again")))
	check(t, appimage.WriteArchive(s.cfg.Preloaded["archive"], img))
	check(t, appimage.WriteLayout(s.cfg.Preloaded["layout"], img))
}

// imports counts the imports of the engines that are opened from now on.
func (s *stack) imports() *atomic.Int32 {
	count := new(atomic.Int32)
	s.cfg.Step = func(_ engine.ID, step string, _ time.Duration) {
		if step == "import" {
			count.Add(1)
		}
	}
	return count
}

// Every form of a root file system runs, with the owners of its files, and is imported once for all lives of the
// engine.
func TestPreloaded(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.preload(t)
	imports := s.imports()
	first := s.engine(t)
	first.preload(t.Context())
	if n := imports.Load(); n != 5 {
		t.Errorf("imported %d times, want 5", n)
	}
	before := s.traces(t)
	for _, e := range []*Engine{first, s.engine(t)} {
		for form := range s.cfg.Preloaded {
			spec := probeSpec(engine.ID("of-"+form), "preloaded:"+form, "cat", "/home/app/mine") // only its owner may read it
			if exit := runOnce(t, e, spec); exit.Code != 0 {
				t.Errorf("%s: exit %+v", form, exit)
			}
		}
	}
	spec := probeSpec("linked", "preloaded:dir", "exit", "7")
	spec.Program.Action.Run.Path = "/bin/again"
	if exit := runOnce(t, first, spec); exit.Code != 7 {
		t.Errorf("a hard link: exit %+v", exit)
	}
	if n := imports.Load(); n != 5 {
		t.Errorf("imported %d times, want 5", n)
	}
	if left := s.traces(t); !slices.Equal(left, before) {
		t.Errorf("left behind: %q, before %q", left, before)
	}
}

// A new version is imported when it is first wanted; the old one goes, and its containers run on.
func TestPreloadedIsReplaced(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	path := filepath.Join(s.dir, "stack.tar")
	s.cfg.Preloaded = map[string]string{"stack": path}
	version := func(n int) {
		text := rootTar(t, appimage.File{Path: "/version", Mode: 0o644, Data: fmt.Appendln(nil, "version", n)})
		check(t, os.WriteFile(path+".new", text, 0o600))
		check(t, os.Rename(path+".new", path))
	}
	version(1)
	imports := s.imports()
	e := s.engine(t)
	old := probeSpec("old", "preloaded:stack", "tick")
	ticks := startReady(t, e, old)
	version(2)
	fresh := probeSpec("fresh", "preloaded:stack", "cat", "/version")
	_, err := e.Create(t.Context(), fresh)
	check(t, err)
	check(t, e.Start(t.Context(), fresh.ID))
	logs, err := e.Logs(t.Context(), fresh.ID, true)
	check(t, err)
	defer logs.Close()
	expect(t, logs, "version 2")
	check(t, e.Destroy(t.Context(), fresh.ID))
	if n := imports.Load(); n != 2 {
		t.Errorf("imported %d times, want 2", n)
	}
	kept, err := e.client.ImageService().List(e.scope(t.Context()))
	check(t, err)
	if len(kept) != 1 {
		t.Errorf("image records %+v, want that of the new version", kept)
	}
	check(t, e.collect(e.scope(t.Context())))
	expect(t, ticks, "tick 1")
	file, err := e.Open(t.Context(), old.ID, "/version")
	check(t, err)
	text, err := io.ReadAll(file)
	check(t, err)
	check(t, file.Close())
	if strings.TrimSpace(string(text)) != "version 1" {
		t.Errorf("the old container has %q", text)
	}
	check(t, e.Destroy(t.Context(), old.ID))
}

func TestPreloadedIsRefused(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	junk := filepath.Join(s.dir, "junk")
	check(t, os.WriteFile(junk, []byte("no archive of anything, and long enough"), 0o600))
	s.cfg.Preloaded = map[string]string{"junk": junk, "gone": filepath.Join(s.dir, "gone"), "null": "/dev/null"}
	e := s.engine(t)
	e.preload(t.Context()) // complains, and goes on
	for name, texts := range map[string][]string{
		"other": {`no preloaded root file system "other"`, "gone, junk, null"},
		"junk":  {"preloaded:junk", "read the archive"},
		"gone":  {"preloaded:gone", "no such file"},
		"null":  {"preloaded:null", "not a regular file"},
	} {
		s.refused(t, e, probeSpec("refused", "preloaded:"+name, "exit", "0"), engine.ErrImage, texts...)
	}
}
