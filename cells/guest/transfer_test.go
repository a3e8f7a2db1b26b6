package guest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/bbs/lrp"
	"muster/cells/guest/record"
	"muster/cells/step"
)

// archive is a tar of files by name and content.
func archive(t testing.TB, files ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i := 0; i < len(files); i += 2 {
		check(t, w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o640, Size: int64(len(files[i+1])), Uid: 12, Gid: 34}))
		_, err := w.Write([]byte(files[i+1]))
		check(t, err)
	}
	check(t, w.Close())
	return buf.Bytes()
}

// answer answers a want as the cell does.
func (b *box) answer(n int, tar []byte, a record.Answer) {
	b.t.Helper()
	if tar != nil {
		b.write(fmt.Sprintf("inbox/%d.tar", n), tar)
	}
	b.write(fmt.Sprintf("inbox/%d.json", n), encode(b.t, a))
}

func serial(actions ...*lrp.Action) *lrp.Action {
	return &lrp.Action{Serial: &lrp.SerialAction{Actions: actions}}
}

func TestDownload(t *testing.T) {
	t.Parallel()
	p := plan(serial(
		&lrp.Action{Download: &lrp.DownloadAction{Artifact: "droplet", To: "/dev/shm/made/app", User: "daemon"}},
		&lrp.Action{Download: &lrp.DownloadAction{Artifact: "cached", To: ".", User: "root"}},
		sh("cd /dev/shm/made/app; cat sub/a; stat -c %U:%a . sub/a; cd ~; cat b; stat -c %u:%g b"),
	))
	b := newBox(t, p)
	b.before = append(slices.Clone(overlay), "echo root:x:0:0::/dev/shm: >/etc/passwd", "echo daemon:x:1:1::/: >>/etc/passwd")
	b.start()
	b.awaitEvent(step.Wants)
	b.answer(0, archive(t, "sub/a", "content\n"), record.Answer{Size: 2048})
	b.signal(syscall.SIGUSR1)
	b.await("second want", func() bool { return len(b.events()) == 3 })
	b.answer(1, archive(t, "b", "root\n"), record.Answer{Size: 2048, Cached: true}) // and no signal
	if r := b.result(); r.Failed {
		t.Errorf("%+v", r)
	}
	want := []string{
		"Downloading droplet...", "Downloaded droplet (2K)", "Downloading cached...", "Downloaded cached",
		"content", "daemon:755", "daemon:640", "root", "12:34", "Exit status 0",
	}
	if diff := cmp.Diff(want, b.lines()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDownloadFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		tar  []byte
		record.Answer
		want string
	}{
		{"refused", nil, record.Answer{Error: "Downloading thing failed"}, "Downloading thing failed"},
		{"no archive", []byte("garbage that is no archive at all, and longer than a block" + string(make([]byte, 1000))), record.Answer{},
			"Copying thing into the container failed: read the archive: archive/tar: invalid tar header"},
		{"outside", archive(t, "../../escaped", "x"), record.Answer{}, `Copying thing into the container failed: entry "../../escaped": path escapes from parent`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, plan(&lrp.Action{Download: &lrp.DownloadAction{Artifact: "thing", To: "/dev/shm/to", User: "nobody"}}))
			b.before = overlay
			b.start()
			b.awaitEvent(step.Wants)
			b.answer(0, c.tar, c.Answer)
			b.signal(syscall.SIGUSR1)
			if diff := cmp.Diff(failed(1, c.want), b.result()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A download that runs again does not ask again, unless it failed; then the old answer is not taken for the new.
func TestDownloadAgain(t *testing.T) {
	t.Parallel()
	p := plan(sh("trap 'exit 0' TERM; while :; do sleep 0.05; done"))
	p.Monitor = &step.Monitor{Action: &lrp.Action{Download: &lrp.DownloadAction{To: "/dev/shm/to"}}, StartEvery: 10 * time.Millisecond, Every: 10 * time.Millisecond}
	b := newBox(t, p)
	b.before = overlay
	b.start()
	wants := func() int {
		return len(slices.DeleteFunc(b.names(), func(n step.EventName) bool { return n != step.Wants }))
	}
	for n := 1; n <= 3; n++ {
		b.await("another want", func() bool { return wants() == n })
		if n < 3 {
			b.answer(0, nil, record.Answer{Error: fmt.Sprint("no ", n)})
			b.signal(syscall.SIGUSR1)
		}
	}
	b.answer(0, archive(t, "x", "y"), record.Answer{})
	b.signal(syscall.SIGUSR1)
	b.awaitEvent(step.Ready)
	b.signal(syscall.SIGTERM)
	b.result()
	if n := wants(); n != 3 {
		t.Errorf("%d wants, want 3", n)
	}
}

func TestDownloadInterrupted(t *testing.T) {
	t.Parallel()
	b := newBox(t, plan(&lrp.Action{Download: &lrp.DownloadAction{To: "/tmp"}})).start()
	b.awaitEvent(step.Wants)
	b.signal(syscall.SIGTERM)
	if diff := cmp.Diff(failed(1, "cancelled"), b.result()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUpload(t *testing.T) {
	t.Parallel()
	upload := func(from, user string) *lrp.Action {
		return &lrp.Action{Upload: &lrp.UploadAction{Artifact: "cache", From: from, User: user}}
	}
	b := newBox(t, plan(serial(sh("cd /dev/shm; printf 12345 >a; ln -s a b; chmod 600 a"), upload("/dev/shm/b", "root"), upload("/dev/shm/b", "nobody"))))
	b.before = overlay
	b.start()
	b.awaitEvent(step.Wants)
	b.answer(0, nil, record.Answer{Size: 5})
	b.signal(syscall.SIGUSR1)
	const want = "Failed to establish stream from container for cache: open /dev/shm/b: permission denied"
	if diff := cmp.Diff(failed(1, want), b.result()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	events := b.events()
	e := events[slices.IndexFunc(events, func(e step.Event) bool { return e.Name == step.Wants })]
	e.At = time.Time{}
	if diff := cmp.Diff(step.Event{Name: step.Wants, Bytes: 5, Path: "/dev/shm/a"}, e); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"Exit status 0", "Uploading cache...", "Uploaded cache (5B)", "Uploading cache...", want}, b.lines()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
