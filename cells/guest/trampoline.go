package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// trampolineArg makes the init a trampoline: the process which becomes another.
	trampolineArg = "become"
	// defaultNofile is how many files a process may have open unless it is told otherwise.
	defaultNofile = 16_384
	// appScore makes the kernel, when memory is short, end processes of the program before the init,
	// in thousandths of the memory of the container.
	appScore = "100"

	// What the trampoline has open besides its standard streams.
	orderFD  = 3
	reportFD = 4
)

// order is what a trampoline is to become, or to do.
type order struct {
	Path   string
	Args   []string
	Env    []string
	Dir    string
	User   string
	Nofile uint64
	Untar  bool   // extract the archive on standard input into Dir, instead of executing Path
	Look   string // report the size of that file instead; empty: no
}

// launch starts a trampoline and returns when it has become the process. in is its standard input.
func (g *guest) launch(o order, in, out, errs *os.File) (pid int, status <-chan syscall.WaitStatus, err error) {
	pid, status, report, err := g.begin(o, in, out, errs)
	if err != nil {
		return 0, nil, err
	}
	defer report.Close()
	text, err := io.ReadAll(report) // until the trampoline executes the program, or has failed
	if err == nil && len(text) > 0 {
		err = errors.New(string(text))
	}
	return pid, status, err
}

// do has a trampoline do something, and returns what it reports.
func (g *guest) do(o order, in *os.File) (string, error) {
	_, status, report, err := g.begin(o, in, nil, nil)
	if err != nil {
		return "", err
	}
	defer report.Close()
	text, err := io.ReadAll(report)
	switch s := <-status; {
	case err != nil:
		return "", err
	case !s.Exited() || s.ExitStatus() != 0:
		return "", errors.New(string(text))
	}
	return string(text), nil
}

// begin starts a trampoline and returns where it reports.
func (g *guest) begin(o order, in, out, errs *os.File) (pid int, status <-chan syscall.WaitStatus, report *os.File, err error) {
	orders, err := memory(o)
	if err != nil {
		return 0, nil, nil, err
	}
	defer orders.Close()
	report, write, err := os.Pipe()
	if err != nil {
		return 0, nil, nil, err
	}
	defer write.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, nil, nil, errors.Join(err, report.Close())
	}
	defer null.Close()
	fd := func(file *os.File) uintptr {
		if file == nil {
			file = null
		}
		return file.Fd()
	}
	pid, status, err = g.children.start("/proc/self/exe", []string{"muster-init", trampolineArg}, &syscall.ProcAttr{
		Dir: "/", Files: []uintptr{fd(in), fd(out), fd(errs), orders.Fd(), write.Fd()}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, nil, nil, errors.Join(fmt.Errorf("make a process: %w", err), report.Close())
	}
	return pid, status, report, nil
}

// memory returns a file without a name that holds an order.
func memory(o order) (*os.File, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("order", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a process: %w", err)
	}
	file := os.NewFile(uintptr(fd), "order")
	if _, err := file.WriteAt(text, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("make a process: %w", err), file.Close())
	}
	return file, nil
}

// trampoline is what the copy of the init does. It returns only to end.
func trampoline() int {
	orders, report := os.NewFile(orderFD, "order"), os.NewFile(reportFD, "report")
	unix.CloseOnExec(orderFD)
	unix.CloseOnExec(reportFD)
	var o order
	text, err := io.ReadAll(orders)
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	var answer string
	if err == nil {
		answer, err = o.carryOut()
	}
	if err != nil {
		fmt.Fprint(report, err)
		return 1
	}
	fmt.Fprint(report, answer)
	return 0
}

// carryOut becomes the user of the order, and does what is to be done. It does not return from Path.
func (o order) carryOut() (string, error) {
	who, err := lookUp(o.User)
	if err != nil {
		return "", err
	}
	dir := o.Dir
	if dir == "" {
		dir = who.home
	}
	if o.Look == "" {
		if err := makeDir(dir, who); err != nil {
			return "", fmt.Errorf("directory %q: %w", dir, why(err))
		}
	}
	// Best effort: a container may not see its own processes' settings.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte(appScore), 0)
	nofile := o.Nofile
	if nofile == 0 {
		nofile = defaultNofile
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: nofile, Max: nofile}); err != nil {
		return "", fmt.Errorf("limit of open files %d: %w", nofile, why(err))
	}
	if err := who.become(); err != nil {
		return "", err
	}
	if o.Look != "" {
		return look(o.Look)
	}
	if err := os.Chdir(dir); err != nil {
		return "", fmt.Errorf("directory %q: %w", dir, why(err))
	}
	if o.Untar {
		return "", untar(os.Stdin)
	}
	env := environment(o.Env, who)
	path, err := find(o.Path, env)
	if err != nil {
		return "", err
	}
	err = syscall.Exec(path, append([]string{o.Path}, o.Args...), env)
	return "", fmt.Errorf("program %q: %w", o.Path, why(err))
}

// find returns the path of a program.
func find(path string, env []string) (string, error) {
	if path == "" {
		return "", errors.New("the path of the program is empty")
	}
	if strings.Contains(path, "/") {
		return path, nil
	}
	var denied error
	for _, v := range env {
		dirs, ok := strings.CutPrefix(v, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range strings.Split(dirs, ":") {
			if dir == "" {
				dir = "."
			}
			full := dir + "/" + path
			info, err := os.Stat(full)
			if err != nil || info.IsDir() {
				continue
			}
			if err := unix.Access(full, unix.X_OK); err != nil {
				denied = err
				continue
			}
			return full, nil
		}
	}
	if denied != nil {
		return "", fmt.Errorf("program %q: %w", path, why(denied))
	}
	return "", fmt.Errorf("program %q: it is not in the PATH of the process", path)
}

// reasons say what errors of the kernel mean for who wrote the program.
var reasons = map[error]string{
	unix.ENOENT:  "there is no such file",
	unix.EACCES:  "the user may not do that",
	unix.EPERM:   "the user may not do that",
	unix.ENOEXEC: "it is not a program for this machine",
	unix.EISDIR:  "it is a directory",
	unix.ENOTDIR: "a part of its path is no directory",
	unix.ELOOP:   "its path has too many links",
	unix.E2BIG:   "its arguments and environment are too long",
	unix.ENOSPC:  "no space is left on its disk",
	unix.EDQUOT:  "the disk limit is reached",
}

// why explains an error of the kernel.
func why(err error) error {
	for known, text := range reasons {
		if errors.Is(err, known) {
			return errors.New(text)
		}
	}
	return err
}
