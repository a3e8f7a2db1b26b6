package stack

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"muster/cells/containerd"
	"muster/internal/pgcluster"
	"muster/internal/privatecontainerd"
)

// DownOptions say what to take down.
type DownOptions struct {
	StateDir string
	KeepData bool // keep the database, images and certificates
}

// Down stops everything and removes what the stack has put on the machine; installed packages stay.
// It works on a half-made stack, after crashes and reboots, and twice. What cannot be removed does
// not keep the rest from being removed.
func Down(ctx context.Context, o DownOptions, report *Report) error {
	if os.Geteuid() != 0 {
		return errors.New("removing containers needs root: run it with sudo, or as root")
	}
	dir, err := filepath.Abs(o.StateDir)
	if err != nil {
		return err
	}
	s, err := load(dir)
	if err != nil {
		s = fresh(dir) // a broken stack.json must not keep anybody from getting rid of it
	}
	_, err = os.Stat(dir)
	there := err == nil
	if there {
		if err := ours(dir); err != nil {
			return err
		}
		unlock, err := lock(ctx, s, "down")
		if err != nil {
			return err
		}
		defer unlock()
	}
	errs := []error{
		report.step("daemons", func() (string, error) { return s.stopAll(ctx) }),
	}
	if there {
		errs = append(errs,
			report.step("cells", func() (string, error) { return s.removeCells(ctx) }),
			report.step("containerd", func() (string, error) { return s.stopContainerd(ctx) }),
			report.step("postgres", func() (string, error) {
				return "stopped", pgcluster.Stop(ctx, s.path("postgres"))
			}),
			report.step("host", func() (string, error) {
				did, err := s.restoreHost()
				return orNothing(did), err
			}))
	}
	if err = errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %s is kept, so that muster down can be tried again", err, dir)
	}
	if there {
		err = report.step("files", func() (string, error) { return s.removeFiles(o.KeepData) })
	}
	if left := s.remains(ctx); err == nil && len(left) > 0 {
		return fmt.Errorf("still there: %s", strings.Join(left, "; "))
	}
	return err
}

// ours refuses a directory that no Up has made.
func ours(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !slices.Contains([]string{"stack.json", "stack.json.new", encryptionFile, encryptionFile + ".new", "lock", "certs", "config", "log", "images", "postgres", "containerd", "consul", "cells"}, e.Name()) {
			return fmt.Errorf("%s holds %s, which is no part of a stack: is --state-dir right? If it is, move that away first", dir, e.Name())
		}
	}
	return nil
}

func orNothing(list []string) string {
	if len(list) == 0 {
		return "nothing to do"
	}
	return strings.Join(list, ", ")
}

// stopAll stops the daemons against the order of their dependencies: first who gives work, last
// who keeps the records.
func (s *Stack) stopAll(ctx context.Context) (string, error) {
	running, err := find(s.StateDir)
	if err != nil {
		return "", err
	}
	var did []string
	var errs []error
	for _, row := range stopRows(running) {
		stopped := make([]error, len(row))
		var wg sync.WaitGroup
		for i, p := range row {
			wg.Go(func() { stopped[i] = stop(ctx, p, s.StateDir) })
			did = append(did, p.Part)
		}
		wg.Wait()
		errs = append(errs, stopped...)
	}
	return orNothing(did), errors.Join(errs...)
}

// stopRows orders processes for their stop; those of one row stop at the same time. Last come who
// keeps the records and who carries the messages. A part that this version does not know is stopped first.
func stopRows(running map[string][]livePart) [][]livePart {
	rows := make([][]livePart, 3)
	for _, part := range slices.Sorted(maps.Keys(running)) {
		row := 0
		switch part {
		case "bbs":
			row = 1
		case "nats", consulPart:
			row = 2
		}
		rows[row] = append(rows[row], running[part]...)
	}
	return rows
}

// removeCells destroys the containers of the cells and all that belongs to them. A private containerd
// that does not run any more is started for that: it alone knows what there is.
func (s *Stack) removeCells(ctx context.Context) (string, error) {
	if s.Containerd == "" {
		return orNothing(nil), nil
	}
	if s.Containerd != systemContainerd {
		d, err := privatecontainerd.Open(ctx, privatecontainerd.Config{Dir: s.path("containerd"), Detached: true})
		if err != nil {
			return "", err
		}
		s.Containerd = d.Address
	}
	var did []string
	var errs []error
	for i := 1; i <= Cells; i++ {
		n, err := s.removeCell(ctx, i)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", cellName(i), err))
			continue
		}
		did = append(did, fmt.Sprintf("%s with %d containers", cellName(i), n))
	}
	return strings.Join(did, ", "), errors.Join(errs...)
}

func (s *Stack) removeCell(ctx context.Context, i int) (int, error) {
	e, err := containerd.New(s.engine(i))
	if err != nil {
		return 0, err
	}
	defer e.Close()
	list, err := e.List(ctx)
	if err != nil {
		return 0, err
	}
	return len(list), e.RemoveAll(ctx)
}

func (s *Stack) stopContainerd(ctx context.Context) (string, error) {
	if s.Containerd == systemContainerd {
		return "the machine's own is left alone", nil
	}
	return "stopped", privatecontainerd.Stop(ctx, s.path("containerd"))
}

// removeFiles removes the state directory, but never through a mount.
func (s *Stack) removeFiles(keepData bool) (string, error) {
	if _, err := unmountBelow(s.StateDir); err != nil {
		return "", err
	}
	if left, err := mountsBelow(s.StateDir); err != nil || len(left) > 0 {
		return "", errors.Join(err, fmt.Errorf("mounts are left: %s", strings.Join(left, " ")))
	}
	if !keepData {
		return "removed " + s.StateDir, os.RemoveAll(s.StateDir)
	}
	var errs []error
	for _, d := range []string{"containerd", "cells", "config", "consul"} {
		errs = append(errs, os.RemoveAll(s.path(d)))
	}
	s.Containerd, s.Host = "", nil // to be found out anew
	errs = append(errs, s.save())
	return "kept the database, images, certificates and logs in " + s.StateDir, errors.Join(errs...)
}
