package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"muster/bbs/lrp"
	"muster/cli/internal/manifest"
	"muster/internal/identity"
	bbsv1 "muster/proto/bbs/v1"
)

func (a *app) desireCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "desire -f FILE",
		Short: "desire what a YAML or JSON file says",
		Long: `Creates the applications that a file describes: one DesiredLRP a document, with
the keys of the API. Unknown keys are errors, and then nothing is created.`,
		Example: `  muster desire -f app.yaml
  muster desire -f - <<EOF
  process_guid: web
  domain: muster
  root_fs: docker:///library/nginx#latest
  instances: 2
  memory_mb: 64
  ports: [80]
  action: {run_action: {path: nginx, args: [-g, daemon off;], user: root}}
  metric_tags: {source_id: {static: web}}
  routes: {cf-router: [{hostnames: [web.localhost], port: 80}]}
  EOF`,
		Args: exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			if file == "" {
				return usagef("-f FILE is missing; -f - reads standard input")
			}
			list, err := a.readManifest(file)
			if err != nil {
				return err
			}
			return a.explain(a.desireAll(c.Context(), file, list))
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "", "`FILE` to read; - is standard input")
	return c
}

func (a *app) readManifest(file string) ([]*bbsv1.DesiredLRP, error) {
	var r io.Reader = a.In
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("read desired state: %w", err)
		}
		defer f.Close()
		r = f
	}
	list, err := manifest.Read(file, r)
	var unknown *manifest.UnknownKey
	if errors.As(err, &unknown) {
		key := unknown.Path[strings.LastIndex(unknown.Path, ".")+1:]
		if like := similar(key, unknown.Known); len(like) > 0 {
			return nil, advise(err, "did you mean %s?", strings.Join(like, " or "))
		}
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		return nil, fmt.Errorf("read desired state: %w", err)
	}
	return list, err
}

func (a *app) desireAll(ctx context.Context, file string, list []*bbsv1.DesiredLRP) error {
	conn, err := a.link.dial(a.link.address(), identity.BBS)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	desired := []string{}
	// The file holds wire messages, so they go to the wire as they are: a key that this program
	// does not know could not have got here.
	bbs := bbsv1.NewBBSServiceClient(conn)
	for _, d := range list {
		_, err := bbs.DesireLRP(ctx, &bbsv1.DesireLRPRequest{DesiredLrp: d})
		if err != nil {
			return a.notDesired(fmt.Errorf("desire %s of %s: %w", d.GetProcessGuid(), file, err), d.GetProcessGuid(), desired)
		}
		desired = append(desired, d.GetProcessGuid())
		if !a.json {
			fmt.Fprintf(a.Out, "desired %s: %d instances\n", d.GetProcessGuid(), d.GetInstances())
		}
	}
	if a.json {
		return printJSON(a.Out, map[string][]string{"desired": desired})
	}
	return nil
}

// notDesired explains why one process could not be desired, and what of the rest was.
func (a *app) notDesired(err error, name string, before []string) error {
	if len(before) > 0 {
		err = fmt.Errorf("%w (desired before: %s)", err, strings.Join(before, ", "))
	}
	if isDuplicate(err) {
		return taken(err, lrp.ProcessGUID(name))
	}
	return err
}

// taken says what to do about a name that is in use.
func taken(err error, name lrp.ProcessGUID) error {
	return advise(fmt.Errorf("there is an application called %s already: %w", name, err),
		"more or fewer instances of it: muster scale %s N\nto replace it: muster rm %s, then again\nor choose another name", name, name)
}
