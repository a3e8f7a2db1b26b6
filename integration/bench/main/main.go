// Command main measures the main job: from the call that desires an application, through BBS,
// auctioneer, cell, route-emitter and router, to the first HTTP answer; and from its removal to the
// first 404. In the same run, in turn with it, it starts the same image through the plain containerd
// client, with CNI and nothing else, as the measure of what the machine can do.
//
// It brings up a stack of its own beside any other and takes it down again. Progress goes to standard
// error, one JSON object to standard output:
//
//	{"bench":"main","runs":20,"desire_to_http_ms_p50":…,"desire_to_http_ms_p99":…,
//	 "raw_containerd_ms_p50":…,"raw_containerd_ms_p99":…,"ratio_p50":…,"delete_to_404_ms_p50":…}
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/bbs/lrp/cfroute"
	"muster/cells/containerd"
	"muster/cells/containerd/rawbench"
	"muster/cells/engine"
	"muster/integration/apps/image"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/rep/repclient"
)

// The stack of the benchmark; nothing of it is shared with another one.
const (
	name      = "mbench"
	subnets   = "10.253"
	httpPort  = 27000
	bbsPort   = 27003
	portsFrom = 27100
	hostPorts = 64000
	rawSubnet = "10.253.200.0/24"
	appPort   = 8080
	// answerTime bounds one wait for an answer, or for the end of answers.
	answerTime = 60 * time.Second
	// pollPause is the time between two requests while waiting; it bounds the error of a measurement.
	pollPause = time.Millisecond
)

func main() {
	runs := flag.Int("runs", 20, "how many times to measure, 1 to 1000")
	bin := flag.String("bin", "bin", "directory of the built programs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *bin, *runs); err != nil {
		fmt.Fprintln(os.Stderr, "bench/main:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin string, runs int) (err error) {
	if runs < 1 || runs > 1000 {
		return fmt.Errorf("-runs %d: want 1 to 1000", runs)
	}
	// Not below /tmp: that may be a file system of another kind.
	dir, err := os.MkdirTemp("/var/lib", "muster-bench-")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL runs as another account
		return err
	}
	muster := func(args ...string) error {
		cmd := exec.Command(filepath.Join(bin, "muster"), append([]string{"--state-dir", dir}, args...)...)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		return cmd.Run()
	}
	defer func() { err = errors.Join(err, muster("down"), os.RemoveAll(dir)) }()
	if err := muster("up", "--no-sample", "--name", name, "--subnets", subnets, "--port-base", fmt.Sprint(portsFrom),
		"--port", fmt.Sprintf("http=%d", httpPort), "--port", fmt.Sprintf("bbs=%d", bbsPort),
		"--port", fmt.Sprintf("containers=%d", hostPorts)); err != nil {
		return fmt.Errorf("bring up the stack: %w", err)
	}
	archive := filepath.Join(dir, "images", "hello.tar")
	if err := image.FromBinary(filepath.Join(bin, "hello"), archive); err != nil {
		return err
	}
	rootFS := "oci-archive://" + archive
	bench, err := openRaw(ctx, dir, rootFS)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bench.Close(context.WithoutCancel(ctx))) }()
	m := &measurement{rootFS: rootFS, raw: bench}
	if err := m.dial(ctx, identity.FilesOf(filepath.Join(dir, "certs"), identity.ID{Role: identity.Operator})); err != nil {
		return err
	}
	// The first turn unpacks the image on the cells and is not counted; three, because there are three cells.
	for i := range runs + 3 {
		if err := m.turn(ctx, i, i >= 3); err != nil {
			return err
		}
	}
	return m.report(os.Stdout)
}

func openRaw(ctx context.Context, dir, rootFS string) (*rawbench.Bench, error) {
	cfg := containerd.Defaults()
	cfg.Address = filepath.Join(dir, "containerd", "containerd.sock")
	if _, err := os.Stat(cfg.Address); err != nil {
		cfg.Address = containerd.Defaults().Address // the machine has one of its own, which the stack uses
	}
	cfg.Namespace, cfg.StateDir, cfg.ImageDir = name+"-raw", filepath.Join(dir, "raw"), filepath.Join(dir, "images")
	cfg.CgroupParent, cfg.Bridge, cfg.Subnet = "/"+name+"/raw", name+"raw", rawSubnet
	return rawbench.Open(ctx, cfg, rootFS)
}

// dial connects to the BBS and to every cell it knows. The connections last as long as the process.
func (m *measurement) dial(ctx context.Context, files identity.Files) error {
	tlsConfig, err := files.Client(identity.BBS, identity.Rep)
	if err != nil {
		return err
	}
	conn, err := daemon.DialGRPC(fmt.Sprintf("127.0.0.1:%d", bbsPort), tlsConfig)
	if err != nil {
		return err
	}
	m.client = bbsclient.New(conn)
	present, _, err := m.client.Cells(ctx)
	if err != nil {
		return err
	}
	for _, c := range present {
		conn, err := daemon.DialGRPC(strings.TrimPrefix(c.RepURL, "https://"), tlsConfig)
		if err != nil {
			return err
		}
		m.reps = append(m.reps, repclient.New(conn))
	}
	return nil
}

type measurement struct {
	client *bbsclient.Client
	rootFS string
	raw    *rawbench.Bench
	reps   []*repclient.Client

	toHTTP, rawStart, to404 []time.Duration
}

// turn measures one raw start and one life of an application.
func (m *measurement) turn(ctx context.Context, i int, counted bool) error {
	raw, err := m.raw.Run(ctx, rawbench.Spec{
		ID: fmt.Sprintf("raw-%d", i), Args: []string{"/bin/hello"},
		Ports: []engine.Port{{Container: appPort, Host: uint16(hostPorts - 1000 + i)}},
	})
	if err != nil {
		return err
	}
	guid, host := lrp.ProcessGUID(fmt.Sprintf("bench-%d", i)), fmt.Sprintf("bench-%d.localhost", i)
	d, err := desired(guid, host, m.rootFS)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := m.client.Desire(ctx, d); err != nil {
		return fmt.Errorf("desire: %w", err)
	}
	if err := await(ctx, host, http.StatusOK); err != nil {
		return err
	}
	toHTTP := time.Since(began)
	began = time.Now()
	if err := m.client.RemoveDesired(ctx, guid); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	if err := await(ctx, host, http.StatusNotFound); err != nil {
		return err
	}
	to404 := time.Since(began)
	if err := m.settled(ctx); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "turn %2d: raw %v, desire to HTTP %v, delete to 404 %v\n", i, raw, toHTTP, to404)
	if counted {
		m.rawStart, m.toHTTP, m.to404 = append(m.rawStart, raw), append(m.toHTTP, toHTTP), append(m.to404, to404)
	}
	return nil
}

// settled waits until no cell holds anything of the last turn, so that its removal does not weigh on
// the next one, be it raw or ours.
func (m *measurement) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	for _, rep := range m.reps {
		for {
			state, err := rep.State(ctx)
			if err != nil {
				return err
			}
			if len(state.Instances) == 0 {
				break
			}
			time.Sleep(10 * pollPause)
		}
	}
	return nil
}

func desired(guid lrp.ProcessGUID, host, rootFS string) (lrp.Desired, error) {
	routes, err := cfroute.Marshal([]cfroute.Route{{Hostnames: []string{host}, Port: appPort}})
	if err != nil {
		return lrp.Desired{}, err
	}
	return lrp.Desired{
		Process: guid, Domain: "bench", LogGUID: string(guid), Instances: 1, RootFS: rootFS,
		MemoryMB: 64, DiskMB: 64, Routes: map[string][]byte{cfroute.Group: routes},
		MetricTags: map[string]lrp.MetricTag{"source_id": {Static: string(guid)}},
		RunInfo: lrp.RunInfo{
			Action: &lrp.Action{Run: &lrp.RunAction{Path: "/bin/hello", User: "app", Env: []lrp.EnvVar{{Name: "PORT", Value: fmt.Sprint(appPort)}}}},
			Ports:  []uint32{appPort},
			Check:  &lrp.CheckDefinition{Checks: []lrp.Check{{HTTP: &lrp.HTTPCheck{Port: appPort, Path: "/healthz"}}}},
		},
	}, nil
}

// await asks the router until it answers with a status.
func await(ctx context.Context, host string, want int) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", httpPort), nil)
	if err != nil {
		return err
	}
	req.Host = host
	last := "no answer"
	for {
		res, err := http.DefaultClient.Do(req)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("wait for status %d of %s: %w; last: %s", want, host, ctx.Err(), last)
		case err != nil:
			last = err.Error()
		default:
			_, err := io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode == want && err == nil {
				return nil
			}
			last = res.Status
		}
		time.Sleep(pollPause)
	}
}

func (m *measurement) report(w io.Writer) error {
	return json.NewEncoder(w).Encode(struct {
		Bench   string  `json:"bench"`
		Runs    int     `json:"runs"`
		HTTP50  float64 `json:"desire_to_http_ms_p50"`
		HTTP99  float64 `json:"desire_to_http_ms_p99"`
		Raw50   float64 `json:"raw_containerd_ms_p50"`
		Raw99   float64 `json:"raw_containerd_ms_p99"`
		Ratio   float64 `json:"ratio_p50"`
		Gone404 float64 `json:"delete_to_404_ms_p50"`
	}{
		"main", len(m.toHTTP), quantile(m.toHTTP, 0.5), quantile(m.toHTTP, 0.99), quantile(m.rawStart, 0.5), quantile(m.rawStart, 0.99),
		math.Round(quantile(m.toHTTP, 0.5)/quantile(m.rawStart, 0.5)*100) / 100, quantile(m.to404, 0.5),
	})
}

// quantile returns a quantile in milliseconds: the smallest value that at least that share of all
// values does not exceed.
func quantile(values []time.Duration, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	v := sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
	return math.Round(float64(v)/float64(time.Microsecond)) / 1000
}
