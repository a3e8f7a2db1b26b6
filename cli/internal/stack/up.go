package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"muster/internal/identity"
	"muster/internal/lease"
	"muster/internal/pgcluster"
	"muster/internal/privatecontainerd"
)

const (
	// readyTime is how long a daemon may take until it is ready.
	readyTime = 30 * time.Second
	// probeEvery is how often a starting daemon is asked.
	probeEvery = 10 * time.Millisecond
	// answerTime is how long a running daemon may take to say that it is healthy.
	answerTime = 2 * time.Second
	// systemContainerd is where a containerd of the machine itself listens.
	systemContainerd = "/run/containerd/containerd.sock"
)

// UpOptions say what to bring up.
type UpOptions struct {
	StateDir    string
	BinDir      string // where the programs are
	NoInstall   bool   // missing packages are an error
	InstallOnly bool   // stop after the packages
	NoSample    bool   // do not run the sample app
	PortBase    int    // 0: the ports as they are
	Ports       map[string]int
	Name        string // empty: as it is
	Subnets     string // empty: as it is
	Lease       string // postgres or consul; empty: as it is
}

// upper is one Up at work.
type upper struct {
	*Stack
	options  UpOptions
	report   *Report
	database string // URL of the BBS's database
}

// Result says what an Up has brought up.
type Result struct {
	Stack *Stack
	URL   string // of the sample app; empty without it
}

// Up brings up what is not up yet. It can be repeated at any time, and after having been killed.
func Up(ctx context.Context, o UpOptions, report *Report) (*Result, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("starting containers needs root: run it with sudo, or as root")
	}
	if o.InstallOnly {
		return nil, installOnly(ctx, o, report)
	}
	dir, err := filepath.Abs(o.StateDir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "log"), 0o755); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	s, err := load(dir)
	if err != nil {
		return nil, err
	}
	unlock, err := lock(ctx, s, "up")
	if err != nil {
		return nil, err
	}
	defer unlock()
	u := &upper{Stack: s, options: o, report: report}
	if err := report.step("packages", func() (string, error) { return u.install(ctx) }); err != nil {
		return nil, err
	}
	if err := u.settle(ctx); err != nil {
		return nil, err
	}
	if err := u.everything(ctx); err != nil {
		return nil, err
	}
	if o.NoSample {
		return &Result{Stack: s}, nil
	}
	url, err := u.sample(ctx)
	return &Result{Stack: s, URL: url}, err
}

// installOnly installs what is missing. It leaves no stack behind, and a log only when it fails.
func installOnly(ctx context.Context, o UpOptions, report *Report) error {
	dir, err := os.MkdirTemp("", "muster-install-")
	if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, "log"), 0o755); err != nil {
		return err
	}
	u := &upper{Stack: fresh(dir), options: o, report: report}
	if err := report.step("packages", func() (string, error) { return u.install(ctx) }); err != nil {
		return err
	}
	if o.Lease == lease.Consul {
		err := report.step(consulPart, func() (string, error) { return u.consulProgram(ctx) })
		if err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

// settle decides everything that the parts must agree on and writes it down before anything starts.
func (u *upper) settle(ctx context.Context) error {
	return u.report.step("layout", func() (string, error) {
		if err := u.rename(); err != nil {
			return "", err
		}
		if err := u.chooseLease(); err != nil {
			return "", err
		}
		if err := u.setPorts(u.options.PortBase, u.options.Ports); err != nil {
			return "", err
		}
		if u.Host == nil {
			host, err := lookAtHost()
			if err != nil {
				return "", err
			}
			u.Host = host
		}
		for _, d := range []string{"config", "images", "cells"} {
			if err := os.MkdirAll(u.path(d), 0o755); err != nil {
				return "", err
			}
		}
		if err := u.certificates(); err != nil {
			return "", err
		}
		if err := errors.Join(u.programs(), u.portsFree()); err != nil {
			return "", err
		}
		return u.StateDir + ", certificates, ports", u.save()
	})
}

// rename applies --name and --subnets, which cannot change under running containers.
func (u *upper) rename() error {
	name, subnets := u.Name, u.Subnets
	if u.options.Name != "" {
		name = u.options.Name
	}
	if u.options.Subnets != "" {
		subnets = u.options.Subnets
	}
	const longest = 13 // a bridge's name has 15 at most
	if len(name) > longest || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("--name %q: want at most %d small letters, digits and -", name, longest)
	}
	if _, _, err := net.ParseCIDR(subnets + ".0.0/16"); err != nil || strings.Count(subnets, ".") != 1 {
		return fmt.Errorf("--subnets %q: want the first two numbers of the cells' subnets, such as %s", subnets, defaultSubnets)
	}
	changed := name != u.Name || subnets != u.Subnets
	if _, err := os.Stat(u.path("stack.json")); err == nil && changed {
		return fmt.Errorf("this stack is called %s with subnets %s: muster down first, to change that", u.Name, u.Subnets)
	}
	u.Name, u.Subnets = name, subnets
	return nil
}

// certificates issues those that are missing or end soon.
func (u *upper) certificates() error {
	ca, err := identity.OpenCA(u.CertsDir())
	if err != nil {
		return err
	}
	var ids []identity.ID
	for _, r := range identity.Roles {
		if r != identity.Rep {
			ids = append(ids, identity.ID{Role: r})
		}
	}
	for i := 1; i <= Cells; i++ {
		ids = append(ids, identity.ID{Role: identity.Rep, Cell: cellName(i)})
	}
	for _, id := range ids {
		st, err := os.Stat(identity.FilesOf(u.CertsDir(), id).Cert)
		if err == nil && time.Since(st.ModTime()) < identity.LeafValidity/2 {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if _, err := ca.Issue(id); err != nil {
			return err
		}
	}
	return nil
}

// portsFree looks at the ports of all parts that do not run, before anything starts.
func (u *upper) portsFree() error {
	running, err := find(u.StateDir)
	if err != nil {
		return err
	}
	var errs []error
	for _, part := range u.parts() {
		if len(running[part]) == 0 {
			errs = append(errs, u.checkFree(partPorts()[part]...))
		}
	}
	return errors.Join(errs...)
}

// everything starts the parts in the order of their dependencies; parts of one row at the same time.
func (u *upper) everything(ctx context.Context) error {
	rows := [][]func(context.Context) error{
		{u.postgres, u.nats, u.containerd, u.consul},
		{u.daemon("bbs")},
		{u.daemon("auctioneer"), u.daemon("route-emitter"), u.daemon("gorouter"),
			u.daemon(cellName(1)), u.daemon(cellName(2)), u.daemon(cellName(3))},
	}
	for _, row := range rows {
		group, gctx := errgroup.WithContext(ctx)
		for _, start := range row {
			group.Go(func() error { return start(gctx) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	return u.stopUnusedConsul(ctx)
}

func (u *upper) postgres(ctx context.Context) error {
	return u.report.step("postgres", func() (string, error) {
		c, err := pgcluster.Open(ctx, pgcluster.Config{Dir: u.path("postgres"), Detached: true})
		if err != nil {
			return "", err
		}
		const database = "muster"
		if err := c.EnsureDatabase(ctx, database); err != nil {
			return "", err
		}
		u.database = c.URL(database)
		return fmt.Sprintf("process %d, %s", c.PID(), u.path("postgres")), nil
	})
}

// containerd uses that of the machine when there is one, and else starts a private one. Once
// decided it stays so, since containers cannot move.
func (u *upper) containerd(ctx context.Context) error {
	return u.report.step("containerd", func() (string, error) {
		private := u.path("containerd")
		if u.Containerd == "" && listens(ctx, systemContainerd) {
			u.Containerd = systemContainerd
		}
		if u.Containerd == systemContainerd {
			if !listens(ctx, systemContainerd) {
				return "", fmt.Errorf("the machine's containerd at %s does not answer: start it (systemctl start containerd), or muster down and up for a private one", systemContainerd)
			}
			return "the machine's own, " + systemContainerd, u.save()
		}
		d, err := privatecontainerd.Open(ctx, privatecontainerd.Config{Dir: private, Detached: true})
		if err != nil {
			return "", err
		}
		u.Containerd = d.Address
		return fmt.Sprintf("process %d, %s", d.PID, d.Address), u.save()
	})
}

func listens(ctx context.Context, socket string) bool {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

func (u *upper) nats(ctx context.Context) error { return u.part(ctx, "nats") }

func (u *upper) daemon(part string) func(context.Context) error {
	return func(ctx context.Context) error { return u.part(ctx, part) }
}

// part makes sure that one daemon runs: the program and configuration of today, and healthy.
func (u *upper) part(ctx context.Context, part string) error {
	return u.report.step(part, func() (string, error) {
		spec, err := u.spec(ctx, part)
		if err != nil {
			return "", err
		}
		running, err := find(u.StateDir)
		if err != nil {
			return "", err
		}
		digest, err := spec.digest()
		if err != nil {
			return "", fmt.Errorf("look at %s: %w", spec.exe, err)
		}
		why := ""
		for _, p := range running[part] {
			if why = u.whyNot(ctx, p, digest, spec); why == "" && len(running[part]) == 1 {
				return fmt.Sprintf("runs since %s, process %d, %s", p.Since.Format("15:04:05"), p.PID, u.where(part)), nil
			}
			if err := stop(ctx, p, u.StateDir); err != nil {
				return "", err
			}
		}
		if err := u.checkFree(spec.ports...); err != nil {
			return "", err
		}
		pid, err := u.start(ctx, spec)
		if err != nil {
			return "", err
		}
		did := fmt.Sprintf("process %d, %s", pid, u.where(part))
		if why != "" {
			did += ", " + why
		}
		return did, nil
	})
}

// whyNot says why a running process must be replaced; empty: it need not.
func (u *upper) whyNot(ctx context.Context, p livePart, digest string, spec daemonSpec) string {
	if p.Digest != digest {
		return "new program or settings"
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if err := spec.ready(ctx); err != nil {
		return "the old one did not answer"
	}
	return ""
}

// healthy waits until a daemon's debug address says that it is healthy.
func healthy(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		return probe(ctx, func(ctx context.Context) error { return health(ctx, address) })
	}
}

// health asks once.
func health(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/healthz", nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text := make([]byte, 200)
		n, _ := resp.Body.Read(text)
		return fmt.Errorf("%s says %s: %s", address, resp.Status, strings.TrimSpace(string(text[:n])))
	}
	return nil
}

// accepts waits until somebody listens.
func accepts(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		return probe(ctx, func(ctx context.Context) error { return dial(ctx, address) })
	}
}

// dial tries once whether somebody listens.
func dial(ctx context.Context, address string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// probe asks until the answer is yes, and returns the last no when ctx ends before.
func probe(ctx context.Context, ask func(context.Context) error) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	var last error
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return last
		case <-tick.C:
		}
	}
}
