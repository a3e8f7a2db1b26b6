package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// Env is what the program gets from its surroundings.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
}

// app is one invocation.
type app struct {
	Env
	link link
	json bool
}

// errUsage marks errors in the command line itself; they end with status 2.
var errUsage = errors.New("usage")

// Main runs one command line, without the program's name, and returns the exit status: 0 it
// worked, 1 it did not, 2 the command line was wrong.
func Main(ctx context.Context, env Env, args []string) int {
	a := &app{Env: env}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errSaid):
		return 1
	case ctx.Err() != nil:
		fmt.Fprintln(env.Err, "muster: interrupted")
		return 1
	}
	fmt.Fprintf(env.Err, "muster: %s\n", strings.ReplaceAll(err.Error(), "\n", "\n        "))
	var ad *advice
	if errors.As(err, &ad) {
		for _, line := range strings.Split(ad.do, "\n") {
			fmt.Fprintf(env.Err, "  → %s\n", line)
		}
	}
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}

// errSaid is returned by verbs that have printed all there is to say.
var errSaid = errors.New("said")

// advice is an error together with what to do about it.
type advice struct {
	err error
	do  string // one remedy a line
}

func (a *advice) Error() string { return a.err.Error() }
func (a *advice) Unwrap() error { return a.err }

// advise returns err with what to do about it.
func advise(err error, format string, args ...any) error {
	return &advice{err, fmt.Sprintf(format, args...)}
}

// usageError is an error in the command line.
type usageError struct{ error }

func (usageError) Is(target error) bool { return target == errUsage }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "muster",
		Short: "run applications on cells and route traffic to them",
		Long: `muster runs applications on cells and routes traffic to them.

On one machine, "muster up" starts everything and an application to look at;
"muster down" takes all of it away again. Elsewhere, name the BBS with --bbs
and a certificate with --ca, --cert and --key.`,
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return advise(usageError{err}, "%s --help lists the flags", c.CommandPath())
	})
	flags := root.PersistentFlags()
	a.link.addFlags(flags, a.Getenv)
	flags.BoolVar(&a.json, "json", false, "print JSON for programs: one document, or one object a line for streams")

	root.AddGroup(&cobra.Group{ID: "work", Title: "Applications:"},
		&cobra.Group{ID: "look", Title: "Looking:"},
		&cobra.Group{ID: "stack", Title: "The stack on this machine:"})
	for _, g := range []struct {
		id       string
		commands []*cobra.Command
	}{
		{"work", []*cobra.Command{a.runCommand(), a.desireCommand(), a.planCommand(), a.scaleCommand(), a.rmCommand()}},
		{"look", []*cobra.Command{a.lrpsCommand(), a.explainCommand(), a.rebalanceCommand(), a.cellsCommand(), a.logsCommand(), a.eventsCommand()}},
		{"stack", []*cobra.Command{a.upCommand(), a.downCommand(), a.statusCommand(), a.certsCommand()}},
		{"", []*cobra.Command{a.natsCommand()}},
	} {
		for _, c := range g.commands {
			c.GroupID = g.id
			root.AddCommand(c)
		}
	}
	return root
}

// exactArgs wants one argument for each name.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return advise(usagef("%s takes %s, got %d arguments", c.CommandPath(), strings.Join(names, " "), len(args)),
				"%s --help shows an example", c.CommandPath())
		}
		return nil
	}
}

// rangeArgs wants between least and most arguments called name; most 0 means any number.
func rangeArgs(name string, least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < least || most > 0 && len(args) > most {
			return advise(usagef("%s takes %s, got %d arguments", c.CommandPath(), name, len(args)),
				"%s --help shows an example", c.CommandPath())
		}
		return nil
	}
}

// OS returns the surroundings of this process.
func OS() Env { return Env{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv} }
