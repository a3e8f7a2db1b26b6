package image

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Hello compiles the sample application, statically, and writes it as an OCI archive: /bin/hello. It
// needs the Go tool and must run within the module.
func Hello(ctx context.Context, out string) error {
	dir, err := os.MkdirTemp("", "hello-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "hello")
	if err := Compile(ctx, "muster/integration/apps/hello", binary); err != nil {
		return err
	}
	return FromBinary(binary, out)
}

// Compile compiles a command of the module, statically.
func Compile(ctx context.Context, pkg, out string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile %s: %w: %s", pkg, err, strings.TrimSpace(string(text)))
	}
	return nil
}
