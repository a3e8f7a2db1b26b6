package helper

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// execute makes everything ready for a program, and becomes it.
func execute(o Order, who account, reply io.Writer) error {
	dir := o.Dir
	if dir == "" {
		dir = who.home
	}
	if err := makeDir(dir, who); err != nil {
		return err
	}
	if err := place(o.Files, who); err != nil {
		return err
	}
	if err := output(who); err != nil {
		return err
	}
	// As root first, so that a user may be put where it could not go: into the home of another one.
	entered := os.Chdir(dir)
	if err := who.become(); err != nil {
		return err
	}
	if entered != nil {
		entered = os.Chdir(dir)
	}
	if entered != nil {
		return fmt.Errorf("program %q in directory %q: its directory cannot be entered: %w", o.Path, dir, bare(entered))
	}
	env := environment(o.Env, who)
	program, err := search(o.Path, env)
	if err == nil {
		limit := syscall.Rlimit{Cur: o.Nofile, Max: o.Nofile}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			return fmt.Errorf("program %q: allow it %d open files: %w", o.Path, o.Nofile, err)
		}
		_, _ = reply.Write([]byte{Going})
		err = syscall.Exec(program, append([]string{o.Path}, o.Args...), env)
	}
	return fmt.Errorf("program %q in directory %q: %s", o.Path, dir, why(program, err))
}

// output puts the files for the output of the program where they belong, and gives them to the user: it
// may open them again by name then, as /dev/stdout.
func output(who account) error {
	for _, at := range [...]struct{ from, to int }{{dataFile, 1}, {errFile, 2}} {
		var stat unix.Stat_t
		if err := unix.Fstat(at.from, &stat); err != nil {
			return fmt.Errorf("output %d of the program: %w", at.to, err)
		}
		if stat.Mode&unix.S_IFMT == unix.S_IFIFO {
			if err := unix.Fchown(at.from, who.uid, who.gid); err != nil {
				return fmt.Errorf("output %d of the program: give it to user %q: %w", at.to, who.name, err)
			}
		}
		if err := unix.Dup3(at.from, at.to, 0); err != nil {
			return fmt.Errorf("output %d of the program: %w", at.to, err)
		}
	}
	return nil
}

// Search paths of processes that were not given one; those of Diego's cells.
const (
	rootPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	userPath = "/usr/local/bin:/usr/bin:/bin"
)

// environment returns the variables of a process: of those given the later ones win; what every process
// needs and has not got comes behind them.
func environment(given []string, who account) []string {
	at := map[string]int{}
	var env []string
	for _, variable := range given {
		name, _, _ := strings.Cut(variable, "=")
		if old, known := at[name]; known {
			env[old] = variable
			continue
		}
		at[name] = len(env)
		env = append(env, variable)
	}
	search := userPath
	if who.uid == 0 {
		search = rootPath
	}
	for _, v := range [...]struct{ name, value string }{{"PATH", search}, {"USER", who.name}, {"HOME", who.home}} {
		if _, known := at[v.name]; !known {
			env = append(env, v.name+"="+v.value)
		}
	}
	return env
}

// errNotInPath says that a program is in no directory of its PATH.
var errNotInPath = errors.New("it is not in the PATH of the process")

// search returns the file of a program; one without a slash is looked for in the PATH of env.
func search(name string, env []string) (string, error) {
	if name == "" {
		return "", unix.ENOENT
	}
	if strings.Contains(name, "/") {
		return name, nil
	}
	var err error = errNotInPath
	for _, variable := range env {
		value, found := strings.CutPrefix(variable, "PATH=")
		if !found {
			continue
		}
		for _, dir := range strings.Split(value, ":") {
			file := path.Join(dir, name)
			if dir == "" {
				file = "./" + name
			}
			if info, missing := os.Stat(file); missing != nil || info.IsDir() {
				continue
			}
			if unix.Access(file, unix.X_OK) == nil {
				return file, nil
			}
			err = unix.EACCES
		}
	}
	return "", err
}

// reasons are what the kernel says of a program that it does not execute, and what that means.
var reasons = [...]struct {
	errno syscall.Errno
	text  string
}{
	{unix.ENOENT, "there is no such file"},
	{unix.EACCES, "the user may not execute it"},
	{unix.ENOEXEC, "it is not a program for this machine"},
	{unix.ENOTDIR, "a part of its path is no directory"},
	{unix.E2BIG, "its arguments and variables are too large for the kernel"},
	{unix.ELOOP, "its path is a loop of links"},
}

// why says in words why a program was not executed.
func why(program string, err error) string {
	info, missing := os.Stat(program)
	switch {
	case missing == nil && info.IsDir():
		return "it is a directory"
	case missing == nil && errors.Is(err, unix.ENOENT):
		return "the interpreter that it names does not exist"
	}
	for _, r := range reasons {
		if errors.Is(err, r.errno) {
			return r.text
		}
	}
	return err.Error()
}

// bare leaves out the path of an error that names one.
func bare(err error) error {
	if e := new(os.PathError); errors.As(err, &e) {
		return e.Err
	}
	return err
}
