package pgcluster

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// binDirs are where distributions keep the server's programs; the newest version wins.
const binDirs = "/usr/lib/postgresql/*/bin"

// remedy says how to get PostgreSQL.
const remedy = "install it with 'apt-get install postgresql'"

// findBin returns the directory of the newest PostgreSQL server.
func findBin() (string, error) {
	dirs, err := filepath.Glob(binDirs)
	if err != nil {
		return "", err
	}
	best, bestVersion := "", -1
	for _, d := range dirs {
		v, err := strconv.Atoi(filepath.Base(filepath.Dir(d)))
		if err != nil || !executable(filepath.Join(d, "postgres")) || !executable(filepath.Join(d, "initdb")) {
			continue
		}
		if v > bestVersion {
			best, bestVersion = d, v
		}
	}
	if best == "" {
		return "", fmt.Errorf("no PostgreSQL server (postgres and initdb) in %s: %s", binDirs, remedy)
	}
	return best, nil
}

func executable(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// account is the operating system account that the server runs as.
type account struct {
	name     string
	uid, gid int
	other    bool // not the account of this process
}

// serverAccount returns the account to run the server as: postgres for root, else this one.
func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		u, err := user.Current()
		if err != nil {
			return account{}, fmt.Errorf("find out this process's account: %w", err)
		}
		return account{name: u.Username, uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return account{}, fmt.Errorf("PostgreSQL does not run as root and there is no account postgres (%w): %s", err, remedy)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		return account{}, fmt.Errorf("account postgres: %w", err)
	}
	return account{name: u.Username, uid: uid, gid: gid, other: true}, nil
}

// attributes makes a process run as the account.
func (a account) attributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{}
	if a.other {
		attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return attr
}

// canEnter says which directory on the way to dir the account cannot pass, if any.
func (a account) canEnter(dir string) error {
	if !a.other {
		return nil
	}
	for d := dir; ; d = filepath.Dir(d) {
		st, err := os.Stat(d)
		if err != nil {
			return err
		}
		owner, ok := st.Sys().(*syscall.Stat_t)
		mine := ok && int(owner.Uid) == a.uid && st.Mode()&0o100 != 0
		if !mine && st.Mode()&0o001 == 0 {
			return fmt.Errorf("account %s cannot enter %s (mode %04o): choose a directory below /var/lib or /tmp, or 'chmod o+x %s'",
				a.name, d, st.Mode().Perm(), d)
		}
		if d == filepath.Dir(d) {
			return nil
		}
	}
}

// users returns the accounts that may connect over the socket.
func (a account) users() []string {
	names := []string{"root", a.name}
	if u, err := user.Current(); err == nil && u.Username != a.name && u.Username != "root" {
		names = append(names, u.Username)
	}
	return names
}

// tail returns the last lines of a log, for errors.
func tail(name string) string {
	const lines = 8
	text, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
