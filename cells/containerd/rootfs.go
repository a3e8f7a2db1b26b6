package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"muster/cells/engine"
)

// maxUserFile bounds /etc/passwd and /etc/group of an image, in bytes.
const maxUserFile = 1 << 20

// openIn opens a path as it would be opened inside root: links, absolute ones and those upwards
// included, cannot lead out of it.
func openIn(root, name string, flags int) (*os.File, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", root, err)
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{
		Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// readIn reads a file of an image; one that is not there, or is no regular file, is empty.
func readIn(root, name string) ([]byte, error) {
	file, err := openIn(root, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(file, maxUserFile+1))
	if err == nil && len(text) > maxUserFile {
		return nil, fmt.Errorf("%s has more than %d bytes", name, maxUserFile)
	}
	return text, err
}

// account is who a process runs as.
type account struct {
	uid, gid uint32
	groups   []uint32
	name     string
	home     string
}

// account looks a user up in the image: a name, or uid[:gid].
func (i *image) account(name string) (account, error) {
	if name == "" {
		name = i.config.User
	}
	if name == "" {
		name = "root"
	}
	found, err := user.GetExecUser(name, &user.ExecUser{Home: "/"}, bytes.NewReader(i.passwd), bytes.NewReader(i.group))
	if err != nil && name == "root" { // an image without /etc/passwd has a root nevertheless
		found, err = &user.ExecUser{Home: "/"}, nil
	}
	if err != nil {
		return account{}, fmt.Errorf("user %q of image %s: %w: name one of its /etc/passwd, or use numbers, uid or uid:gid: %w",
			name, i.url, engine.ErrProcess, err)
	}
	a := account{uid: uint32(found.Uid), gid: uint32(found.Gid), name: name, home: found.Home}
	for _, gid := range found.Sgids {
		a.groups = append(a.groups, uint32(gid))
	}
	if a.home == "" || !path.IsAbs(a.home) {
		a.home = "/"
	}
	if known, err := i.nameOf(found.Uid); err == nil && known != "" {
		a.name = known
	}
	return a, nil
}

// nameOf returns the name of a user.
func (i *image) nameOf(uid int) (string, error) {
	users, err := user.ParsePasswdFilter(bytes.NewReader(i.passwd), func(u user.User) bool { return u.Uid == uid })
	if err != nil || len(users) == 0 {
		return "", err
	}
	return users[0].Name, nil
}

// makeDir makes a directory in the root file system of a container, with those above it, and gives
// what it makes to the account. It notes directories that were there.
func (i *image) makeDir(ctx context.Context, at paths, mounts []mount.Mount, dir string, owner account) error {
	if dir == "/" || i.knowsDir(dir) {
		return nil
	}
	return at.withMount(ctx, mounts, func(root string) error {
		made, err := makeDirIn(root, dir, owner)
		if err != nil {
			return fmt.Errorf("directory %s in image %s: %w: %w", dir, i.url, engine.ErrProcess, err)
		}
		if !made {
			i.noteDir(dir)
		}
		return nil
	})
}

func makeDirIn(root, dir string, owner account) (made bool, err error) {
	above := "/"
	for _, name := range strings.Split(strings.Trim(dir, "/"), "/") {
		next := path.Join(above, name)
		file, err := openIn(root, next, unix.O_PATH|unix.O_DIRECTORY)
		if err == nil {
			file.Close()
			above = next
			continue
		}
		if !errors.Is(err, unix.ENOENT) {
			return made, err
		}
		if err := makeOneIn(root, above, name, owner); err != nil {
			return made, err
		}
		made, above = true, next
	}
	return made, nil
}

func makeOneIn(root, above, name string, owner account) error {
	parent, err := openIn(root, above, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer parent.Close()
	at := int(parent.Fd())
	if err := unix.Mkdirat(at, name, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", path.Join(above, name), err)
	}
	return unix.Fchownat(at, name, int(owner.uid), int(owner.gid), unix.AT_SYMLINK_NOFOLLOW)
}

// Search paths of processes that were not given one; those of Diego's cells.
const (
	rootPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	userPath = "/usr/local/bin:/usr/bin:/bin"
)

// environment returns the variables of a process: those of the image, then those of the spec, the
// later ones winning, then what every process needs and has not got.
func (i *image) environment(p engine.Process, a account) []string {
	at := map[string]int{}
	var env []string
	set := func(variable string, override bool) {
		name, _, _ := strings.Cut(variable, "=")
		old, known := at[name]
		switch {
		case !known:
			at[name] = len(env)
			env = append(env, variable)
		case override:
			env[old] = variable
		}
	}
	for _, variable := range i.config.Env {
		set(variable, true)
	}
	for _, variable := range p.Env {
		set(variable, true)
	}
	search := userPath
	if a.uid == 0 {
		search = rootPath
	}
	set("PATH="+search, false)
	set("USER="+a.name, false)
	set("HOME="+a.home, false)
	return env
}
