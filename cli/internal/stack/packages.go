package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// requirement is something that a Debian package brings.
type requirement struct {
	pkg   string
	globs []string // one match of any is enough
}

func requirements() []requirement {
	return []requirement{
		{"postgresql", []string{"/usr/lib/postgresql/*/bin/postgres"}},
		{"containerd", []string{"/usr/bin/containerd", "/usr/local/bin/containerd"}},
		{"runc", []string{"/usr/sbin/runc", "/usr/bin/runc", "/usr/local/sbin/runc"}},
		{"containernetworking-plugins", []string{"/usr/lib/cni/bridge"}},
		{"iptables", []string{"/usr/sbin/iptables", "/sbin/iptables"}},
		{"iproute2", []string{"/usr/sbin/ip", "/sbin/ip", "/bin/ip"}},
		{"ca-certificates", []string{"/etc/ssl/certs/ca-certificates.crt"}},
	}
}

// missing returns the packages whose programs are not there, however they would have come.
func missing() []string {
	var out []string
	for _, r := range requirements() {
		if !anyMatch(r.globs) {
			out = append(out, r.pkg)
		}
	}
	return out
}

func anyMatch(globs []string) bool {
	for _, g := range globs {
		if found, err := filepath.Glob(g); err == nil && len(found) > 0 {
			return true
		}
	}
	return false
}

// install installs what is missing with apt-get. The services that Debian would start with it are
// kept from starting: the stack runs its own.
func (u *upper) install(ctx context.Context) (string, error) {
	packages := missing()
	if len(packages) == 0 {
		return "all there", nil
	}
	list := strings.Join(packages, " ")
	if u.options.NoInstall {
		return "", fmt.Errorf("missing: %s: install them, or leave --no-install out", list)
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return "", fmt.Errorf("missing: %s, and there is no apt-get: install them with this system's package manager: %w", list, err)
	}
	u.report.say("packages", "installing "+list)
	log := u.path("log", "apt.log")
	err := u.apt(ctx, log, append([]string{"install", "-y", "--no-install-recommends"}, packages...))
	if err != nil {
		// A fresh machine has no package lists, an old one stale ones.
		u.report.say("packages", "fetching the package lists first")
		if err := u.apt(ctx, log, []string{"update"}); err != nil {
			return "", &logged{fmt.Errorf("apt-get update: %w: check the network and /etc/apt/sources.list", err), log}
		}
		err = u.apt(ctx, log, append([]string{"install", "-y", "--no-install-recommends"}, packages...))
	}
	if err != nil {
		return "", &logged{fmt.Errorf("apt-get install %s: %w: try it by hand", list, err), log}
	}
	if left := missing(); len(left) > 0 {
		return "", &logged{fmt.Errorf("after apt-get install, still missing: %s", strings.Join(left, " ")), log}
	}
	return "installed " + list, nil
}

// policyFile tells Debian's packages whether they may start their services.
const policyFile = "/usr/sbin/policy-rc.d"

func (u *upper) apt(ctx context.Context, log string, args []string) (err error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	defer f.Close()
	// Only when the machine has no policy of its own. A killed Up leaves ours behind; it says whose it is.
	const ours = "#!/bin/sh\n# Made by muster up while it installs packages; safe to remove.\nexit 101\n"
	text, rerr := os.ReadFile(policyFile)
	if errors.Is(rerr, os.ErrNotExist) || string(text) == ours {
		if err := os.WriteFile(policyFile, []byte(ours), 0o755); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.Remove(policyFile)) }()
	}
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "-o", "DPkg::Lock::Timeout=120"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	cmd.Stdout, cmd.Stderr = f, f
	return cmd.Run()
}
