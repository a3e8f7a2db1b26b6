package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// applets are the programs of the image of DebianBusybox.
var applets = strings.Fields(`cat chmod cp dd echo env false grep head httpd id kill ls mkdir mount nc pwd rm sh sleep stat tee test touch true umount wget`)

// DebianBusybox writes an image with a shell to out: the machine's Debian version of busybox, and a static program as
// /bin/NAME. The package comes from Debian's mirrors and is kept in cache, so a second build needs no network.
func DebianBusybox(ctx context.Context, cache, program, out string) error {
	wrap := func(err error) error { return fmt.Errorf("busybox image: %w", err) }
	debs := filepath.Join(cache, "debs")
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return wrap(err)
	}
	tree, err := os.MkdirTemp("", "busybox-")
	if err != nil {
		return wrap(err)
	}
	defer os.RemoveAll(tree)
	deb, err := download(ctx, debs, "busybox-static")
	if err == nil {
		err = command(ctx, debs, "dpkg-deb", "-x", deb, tree)
	}
	if err != nil {
		return wrap(err)
	}
	files := append(Base(),
		File{Path: "/bin/busybox", Mode: 0o755, Source: filepath.Join(tree, "bin", "busybox")},
		File{Path: "/bin/" + filepath.Base(program), Mode: 0o755, Source: program},
	)
	for _, name := range applets {
		files = append(files, File{Path: "/bin/" + name, Link: "busybox"})
	}
	img, err := FromFiles(files, Config{Env: []string{"PATH=/bin"}, User: "app", Command: []string{"/bin/sh"}})
	if err != nil {
		return wrap(err)
	}
	return WriteArchive(out, img)
}
