package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// nginxPackages are Debian's nginx and the libraries that it loads.
var nginxPackages = []string{"nginx", "libc6", "libcrypt1", "libpcre2-8-0", "libssl3", "zlib1g"}

// NginxPage is what the image of DebianNginx serves at /.
const NginxPage = "nginx says hello\n"

// nginxConfig serves the page on port 8080 as a user without privileges.
const nginxConfig = `daemon off;
worker_processes 1;
pid /tmp/nginx.pid;
error_log stderr;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  server {
    listen 8080;
    root /srv/www;
  }
}
`

// NginxCommand runs nginx in the image; it needs a writable /tmp and no privileges.
var NginxCommand = []string{"/usr/sbin/nginx", "-c", "/etc/muster/nginx.conf", "-e", "stderr"}

// DebianNginx writes an image with the machine's Debian version of nginx to out. The packages come
// from Debian's mirrors and are kept in cache, so a second build needs no network.
func DebianNginx(ctx context.Context, cache, out string) error {
	debs := filepath.Join(cache, "debs")
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return fmt.Errorf("nginx image: %w", err)
	}
	tree, err := os.MkdirTemp("", "nginx-")
	if err != nil {
		return fmt.Errorf("nginx image: %w", err)
	}
	defer os.RemoveAll(tree)
	for _, name := range nginxPackages {
		deb, err := download(ctx, debs, name)
		if err == nil {
			err = command(ctx, debs, "dpkg-deb", "-x", deb, tree)
		}
		if err != nil {
			return fmt.Errorf("nginx image: package %s: %w", name, err)
		}
	}
	files, err := filesOf(tree)
	if err != nil {
		return fmt.Errorf("nginx image: %w", err)
	}
	own := append(Base(),
		File{Path: "/etc/muster/nginx.conf", Mode: 0o644, Data: []byte(nginxConfig)},
		File{Path: "/srv/www/index.html", Mode: 0o644, Data: []byte(NginxPage)},
	)
	var lower, upper bytes.Buffer
	if err := errors.Join(writeLayer(&lower, files), writeLayer(&upper, own)); err != nil {
		return fmt.Errorf("nginx image: %w", err)
	}
	img, err := fromLayers(Config{User: "app", Command: NginxCommand}, lower.Bytes(), upper.Bytes())
	if err != nil {
		return fmt.Errorf("nginx image: %w", err)
	}
	return WriteArchive(out, img)
}

// download returns the file of a package, from the directory if it is there.
func download(ctx context.Context, dir, name string) (string, error) {
	if deb, err := downloaded(dir, name); err != nil || deb != "" {
		return deb, err
	}
	if command(ctx, dir, "apt-get", "download", name) != nil {
		// A fresh machine has no package lists, an old one stale ones.
		if err := command(ctx, dir, "apt-get", "update"); err != nil {
			return "", err
		}
		if err := command(ctx, dir, "apt-get", "download", name); err != nil {
			return "", err
		}
	}
	deb, err := downloaded(dir, name)
	if err == nil && deb == "" {
		err = fmt.Errorf("apt-get download left no file in %s", dir)
	}
	return deb, err
}

func downloaded(dir, name string) (string, error) {
	found, err := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
	if err != nil || len(found) == 0 {
		return "", err
	}
	slices.Sort(found)
	return found[len(found)-1], nil
}

func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(text)))
	}
	return nil
}

// filesOf lists a tree as the files of an image. Documentation is left out.
func filesOf(tree string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(tree, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == tree {
			return err
		}
		inside := strings.TrimPrefix(name, tree)
		if inside == "/usr/share/doc" || inside == "/usr/share/man" {
			return filepath.SkipDir
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		file := File{Path: inside, Mode: int64(info.Mode().Perm()), Dir: entry.IsDir()}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			file.Link, err = os.Readlink(name)
		case info.Mode().IsRegular():
			file.Data, err = os.ReadFile(name)
		case !entry.IsDir():
			return nil // no package needed here has devices or sockets
		}
		files = append(files, file)
		return err
	})
	return files, err
}
