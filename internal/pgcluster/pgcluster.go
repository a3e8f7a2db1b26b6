package pgcluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
)

const (
	// dbUser is the database role that owns everything in a private cluster.
	dbUser = "muster"
	// socketPort names the socket; with a TCP port that number is used.
	socketPort = 5432
	// maxSocketDir is the longest directory name that leaves room for the socket's own name in the
	// 107 bytes that the kernel allows.
	maxSocketDir = 107 - len("/.s.PGSQL.65535")
	// maxConnections is how many connections the server accepts.
	maxConnections = 200
	// minBufferMB and maxBufferMB bound the memory that the server keeps pages in.
	minBufferMB, maxBufferMB = 128, 1024
	// maxWALMB is how large its log may grow between checkpoints.
	maxWALMB = 4096
)

// Config says where the cluster is and how it runs.
type Config struct {
	// Dir is made if it is missing. Its name must be short: the socket is below it.
	Dir string
	// Port is a loopback port; 0: the unix socket only.
	Port int
	// FastUnsafe turns fsync off. The data survives a killed server but not a killed machine.
	FastUnsafe bool
	// Detached lets the server outlive the calling process. Without it the server ends with it, no
	// matter how that ends.
	Detached bool
}

// Cluster is a running server.
type Cluster struct {
	dir, data, run string
	port           int
	exited         chan struct{} // closed when the server we started has ended; nil for a reused one
}

// Open starts the server of a directory, making the cluster first if there is none. A server that
// runs there already is reused, and what a killed one left behind is cleared away.
func Open(ctx context.Context, cfg Config) (*Cluster, error) {
	c, err := layout(cfg)
	if err != nil {
		return nil, err
	}
	bin, err := findBin()
	if err != nil {
		return nil, err
	}
	acct, err := serverAccount()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lockDir(c.dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if postmaster(c.data) == 0 {
		if err := c.prepare(ctx, bin, acct); err != nil {
			return nil, err
		}
		if err := c.start(bin, acct, cfg); err != nil {
			return nil, err
		}
	}
	if err := c.waitReady(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Stop stops the server of a directory, if one runs, whoever started it.
func Stop(ctx context.Context, dir string) error {
	c, err := layout(Config{Dir: dir})
	if err != nil {
		return err
	}
	if _, err := os.Stat(c.data); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	unlock, err := lockDir(c.dir)
	if err != nil {
		return err
	}
	defer unlock()
	return errors.Join(stopServer(ctx, c.data), removeHalfMade(ctx, halfMade(c.dir)))
}

// Stop stops the server and waits until it is gone.
func (c *Cluster) Stop(ctx context.Context) error {
	if err := Stop(ctx, c.dir); err != nil {
		return err
	}
	if c.exited != nil {
		<-c.exited
	}
	return nil
}

// PID returns the process id of the server, 0 when it does not run.
func (c *Cluster) PID() int { return postmaster(c.data) }

// Dir returns the directory of the cluster.
func (c *Cluster) Dir() string { return c.dir }

// URL returns how to connect to a database over the unix socket. The database need not exist.
func (c *Cluster) URL(db string) string {
	q := url.Values{"host": {c.run}, "port": {strconv.Itoa(c.socketPort())}, "user": {dbUser}, "sslmode": {"disable"}}
	return (&url.URL{Scheme: "postgres", Path: "/" + db, RawQuery: q.Encode()}).String()
}

// TCPURL returns how to connect to a database over loopback, password included.
func (c *Cluster) TCPURL(db string) (string, error) {
	if c.port == 0 {
		return "", errors.New("the PostgreSQL cluster has no TCP port: give one in its configuration")
	}
	password, err := os.ReadFile(filepath.Join(c.dir, "password"))
	if err != nil {
		return "", err
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword(dbUser, strings.TrimSpace(string(password))),
		Host: fmt.Sprintf("127.0.0.1:%d", c.port), Path: "/" + db}
	return u.String(), nil
}

// EnsureDatabase makes a database unless it is there.
func (c *Cluster) EnsureDatabase(ctx context.Context, db string) error {
	conn, err := pgx.Connect(ctx, c.URL("postgres"))
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL in %s: %w", c.dir, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var there bool
	if err := conn.QueryRow(ctx, "select exists (select from pg_database where datname = $1)", db).Scan(&there); err != nil {
		return fmt.Errorf("look for database %s: %w", db, err)
	}
	if there {
		return nil
	}
	if _, err := conn.Exec(ctx, "create database "+pgx.Identifier{db}.Sanitize()); err != nil {
		return fmt.Errorf("create database %s: %w", db, err)
	}
	return nil
}

func (c *Cluster) socketPort() int {
	if c.port != 0 {
		return c.port
	}
	return socketPort
}

func layout(cfg Config) (*Cluster, error) {
	if cfg.Dir == "" {
		return nil, errors.New("PostgreSQL cluster: name a directory")
	}
	if cfg.Port < 0 || cfg.Port > 65535 {
		return nil, fmt.Errorf("PostgreSQL cluster: port %d: want 0 (none) to 65535", cfg.Port)
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	// The server's working directory is compared with this name, so it must be the real one.
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	c := &Cluster{dir: dir, data: filepath.Join(dir, "data"), run: filepath.Join(dir, "run"), port: cfg.Port}
	if len(c.run) > maxSocketDir {
		return nil, fmt.Errorf("PostgreSQL cluster: %s has %d bytes, at most %d leave room for a socket: choose a shorter directory",
			c.run, len(c.run), maxSocketDir)
	}
	return c, nil
}

// lockDir keeps two processes from starting or stopping the same server at once.
func lockDir(dir string) (func(), error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

// prepare makes the cluster if there is none, and says who may connect.
func (c *Cluster) prepare(ctx context.Context, bin string, acct account) error {
	if err := acct.canEnter(c.dir); err != nil {
		return err
	}
	for _, d := range []struct {
		name string
		mode os.FileMode
	}{{c.data, 0o700}, {c.run, 0o755}} {
		if err := os.MkdirAll(d.name, d.mode); err != nil {
			return err
		}
		if err := os.Chown(d.name, acct.uid, acct.gid); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(c.data, "PG_VERSION")); errors.Is(err, os.ErrNotExist) {
		if err := c.initdb(ctx, bin, acct); err != nil {
			return err
		}
	}
	if err := clearRemains(ctx, c.data); err != nil {
		return err
	}
	hba := "local all all peer map=muster\nhost all all 127.0.0.1/32 scram-sha-256\n"
	var ident strings.Builder
	for _, name := range acct.users() {
		fmt.Fprintf(&ident, "muster %s %s\n", name, dbUser)
	}
	for name, text := range map[string]string{"pg_hba.conf": hba, "pg_ident.conf": ident.String()} {
		if err := os.WriteFile(filepath.Join(c.data, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// initdb makes the cluster beside its place and moves it there, so that an interrupted run leaves
// nothing half made.
func (c *Cluster) initdb(ctx context.Context, bin string, acct account) error {
	password := rand.Text() + "\n"
	if err := os.WriteFile(filepath.Join(c.dir, "password"), []byte(password), 0o600); err != nil {
		return err
	}
	// initdb reads it as the server's account, from a file of that account.
	pwfile := filepath.Join(c.run, "pwfile")
	if err := os.WriteFile(pwfile, []byte(password), 0o600); err != nil {
		return err
	}
	defer os.Remove(pwfile)
	if err := os.Chown(pwfile, acct.uid, acct.gid); err != nil {
		return err
	}
	half := halfMade(c.dir)
	if err := removeHalfMade(ctx, half); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", half, "-U", dbUser, "--pwfile="+pwfile,
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions")
	cmd.Dir, cmd.SysProcAttr = "/", acct.attributes()
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make PostgreSQL cluster in %s: %w\n%s", c.data, err, out)
	}
	if err := os.Remove(c.data); err != nil {
		return fmt.Errorf("%s is neither empty nor a PostgreSQL cluster: %w", c.data, err)
	}
	return os.Rename(half, c.data)
}

// start runs the server. A thread of its own starts it and waits for it, because the death of the
// thread, not of the process, is what ends a server that is not detached.
func (c *Cluster) start(bin string, acct account, cfg Config) error {
	log, err := os.OpenFile(filepath.Join(c.dir, "postgres.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(bin, "postgres"), c.arguments(cfg)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = c.data, log, log, acct.attributes()
	cmd.SysProcAttr.Setsid = true
	if !cfg.Detached {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	}
	c.exited = make(chan struct{})
	started := make(chan error, 1)
	go func() {
		defer close(c.exited)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait() // how it ended is in its log
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	return nil
}

// bufferMB returns how much memory PostgreSQL keeps pages in: a quarter of what the machine has, as its
// manual advises, within bounds. A server that nobody's data depends on gets the least.
func bufferMB(cfg Config) int {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); cfg.FastUnsafe || err != nil {
		return minBufferMB
	}
	total := info.Totalram * uint64(info.Unit) >> 20
	return int(min(max(total/4, minBufferMB), maxBufferMB))
}

func (c *Cluster) arguments(cfg Config) []string {
	settings := []string{
		"unix_socket_directories=" + c.run,
		fmt.Sprintf("port=%d", c.socketPort()),
		"listen_addresses=",
		fmt.Sprintf("max_connections=%d", maxConnections),
		fmt.Sprintf("shared_buffers=%dMB", bufferMB(cfg)),
		// After a checkpoint the first change of each page writes the whole page to the log: so, few of them.
		fmt.Sprintf("max_wal_size=%dMB", maxWALMB), "checkpoint_timeout=15min",
		"password_encryption=scram-sha-256",
		"log_min_messages=warning",
	}
	if cfg.Port != 0 {
		settings = append(settings, "listen_addresses=127.0.0.1")
	}
	if cfg.FastUnsafe {
		settings = append(settings, "fsync=off", "full_page_writes=off")
	}
	args := []string{"-D", c.data}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	return args
}

func (c *Cluster) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	err := waitFor(ctx, func() (bool, error) {
		if c.exited != nil {
			select {
			case <-c.exited:
				return false, errors.New("it ended")
			default:
			}
		}
		return postmaster(c.data) != 0 && ready(c.data), nil
	})
	if err != nil {
		return fmt.Errorf("start PostgreSQL in %s: %w; its log ends:\n%s", c.data, err, tail(filepath.Join(c.dir, "postgres.log")))
	}
	return nil
}
