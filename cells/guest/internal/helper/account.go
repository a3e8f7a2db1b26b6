package helper

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// maxUserFile bounds /etc/passwd and /etc/group of a container, in bytes.
const maxUserFile = 1 << 20

const root = "root"

// account is who a process runs as.
type account struct {
	uid, gid int
	groups   []int
	name     string
	home     string
}

// lookUp finds a user of the container: a name, or uid[:gid].
func lookUp(name string) (account, error) {
	if name == "" {
		name = root
	}
	passwd, err := userFile("/etc/passwd")
	if err != nil {
		return account{}, err
	}
	group, err := userFile("/etc/group")
	if err != nil {
		return account{}, err
	}
	return find(name, passwd, group)
}

func find(name string, passwd, group []byte) (account, error) {
	found, err := user.GetExecUser(name, &user.ExecUser{Home: "/"}, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil && name == root { // a container without /etc/passwd has a root nevertheless
		found, err = &user.ExecUser{Home: "/"}, nil
	}
	if err != nil {
		return account{}, fmt.Errorf("user %q: %w: name one of /etc/passwd in the container, or use numbers, uid or uid:gid", name, err)
	}
	a := account{uid: found.Uid, gid: found.Gid, groups: found.Sgids, name: name, home: found.Home}
	if !path.IsAbs(a.home) {
		a.home = "/"
	}
	known, err := user.ParsePasswdFilter(bytes.NewReader(passwd), func(u user.User) bool { return u.Uid == a.uid })
	if err == nil && len(known) > 0 {
		a.name = known[0].Name
	}
	return a, nil
}

// userFile reads a file that lists users or groups; one that is not there, or is no regular file, is empty.
func userFile(name string) ([]byte, error) {
	file, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
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
		return nil, fmt.Errorf("%s in the container has more than %d bytes", name, maxUserFile)
	}
	return text, err
}

// at returns a path that starts in the home of the user unless it is absolute.
func (a account) at(name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join(a.home, name)
}

// become makes the helper a process of that user, for good. A user other than root has no capabilities
// then, and nobody has some that outlive the execution of a program.
func (a account) become() error {
	if err := dropInheritable(); err != nil {
		return fmt.Errorf("user %q: give up inheritable capabilities: %w", a.name, err)
	}
	if err := syscall.Setgroups(a.groups); err != nil {
		return fmt.Errorf("user %q: take its groups %d: %w", a.name, a.groups, err)
	}
	if err := syscall.Setresgid(a.gid, a.gid, a.gid); err != nil {
		return fmt.Errorf("user %q: take its group %d: %w", a.name, a.gid, err)
	}
	if err := syscall.Setresuid(a.uid, a.uid, a.uid); err != nil {
		return fmt.Errorf("user %q: take its number %d: %w", a.name, a.uid, err)
	}
	return nil
}

func dropInheritable() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	if data[0].Inheritable|data[1].Inheritable == 0 {
		return nil
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	return unix.Capset(&header, &data[0])
}
