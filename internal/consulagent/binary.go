package consulagent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pkg is what is built.
	pkg = "github.com/hashicorp/consul"
	// moduleDir is where the module that pins its version is, below the root of the sources.
	moduleDir = "tools/consul"
	// lockPoll is how often the lock of a build that another does is looked at.
	lockPoll = 100 * time.Millisecond
)

// Binary returns the path of the Consul program, which is built if it is not in the cache: some minutes, and
// some hundred MB from the Go module proxy. say, unless nil, is told before that begins. Of several that need
// it at the same time, in any processes, one builds and the others wait. The sources are looked for from each of
// the directories in near upwards, such as the current one.
func Binary(ctx context.Context, say func(what string), near ...string) (string, error) {
	src, err := findModule(near)
	if err != nil {
		return "", err
	}
	path, err := cached(src)
	if err != nil {
		return "", err
	}
	if there(path) {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("make the cache for Consul: %w: set XDG_CACHE_HOME to a directory that can be written", err)
	}
	unlock, err := lock(ctx, path+".lock")
	if err != nil {
		return "", fmt.Errorf("wait for another build of Consul: %w", err)
	}
	defer unlock()
	if there(path) {
		return path, nil
	}
	if say != nil {
		say("building Consul from source, once (about 4 minutes)")
	}
	return path, build(ctx, src, path)
}

// findModule looks for the sources from directories upwards.
func findModule(near []string) (string, error) {
	for _, from := range near {
		from, err := filepath.Abs(from)
		if err != nil {
			return "", fmt.Errorf("find the sources of Consul: %w", err)
		}
		for d := from; ; d = filepath.Dir(d) {
			src := filepath.Join(d, moduleDir)
			if there(filepath.Join(src, "go.mod")) {
				return src, nil
			}
			if d == filepath.Dir(d) {
				break
			}
		}
	}
	return "", fmt.Errorf("no %s/go.mod at or above %s: Consul can only be built in a checkout of the sources", moduleDir, strings.Join(near, ", "))
}

// cached names the program of these sources and this kind of machine.
func cached(src string) (string, error) {
	h := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(src, name))
		if err != nil {
			return "", fmt.Errorf("read the sources of Consul: %w", err)
		}
		h.Write(text)
	}
	fmt.Fprint(h, runtime.GOOS, runtime.GOARCH)
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache for Consul: %w: set XDG_CACHE_HOME", err)
	}
	return filepath.Join(dir, "muster", "consul-"+hex.EncodeToString(h.Sum(nil)[:8])), nil
}

func there(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// build makes the program beside its place first, so that a killed build leaves nothing half-made there.
func build(ctx context.Context, src, path string) error {
	tmp := path + ".new"
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", tmp, pkg)
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GOOS=", "GOARCH=")
	// A killed build must not go on in its compilers.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("build Consul: %w: install Go and put it into PATH", err)
	}
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		const most = 8
		return fmt.Errorf("build Consul in %s: %w: is the Go module proxy reachable? The last words: %s",
			src, err, strings.Join(lines[max(0, len(lines)-most):], "; "))
	}
	return os.Rename(tmp, path)
}

// lock takes the lock of a file, which the kernel gives back when this process ends.
func lock(ctx context.Context, name string) (func(), error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w: set XDG_CACHE_HOME to a directory that can be written", err)
	}
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}
