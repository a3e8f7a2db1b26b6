package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/cli/internal/stack"
)

func (a *app) upCommand() *cobra.Command {
	var o stack.UpOptions
	var httpPort int
	var ports []string
	c := &cobra.Command{
		Use:   "up",
		Short: "bring everything up on this machine, with an application to look at",
		Long: `Brings everything up on this machine: Debian packages that are missing, a private
PostgreSQL, NATS, containerd, the BBS, the auctioneer, three cells, the
route-emitter and the router, and an application that answers through it. What
runs already is left alone, so it can be repeated at any time.

Ports that --port knows:
  ` + strings.Join(stack.PortNames(), "\n  "),
		Args: exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			o.StateDir = a.link.stateDir
			var err error
			if o.Ports, err = parsePorts(ports); err != nil {
				return err
			}
			if c.Flags().Changed("http-port") {
				o.Ports["http"] = httpPort
			}
			if o.BinDir == "" {
				if o.BinDir, err = ownDir(); err != nil {
					return err
				}
			}
			return a.up(c, o)
		},
	}
	f := c.Flags()
	f.IntVar(&httpPort, "http-port", 8080, "port of the router")
	f.StringArrayVar(&ports, "port", nil, "`NAME=N`: another port for one purpose; can be given several times")
	f.IntVar(&o.PortBase, "port-base", 0, "number all ports but those for containers from here on; 0: leave them")
	f.StringVar(&o.Name, "name", "", "`NAME` that begins those of bridges, containerd namespaces and cgroups (default muster)")
	f.StringVar(&o.Subnets, "subnets", "", "first two `numbers` of the cells' subnets (default 10.255)")
	f.StringVar(&o.Lease, "lease", "", "what decides who leads: `postgres`, or consul for a private Consul, built the first time (default: as it is; postgres)")
	f.StringVar(&o.BinDir, "bin-dir", "", "`directory` of the daemons (default: that of muster)")
	f.BoolVar(&o.NoInstall, "no-install", false, "install nothing; missing packages are an error")
	f.BoolVar(&o.InstallOnly, "install-only", false, "install what is missing, and stop there")
	f.BoolVar(&o.NoSample, "no-sample", false, "do not run the sample application")
	return c
}

func (a *app) up(c *cobra.Command, o stack.UpOptions) error {
	started := time.Now()
	report := &stack.Report{Out: a.Out, JSON: a.json}
	if !a.json {
		fmt.Fprintln(a.Out, "muster up")
	}
	result, err := stack.Up(c.Context(), o, report)
	var step *stack.StepError
	if errors.As(err, &step) {
		return advise(err, "muster up again goes on from here\nmuster down takes away what is there so far")
	}
	if err != nil {
		return err
	}
	took := time.Since(started)
	if o.InstallOnly {
		return nil
	}
	if a.json {
		return printLine(a.Out, map[string]any{"up": true, "url": result.URL, "took_ms": took.Milliseconds(), "state_dir": result.Stack.StateDir})
	}
	fmt.Fprintf(a.Out, "\nUp after %.1f s.\n", took.Seconds())
	if result.URL != "" {
		fmt.Fprintf(a.Out, "\n  %s\n", result.URL)
	}
	a.nextCommands(result)
	return nil
}

// nextCommands prints the five commands to try next, so that they can be copied.
func (a *app) nextCommands(r *stack.Result) {
	me := os.Args[0]
	if filepath.IsAbs(me) || !strings.Contains(me, "/") {
		me = "muster"
	}
	where := ""
	if r.Stack.StateDir != stack.DefaultStateDir {
		where = " --state-dir " + r.Stack.StateDir
	}
	fmt.Fprintf(a.Out, "\nTry next:\n")
	for _, line := range [][2]string{
		{"curl " + r.Stack.URL(stack.SampleRoute), "ask the application, through the router"},
		{me + where + " lrps " + stack.SampleName, "where its instances run"},
		{me + where + " scale " + stack.SampleName + " 5", "run more of them"},
		{me + where + " logs " + stack.SampleName + " -f", "read what they write"},
		{me + where + " events -f", "watch what happens"},
	} {
		fmt.Fprintf(a.Out, "  %-40s # %s\n", line[0], line[1])
	}
}

func parsePorts(list []string) (map[string]int, error) {
	ports := map[string]int{}
	for _, p := range list {
		name, value, found := strings.Cut(p, "=")
		n, err := strconv.Atoi(value)
		if !found || err != nil {
			return nil, usagef("--port %q: want NAME=N, such as bbs=18888", p)
		}
		ports[name] = n
	}
	return ports, nil
}

// ownDir is the directory of the running program, beside which the daemons are built.
func ownDir() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find my own program: %w", err)
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		return "", fmt.Errorf("find my own program: %w", err)
	}
	return filepath.Dir(exe), nil
}

func (a *app) downCommand() *cobra.Command {
	var o stack.DownOptions
	c := &cobra.Command{
		Use:   "down",
		Short: "take everything down and leave nothing behind",
		Long: `Stops everything that "muster up" has started and removes what it has put on this
machine: processes, containers, mounts, network devices, rules and files.
Installed packages stay. It works on a half-made stack, and after a crash.`,
		Args: exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			o.StateDir = a.link.stateDir
			if !a.json {
				fmt.Fprintln(a.Out, "muster down")
			}
			if err := stack.Down(c.Context(), o, &stack.Report{Out: a.Out, JSON: a.json}); err != nil {
				return err
			}
			if a.json {
				return printLine(a.Out, map[string]any{"down": true})
			}
			return nil
		},
	}
	c.Flags().BoolVar(&o.KeepData, "keep-data", false, "keep the database, images, certificates and logs for the next up")
	return c
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "show each part of the stack on this machine, and fail when one is down",
		Args:  exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := stack.Status(c.Context(), a.link.stateDir)
			if err != nil {
				return err
			}
			down := 0
			g := grid{head: []string{"PART", "STATE", "PID", "UPTIME", "ADDRESS", "VERSION", "NOTE"}}
			for _, p := range list {
				state, pid, uptime := "up", orDash(""), orDash("")
				if !p.Up {
					state = "down"
					down++
				}
				if p.PID != 0 {
					pid, uptime = strconv.Itoa(p.PID), ago(time.Since(p.Since))
				}
				g.add(p.Part, state, pid, uptime, orDash(p.Address), orDash(p.Version), p.Note)
			}
			if a.json {
				if err := printJSON(a.Out, list); err != nil {
					return err
				}
			} else {
				g.print(a.Out)
			}
			if down > 0 {
				return advise(fmt.Errorf("%d of %d parts are down", down, len(list)), "muster up starts what is down")
			}
			return nil
		},
	}
}
