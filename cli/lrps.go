package cli

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
)

func (a *app) lrpsCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "lrps [NAME]",
		Short:             "show the applications, or the instances of one",
		Example:           "  muster lrps\n  muster lrps hello\n  muster lrps hello --json",
		Args:              rangeArgs("at most one NAME", 0, 1),
		ValidArgsFunction: a.completeOne,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withBBS(c.Context(), func(ctx context.Context, bbs *bbsclient.Client) error {
				ctx, cancel := context.WithTimeout(ctx, callTime)
				defer cancel()
				if len(args) == 1 {
					return a.showProcess(ctx, bbs, lrp.ProcessGUID(args[0]))
				}
				return a.showProcesses(ctx, bbs)
			})
		},
	}
}

func (a *app) showProcesses(ctx context.Context, bbs *bbsclient.Client) error {
	infos, _, err := bbs.SchedulingInfos(ctx, bbsclient.DesiredFilter{})
	if err != nil {
		return fmt.Errorf("list applications: %w", err)
	}
	actuals, _, err := bbs.Actuals(ctx, bbsclient.ActualFilter{})
	if err != nil {
		return fmt.Errorf("list instances: %w", err)
	}
	sort.Slice(infos, func(i, j int) bool { return infos[i].Process < infos[j].Process })
	sortActuals(actuals)
	of := map[lrp.ProcessGUID][]lrp.Actual{}
	for _, x := range actuals {
		of[x.Process] = append(of[x.Process], x)
	}
	if a.json {
		views := make([]processView, 0, len(infos))
		for _, d := range infos {
			views = append(views, viewProcess(d, of[d.Process]))
		}
		return printJSON(a.Out, views)
	}
	if len(infos) == 0 {
		fmt.Fprintln(a.Err, "No applications. Run one: muster run IMAGE --name NAME")
		return nil
	}
	g := grid{head: []string{"NAME", "RUNNING", "STATE", "MEMORY", "ROUTES", "NOTE"}}
	for _, d := range infos {
		mine := of[d.Process]
		g.add(string(d.Process), fmt.Sprintf("%d/%d", running(mine), d.Instances),
			summary(d.Instances, mine), mib(d.MemoryMB), hostnames(d.Routes), firstNote(mine))
	}
	g.print(a.Out)
	return nil
}

// summary says in one word how an application is.
func summary(wanted int32, actuals []lrp.Actual) string {
	states := map[lrp.State]bool{}
	retiring := false
	for _, x := range actuals {
		states[x.State] = true
		retiring = retiring || x.Retiring
	}
	switch {
	case states[lrp.Crashed]:
		return "crashed"
	case running(actuals) < wanted && states[lrp.Unclaimed]:
		return "waiting"
	case running(actuals) < wanted:
		return "starting"
	case retiring:
		return "stopping"
	case wanted == 0:
		return "stopped"
	}
	return "running"
}

func firstNote(actuals []lrp.Actual) string {
	for _, x := range actuals {
		if n := note(x); n != "" {
			return fmt.Sprintf("%d: %s", x.Index, n)
		}
	}
	return ""
}

func (a *app) showProcess(ctx context.Context, bbs *bbsclient.Client, p lrp.ProcessGUID) error {
	d, err := bbs.Desired(ctx, p)
	if err != nil {
		return a.unknown(ctx, bbs, p, fmt.Errorf("show %s: %w", p, err))
	}
	actuals, _, err := bbs.Actuals(ctx, bbsclient.ActualFilter{Process: p})
	if err != nil {
		return fmt.Errorf("list instances of %s: %w", p, err)
	}
	sortActuals(actuals)
	if a.json {
		return printJSON(a.Out, viewProcess(d.SchedulingInfo(), actuals))
	}
	fmt.Fprintf(a.Out, "%s  %d of %d running  memory %s  disk %s  %s\n", p, running(actuals), d.Instances,
		mib(d.MemoryMB), mib(d.DiskMB), d.RootFS)
	if r := hostnames(d.Routes); r != "-" {
		fmt.Fprintf(a.Out, "routes: %s\n", r)
	}
	fmt.Fprintln(a.Out)
	g := grid{head: []string{"INDEX", "STATE", "CELL", "ZONE", "ADDRESS", "SINCE", "NOTE"}}
	for _, x := range actuals {
		g.add(strconv.Itoa(int(x.Index)), stateText(x), orDash(string(x.Cell)), orDash(x.AvailabilityZone),
			orDash(addresses(x)), ago(time.Since(x.Since)), note(x))
	}
	g.print(a.Out)
	return nil
}

func stateText(x lrp.Actual) string {
	text := string(x.State)
	if x.Presence != lrp.Ordinary {
		text += " (" + strings.ToLower(presenceName(x.Presence)) + ")"
	}
	if x.Retiring {
		text += " (retiring)"
	}
	return text
}

func addresses(x lrp.Actual) string {
	var list []string
	for _, p := range x.NetInfo.Ports {
		list = append(list, fmt.Sprintf("%s:%d→%d", x.NetInfo.Address, p.HostPort, p.ContainerPort))
	}
	return strings.Join(list, " ")
}

// isUnknown tells whether err says that there is no such process.
func isUnknown(err error) bool {
	var r *lrp.Refusal
	return errors.As(err, &r) && r.Why == lrp.NotFound || status.Code(err) == codes.NotFound
}

// isDuplicate tells whether err says that the process exists already.
func isDuplicate(err error) bool {
	var r *lrp.Refusal
	return errors.As(err, &r) && r.Why == lrp.Exists || status.Code(err) == codes.AlreadyExists
}

// unknown adds to a not-found error which names there are.
func (a *app) unknown(ctx context.Context, bbs *bbsclient.Client, p lrp.ProcessGUID, err error) error {
	if !isUnknown(err) {
		return err
	}
	names, lerr := processNames(ctx, bbs)
	err = fmt.Errorf("no application is called %s: %w", p, err)
	if lerr != nil || len(names) == 0 {
		return advise(err, "there are no applications: muster run IMAGE --name %s starts one", p)
	}
	if like := similar(string(p), names); len(like) > 0 {
		return advise(err, "did you mean %s?", strings.Join(like, " or "))
	}
	const most = 10
	more := ""
	if len(names) > most {
		more = fmt.Sprintf(" and %d more (muster lrps)", len(names)-most)
		names = names[:most]
	}
	return advise(err, "there are: %s%s", strings.Join(names, ", "), more)
}

func processNames(ctx context.Context, bbs *bbsclient.Client) ([]string, error) {
	infos, _, err := bbs.SchedulingInfos(ctx, bbsclient.DesiredFilter{})
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(infos))
	for _, d := range infos {
		names = append(names, string(d.Process))
	}
	sort.Strings(names)
	return names, nil
}

// completeNames completes the names of applications, each one once.
func (a *app) completeNames(c *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	var found []string
	// A shell waits for this: rather no names than late ones.
	ctx, cancel := context.WithTimeout(c.Context(), time.Second)
	defer cancel()
	err := a.withBBS(ctx, func(ctx context.Context, bbs *bbsclient.Client) error {
		names, err := processNames(ctx, bbs)
		for _, n := range names {
			if strings.HasPrefix(n, prefix) && !contains(args, n) {
				found = append(found, n)
			}
		}
		return err
	})
	if err != nil {
		cobra.CompDebugln(err.Error(), false)
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// completeOne completes the name of one application as the first argument.
func (a *app) completeOne(c *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeNames(c, args, prefix)
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
