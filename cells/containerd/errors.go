package containerd

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"

	"muster/cells/engine"
)

// native turns an error of a bare gRPC call into one that errdefs can tell.
func native(err error) error {
	if err == nil {
		return nil
	}
	return errgrpc.ToNative(err)
}

// away adds engine.ErrAway to an error that says that containerd does not answer.
func away(err error) error {
	if !errdefs.IsUnavailable(err) && !errdefs.IsUnavailable(native(err)) {
		return err
	}
	return fmt.Errorf("%w: %w", engine.ErrAway, err)
}

// noSpace adds engine.ErrNoSpace to an error that says that a disk is full. The texts are compared
// because containerd, its shims and the CNI plugins pass the kernel's error on as nothing else.
func noSpace(err error, where string) error {
	if err == nil || errors.Is(err, engine.ErrNoSpace) {
		return err
	}
	text := err.Error()
	full := errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) ||
		strings.Contains(text, "no space left on device") || strings.Contains(text, "disk quota exceeded")
	if !full {
		return err
	}
	return fmt.Errorf("%w: free some on the disk of containerd or of %s: %w", engine.ErrNoSpace, where, err)
}

// unstartableTexts are what runc says when a program cannot be executed, and what that means.
var unstartableTexts = [...]struct{ text, why string }{
	{"chdir to cwd", "its directory cannot be entered"},
	{"executable file not found", "it is not in the PATH of the process"},
	{"no such file or directory", "there is no such file"},
	{"permission denied", "the user may not execute it"},
	{"is a directory", "it is a directory"},
	{"exec format error", "it is not a program for this machine"},
	{"not a directory", "a part of its path is no directory"},
}

// unstartable adds engine.ErrProcess when runc says that the program cannot be executed; runc's text is
// all there is.
func unstartable(err error, p engine.Process, image string) error {
	text := err.Error()
	if !strings.Contains(text, "exec: ") && !strings.Contains(text, "chdir to cwd") {
		return err
	}
	for _, known := range unstartableTexts {
		if strings.Contains(text, known.text) {
			return fmt.Errorf("program %q in directory %q of image %s: %s: %w: %w", p.Path, p.Dir, image, known.why, engine.ErrProcess, err)
		}
	}
	return err
}
