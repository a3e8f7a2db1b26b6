package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"muster/bbs/bbsclient"
	"muster/cli/internal/image"
	"muster/cli/internal/stack"
)

func (a *app) runCommand() *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "run IMAGE",
		Short: "run an image",
		Long: `Runs an image and waits until all its instances run. IMAGE is an OCI archive (a
tar file) or an OCI layout (a directory) on disk, or a reference to a registry.`,
		Example: `  muster run ./app.tar --name web --route web.localhost --instances 3
  muster run nginx:1.27 --name nginx --port 80 --route nginx.localhost --check-path /
  muster run ./worker.tar --name worker --memory 256M --env MODE=fast`,
		Args: exactArgs("IMAGE"),
		RunE: func(c *cobra.Command, args []string) error {
			o.image = args[0]
			return a.run(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.name, "name", "", "`NAME` of the application: letters, digits, - and _ (default: from the image)")
	f.Int32Var(&o.instances, "instances", 1, "how many instances to run")
	f.StringArrayVar(&o.routes, "route", nil, "`HOST[/PATH]` that reaches it; can be given several times")
	f.Uint32Var(&o.port, "port", 0, "port that the application listens on (default: the only one that the image exposes)")
	f.BoolVar(&o.noRoute, "no-route", false, "with --port: check the port, but route nothing to it")
	f.StringVar(&o.memory, "memory", "128M", "memory limit of each instance: 64M, 1G; 0: none")
	f.StringVar(&o.disk, "disk", "512M", "disk limit of each instance: 64M, 1G; 0: none")
	f.StringArrayVar(&o.env, "env", nil, "`NAME=VALUE` for its environment; can be given several times")
	f.StringVar(&o.check, "check", "", "health check: http, tcp or none (default: tcp with a port, http with --check-path)")
	f.StringVar(&o.checkPath, "check-path", "", "`PATH` that must answer 200")
	f.StringVar(&o.domain, "domain", stack.Domain, "domain that the application belongs to")
	f.StringVar(&o.user, "user", "", "user in the container, by name or number (default: that of the image, or root)")
	f.StringVar(&o.imageDir, "image-dir", "", "`directory` where the cells look for images on disk (default: that of the stack)")
	waitFlags(c, &o.noWait, &o.timeout)
	must(c.RegisterFlagCompletionFunc("check", cobra.FixedCompletions([]string{"http", "tcp", "none"}, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

// imageTime bounds the look at an image in a registry; the cells fetch it by themselves.
const imageTime = 30 * time.Second

func (a *app) run(ctx context.Context, o runOptions) error {
	if err := o.validate(); err != nil {
		return err
	}
	ictx, cancel := context.WithTimeout(ctx, imageTime)
	defer cancel()
	img, err := image.Open(ictx, o.image)
	if err != nil {
		return explainImage(err)
	}
	defer img.Close()
	d, err := o.desired(img)
	if err != nil {
		return err
	}
	return a.withBBS(ctx, func(ctx context.Context, bbs *bbsclient.Client) error {
		// Ask first: neither a dead BBS nor a taken name should cost the copy of an image.
		call, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		if _, err := bbs.Desired(call, d.Process); err == nil {
			return taken(fmt.Errorf("run %s", o.image), d.Process)
		} else if !isUnknown(err) {
			return fmt.Errorf("look for %s: %w", d.Process, err)
		}
		if err := a.spool(img, o.imageDir); err != nil {
			return err
		}
		d.RootFS = img.RootFS
		call, cancel = context.WithTimeout(ctx, callTime)
		defer cancel()
		if err := bbs.Desire(call, d); isDuplicate(err) {
			return taken(err, d.Process)
		} else if err != nil {
			return fmt.Errorf("desire %s: %w", d.Process, err)
		}
		if err := a.await(ctx, bbs, d.Process, d.Instances, o.noWait, o.timeout); err != nil {
			return err
		}
		return a.sayWhere(o.routes)
	})
}

// sayWhere prints the URLs of routes when the router of this machine serves them.
func (a *app) sayWhere(routes []string) error {
	if a.json || a.link.bbs != "" && a.link.bbs != stack.Describe(a.link.stateDir).BBSAddress() {
		return nil
	}
	for _, r := range routes {
		fmt.Fprintln(a.Out, stack.Describe(a.link.stateDir).URL(r))
	}
	return nil
}

func explainImage(err error) error {
	var missing *image.NotFound
	if errors.As(err, &missing) {
		return advise(err, "IMAGE is an OCI archive or directory on disk, or a reference such as docker.io/library/nginx:1.27\nnothing was started")
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return advise(err, "the registry did not answer within %v: check the network, or run an image on disk", imageTime)
	}
	return err
}

// spool puts an image on disk where the cells find it.
func (a *app) spool(img *image.Image, dir string) error {
	if !img.Local() {
		return nil
	}
	if dir == "" {
		if dir = stack.Describe(a.link.stateDir).ImageDir(); a.link.bbs != "" {
			return advise(fmt.Errorf("image %s is on this disk, the cells of %s may not see it", img.Name, a.link.bbs),
				"push it to a registry and run it from there\nor name the directory that the cells read (image_dir): --image-dir DIR")
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	err = img.Spool(dir)
	if errors.Is(err, fs.ErrPermission) {
		return advise(err, "run the command as root (sudo): the images of the cells belong to root")
	}
	var full *image.NoSpace
	if errors.As(err, &full) {
		return advise(err, "df -h %s shows the disk; nothing of the image was left there, nothing was started", full.Dir)
	}
	return err
}

// defaultName makes a name of an image reference: its last part without version and extension.
func defaultName(ref string) string {
	base := filepath.Base(ref)
	base, _, _ = strings.Cut(base, "@")
	base, _, _ = strings.Cut(base, "#")
	base, _, _ = strings.Cut(base, ":")
	for _, ext := range []string{".tar", ".oci"} {
		base = strings.TrimSuffix(base, ext)
	}
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, base)
}
