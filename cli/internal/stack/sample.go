package stack

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/bbs/lrp/cfroute"
	"muster/integration/apps/image"
	"muster/internal/daemon"
	"muster/internal/identity"
)

// The sample application.
const (
	SampleName      = "hello"
	SampleRoute     = "hello.localhost"
	sampleProgram   = "hello" // beside the daemons
	samplePort      = 8080
	sampleInstances = 3
	sampleMemoryMB  = 64
	sampleDiskMB    = 64
	// sampleTime bounds everything about it.
	sampleTime = time.Minute
)

// sample runs the sample application, unless it is there, and waits until it answers.
func (u *upper) sample(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, sampleTime)
	defer cancel()
	var archive string
	err := u.report.step("sample image", func() (did string, err error) {
		archive, did, err = u.sampleImage()
		return did, err
	})
	if err != nil {
		return "", err
	}
	toBBS, err := u.tls(identity.Operator).Client(identity.BBS)
	if err != nil {
		return "", err
	}
	conn, err := daemon.DialGRPC(u.BBSAddress(), toBBS)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	bbs := bbsclient.New(conn)
	err = u.report.step("sample app", func() (string, error) { return u.desireSample(ctx, bbs, archive) })
	if err != nil {
		return "", err
	}
	url := u.URL(SampleRoute)
	err = u.report.step("first request", func() (string, error) { return u.awaitSample(ctx, bbs, url) })
	return url, err
}

// sampleImage makes the image of the sample program, once for each version of it.
func (u *upper) sampleImage() (archive, did string, err error) {
	exe, err := binary(u.options.BinDir, sampleProgram)
	if err != nil {
		return "", "", err
	}
	if err := checkStatic(exe); err != nil {
		return "", "", err
	}
	id, err := buildID(exe)
	if err != nil {
		return "", "", fmt.Errorf("look at %s: %w", exe, err)
	}
	archive = u.path("images", "sample-"+digestOf(id)+".tar")
	if _, err := os.Stat(archive); err == nil {
		return archive, "there already, " + archive, nil
	}
	tmp := archive + ".new"
	if err := image.FromBinary(exe, tmp); err != nil {
		return "", "", errors.Join(fmt.Errorf("make the image of %s: %w", exe, err), os.RemoveAll(tmp))
	}
	return archive, archive, os.Rename(tmp, archive)
}

// checkStatic refuses a program that needs a loader: there is nothing else in its image.
func checkStatic(exe string) error {
	f, err := elf.Open(exe)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("program %s is linked dynamically and cannot run in an image of its own: build it with CGO_ENABLED=0", exe)
		}
	}
	return nil
}

func (u *upper) desireSample(ctx context.Context, bbs *bbsclient.Client, archive string) (string, error) {
	route, err := cfroute.Marshal([]cfroute.Route{{Hostnames: []string{SampleRoute}, Port: samplePort}})
	if err != nil {
		return "", err
	}
	d := lrp.Desired{
		Process: SampleName, Domain: Domain, LogGUID: SampleName,
		Instances: sampleInstances, MemoryMB: sampleMemoryMB, DiskMB: sampleDiskMB,
		RootFS: "oci-archive://" + archive, Routes: map[string][]byte{cfroute.Group: route},
		MetricTags: map[string]lrp.MetricTag{"source_id": {Static: SampleName}},
		RunInfo: lrp.RunInfo{
			StartTimeoutMS: sampleTime.Milliseconds(), LogSource: "APP", Ports: []uint32{samplePort},
			Action: &lrp.Action{Run: &lrp.RunAction{
				Path: "/bin/" + sampleProgram, User: "app", Dir: "/",
				Env: []lrp.EnvVar{{Name: "PORT", Value: fmt.Sprint(samplePort)}, {Name: "PROCESS_GUID", Value: SampleName}},
			}},
			Check: &lrp.CheckDefinition{
				Checks:    []lrp.Check{{TCP: &lrp.TCPCheck{Port: samplePort}}},
				LogSource: "HEALTH",
			},
		},
	}
	err = bbs.Desire(ctx, d)
	var refusal *lrp.Refusal
	if errors.As(err, &refusal) && refusal.Why == lrp.Exists {
		return SampleName + " is there already", nil
	}
	if err != nil {
		return "", fmt.Errorf("desire %s: %w", SampleName, err)
	}
	return fmt.Sprintf("%s desired, %d instances", SampleName, sampleInstances), nil
}

// awaitSample waits until the sample app answers through the router, which is all that counts.
func (u *upper) awaitSample(ctx context.Context, bbs *bbsclient.Client, url string) (string, error) {
	var answer string
	var err error
	lastLook := time.Now()
	_ = probe(ctx, func(ctx context.Context) error {
		if answer, err = request(ctx, u.address(portHTTP), SampleRoute); err == nil {
			return nil
		}
		// Waiting longer does not help an app that crashes again and again.
		if time.Since(lastLook) > time.Second {
			if lastLook = time.Now(); u.sampleCrashed(ctx, bbs) {
				return nil
			}
		}
		return err
	})
	if err == nil {
		return fmt.Sprintf("%s answers: %s", url, answer), nil
	}
	// A fresh context: that one has ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
	defer cancel()
	return "", fmt.Errorf("%s does not answer: %w%s", url, err, u.sampleState(ctx, bbs))
}

// sampleCrashed tells whether no instance is left that may come up soon.
func (u *upper) sampleCrashed(ctx context.Context, bbs *bbsclient.Client) bool {
	actuals, _, err := bbs.Actuals(ctx, bbsclient.ActualFilter{Process: SampleName})
	if err != nil || len(actuals) == 0 {
		return false
	}
	for _, a := range actuals {
		if a.State != lrp.Crashed {
			return false
		}
	}
	return true
}

// sampleState says what the instances of the sample app are up to.
func (u *upper) sampleState(ctx context.Context, bbs *bbsclient.Client) string {
	actuals, _, err := bbs.Actuals(ctx, bbsclient.ActualFilter{Process: SampleName})
	if err != nil {
		return ""
	}
	var text strings.Builder
	for _, a := range actuals {
		fmt.Fprintf(&text, "; %v is %s", a.Slot, a.State)
		if a.Cell != "" {
			fmt.Fprintf(&text, " on %s (log: %s)", a.Cell, u.log(string(a.Cell)))
		}
		if a.PlacementError != "" {
			fmt.Fprintf(&text, ": %s", a.PlacementError)
		}
		if a.CrashReason != "" {
			fmt.Fprintf(&text, ", crashed %d times: %s", a.CrashCount, a.CrashReason)
		}
	}
	return text.String()
}

// request asks the router for a host, and returns the first line of a good answer. The name need not
// resolve: not every resolver knows names below localhost.
func request(ctx context.Context, address, host string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return "", err
	}
	req.Host = host
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	const most = 1 << 10
	text, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", resp.Status, line)
	}
	return line, nil
}
