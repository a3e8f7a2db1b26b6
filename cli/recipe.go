package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"muster/bbs/lrp"
	"muster/bbs/lrp/cfroute"
	"muster/cli/internal/image"
)

// startTimeout is how long an instance may take to become healthy.
const startTimeout = time.Minute

// runOptions are the flags of "muster run".
type runOptions struct {
	image            string
	name             string
	instances        int32
	routes           []string
	port             uint32
	noRoute          bool
	memory, disk     string
	env              []string
	check, checkPath string
	domain, user     string
	imageDir         string
	noWait           bool
	timeout          time.Duration
	memoryMB, diskMB int32        // from memory and disk
	environment      []lrp.EnvVar // from env
}

// validate reports every problem that can be seen without the image, and fills in what follows from
// the flags.
func (o *runOptions) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.name == "" {
		o.name = defaultName(o.image)
	}
	if o.instances < 0 {
		bad("--instances %d: want 0 or more", o.instances)
	}
	if o.port > 65535 {
		bad("--port %d: want 1 to 65535", o.port)
	}
	if o.port != 0 && len(o.routes) == 0 && !o.noRoute {
		bad("--port %d without --route: nothing would reach it; add --route HOST, or --no-route to only check it", o.port)
	}
	if o.noRoute && len(o.routes) > 0 {
		bad("--no-route contradicts --route %s", o.routes[0])
	}
	for _, r := range o.routes {
		if err := checkRoute(r); err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	if o.memoryMB, err = parseMiB(o.memory); err != nil {
		bad("--memory %w", err)
	}
	if o.diskMB, err = parseMiB(o.disk); err != nil {
		bad("--disk %w", err)
	}
	for _, e := range o.env {
		name, value, found := strings.Cut(e, "=")
		if !found || name == "" {
			bad("--env %q: want NAME=VALUE", e)
			continue
		}
		o.environment = append(o.environment, lrp.EnvVar{Name: name, Value: value})
	}
	if o.checkPath != "" {
		if o.check == "" {
			o.check = "http"
		}
		if !strings.HasPrefix(o.checkPath, "/") {
			bad("--check-path %q: want a path that begins with /", o.checkPath)
		}
		if o.check != "http" {
			bad("--check-path %s is for --check http, not for --check %s", o.checkPath, o.check)
		}
	}
	if !slices.Contains([]string{"", "http", "tcp", "none"}, o.check) {
		bad("--check %q: want http, tcp or none", o.check)
	}
	if len(errs) > 0 {
		return usageError{errors.Join(errs...)}
	}
	return nil
}

// checkRoute wants HOST or HOST/PATH.
func checkRoute(r string) error {
	host, _, _ := strings.Cut(r, "/")
	switch {
	case strings.Contains(r, "://"):
		return fmt.Errorf("--route %q: want HOST or HOST/PATH, without the scheme", r)
	case strings.Contains(host, ":"):
		return fmt.Errorf("--route %q: want HOST or HOST/PATH, without a port; --port is that of the application", r)
	case host == "" || strings.ContainsAny(r, " ?#"):
		return fmt.Errorf("--route %q: want HOST or HOST/PATH", r)
	}
	return nil
}

// parseMiB reads an amount of memory or disk: MiB without a unit, or with M or G.
func parseMiB(text string) (int32, error) {
	number, factor := strings.ToUpper(strings.TrimSpace(text)), int64(1)
	number = strings.TrimSuffix(strings.TrimSuffix(number, "B"), "I")
	switch {
	case strings.HasSuffix(number, "G"):
		number, factor = strings.TrimSuffix(number, "G"), 1024
	case strings.HasSuffix(number, "M"):
		number = strings.TrimSuffix(number, "M")
	}
	n, err := strconv.ParseInt(number, 10, 32)
	if err != nil || n < 0 || n*factor > 1<<31-1 {
		return 0, fmt.Errorf("%q: want a whole number of MiB such as 64M, or of GiB such as 1G", text)
	}
	return int32(n * factor), nil
}

// desired makes the DesiredLRP of an image, without its root file system.
func (o *runOptions) desired(img *image.Image) (lrp.Desired, error) {
	port, err := o.choosePort(img)
	if err != nil {
		return lrp.Desired{}, err
	}
	command := append(slices.Clone(img.Config.Entrypoint), img.Config.Cmd...)
	if len(command) == 0 {
		return lrp.Desired{}, advise(fmt.Errorf("image %s does not say what to run: it has neither an entrypoint nor a command", img.Name),
			"build it with one, or desire it with a run_action of your own: muster desire --help")
	}
	user := o.user
	if user == "" {
		user = img.Config.User
	}
	if user == "" {
		user = "root" // as for every other tool that runs images
	}
	d := lrp.Desired{
		Process: lrp.ProcessGUID(o.name), Domain: lrp.Domain(o.domain), LogGUID: o.name,
		Instances: o.instances, MemoryMB: o.memoryMB, DiskMB: o.diskMB,
		MetricTags: map[string]lrp.MetricTag{"source_id": {Static: o.name}},
		RootFS:     img.RootFS,
		RunInfo: lrp.RunInfo{
			StartTimeoutMS: startTimeout.Milliseconds(), LogSource: "APP",
			Action: &lrp.Action{Run: &lrp.RunAction{
				Path: command[0], Args: command[1:], Dir: workDir(img), User: user,
				Env: o.allEnv(img, port),
			}},
		},
	}
	if port == 0 {
		return d, nil
	}
	d.RunInfo.Ports = []uint32{port}
	d.RunInfo.Check = o.checkDefinition(port)
	if len(o.routes) > 0 {
		value, err := cfroute.Marshal([]cfroute.Route{{Hostnames: o.routes, Port: port}})
		if err != nil {
			return lrp.Desired{}, fmt.Errorf("write routes: %w", err)
		}
		d.Routes = map[string][]byte{cfroute.Group: value}
	}
	return d, nil
}

func workDir(img *image.Image) string {
	if img.Config.WorkingDir == "" {
		return "/"
	}
	return img.Config.WorkingDir
}

// allEnv is the environment of the image, then PORT, which many programs listen on, then that of
// the command line; later ones win.
func (o *runOptions) allEnv(img *image.Image, port uint32) []lrp.EnvVar {
	var env []lrp.EnvVar
	for _, e := range img.Config.Env {
		name, value, _ := strings.Cut(e, "=")
		env = append(env, lrp.EnvVar{Name: name, Value: value})
	}
	if port != 0 {
		env = append(env, lrp.EnvVar{Name: "PORT", Value: strconv.Itoa(int(port))})
	}
	return append(env, o.environment...)
}

// choosePort returns the port of the application; 0: it has none.
func (o *runOptions) choosePort(img *image.Image) (uint32, error) {
	needed := ""
	switch {
	case len(o.routes) > 0:
		needed = "--route " + o.routes[0]
	case o.check == "http" || o.check == "tcp":
		needed = "--check " + o.check
	}
	if o.port != 0 || needed == "" {
		return o.port, nil
	}
	exposed := slices.Sorted(maps.Keys(img.Config.ExposedPorts))
	var ports []uint32
	for _, e := range exposed {
		text, protocol, _ := strings.Cut(e, "/")
		n, err := strconv.ParseUint(text, 10, 16)
		if err == nil && n > 0 && (protocol == "" || protocol == "tcp") {
			ports = append(ports, uint32(n))
		}
	}
	switch len(ports) {
	case 1:
		return ports[0], nil
	case 0:
		return 0, usagef("%s needs a port and image %s exposes none: say which one it listens on: --port N", needed, img.Name)
	}
	return 0, usagef("%s needs a port and image %s exposes %s: say which one: --port N", needed, img.Name, strings.Join(exposed, ", "))
}

func (o *runOptions) checkDefinition(port uint32) *lrp.CheckDefinition {
	var check lrp.Check
	switch o.check {
	case "none":
		return nil
	case "http":
		path := o.checkPath
		if path == "" {
			path = "/"
		}
		check.HTTP = &lrp.HTTPCheck{Port: port, Path: path}
	default:
		check.TCP = &lrp.TCPCheck{Port: port}
	}
	return &lrp.CheckDefinition{Checks: []lrp.Check{check}, LogSource: "HEALTH"}
}
