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
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "muster/integration/apps/hello")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile hello: %w: %s", err, strings.TrimSpace(string(text)))
	}
	return FromBinary(binary, out)
}
