package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// maxUserFile bounds /etc/passwd and /etc/group, in bytes.
const maxUserFile = 1 << 20

// account is who a process runs as.
type account struct {
	uid, gid int
	groups   []int
	name     string
	home     string
}

// lookUp returns a user of the container: a name, or uid[:gid]; empty is root.
func lookUp(name string) (account, error) {
	if name == "" {
		name = "root"
	}
	passwd, err1 := userFile("/etc/passwd")
	group, err2 := userFile("/etc/group")
	if err := errors.Join(err1, err2); err != nil {
		return account{}, err
	}
	found, err := user.GetExecUser(name, &user.ExecUser{Home: "/"}, strings.NewReader(passwd), strings.NewReader(group))
	if err != nil && name == "root" { // an image without /etc/passwd has a root nevertheless
		found, err = &user.ExecUser{Home: "/"}, nil
	}
	if err != nil {
		return account{}, fmt.Errorf("user %q is not in the image: name one of its /etc/passwd, or use numbers, uid or uid:gid", name)
	}
	a := account{uid: found.Uid, gid: found.Gid, groups: found.Sgids, name: name, home: found.Home}
	if !path.IsAbs(a.home) {
		a.home = "/"
	}
	users, err := user.ParsePasswdFilter(strings.NewReader(passwd), func(u user.User) bool { return u.Uid == found.Uid })
	if err == nil && len(users) > 0 {
		a.name = users[0].Name
	}
	return a, nil
}

// userFile reads a file of users; one that is not there is empty.
func userFile(name string) (string, error) {
	file, err := openRegular(name)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxUserFile+1))
	if err == nil && len(text) > maxUserFile {
		return "", fmt.Errorf("%s has more than %d bytes", name, maxUserFile)
	}
	return string(text), err
}

// openRegular opens a file that is no device, pipe or directory.
func openRegular(name string) (*os.File, error) {
	file, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", name)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// become makes this process, all its threads, one of the account.
func (a account) become() error {
	if err := syscall.Setgroups(a.groups); err != nil {
		return fmt.Errorf("groups of user %q: %w", a.name, err)
	}
	if err := syscall.Setgid(a.gid); err != nil {
		return fmt.Errorf("group %d of user %q: %w", a.gid, a.name, err)
	}
	if err := syscall.Setuid(a.uid); err != nil {
		return fmt.Errorf("user %q, %d: %w", a.name, a.uid, err)
	}
	return nil
}

// Search paths of processes that were not given one; those of Diego's cells.
const (
	rootPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	userPath = "/usr/local/bin:/usr/bin:/bin"
)

// environment returns the variables of a process: of several with one name the last one, and then what
// every process needs and has not got.
func environment(given []string, a account) []string {
	at := map[string]int{}
	var env []string
	for _, variable := range given {
		name, _, _ := strings.Cut(variable, "=")
		if n, ok := at[name]; ok {
			env[n] = variable
			continue
		}
		at[name] = len(env)
		env = append(env, variable)
	}
	search := userPath
	if a.uid == 0 {
		search = rootPath
	}
	for _, needed := range [][2]string{{"PATH", search}, {"USER", a.name}, {"HOME", a.home}} {
		if _, ok := at[needed[0]]; !ok {
			env = append(env, needed[0]+"="+needed[1])
		}
	}
	return env
}

// makeDir makes a directory and those above it, and gives what it makes to the account. Somebody else
// may be at work in the same place: what was made is looked at through its descriptor, so that no link
// put in its place is followed.
func makeDir(dir string, owner account) error {
	if !path.IsAbs(dir) {
		return errors.New("want an absolute path")
	}
	above := "/"
	for _, name := range strings.Split(strings.Trim(path.Clean(dir), "/"), "/") {
		next := path.Join(above, name)
		info, err := os.Stat(next)
		switch {
		case err == nil && !info.IsDir():
			return unix.ENOTDIR
		case errors.Is(err, os.ErrNotExist):
			err = makeOne(above, name, owner)
		}
		if err != nil {
			return err
		}
		above = next
	}
	return nil
}

func makeOne(above, name string, owner account) error {
	parent, err := os.OpenFile(above, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := unix.Mkdirat(int(parent.Fd()), name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	} else if err != nil {
		return nil // another process of the container was quicker
	}
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fchown(fd, owner.uid, owner.gid)
}
