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
