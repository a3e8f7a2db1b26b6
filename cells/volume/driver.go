package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"muster/bbs/lrp"
	"muster/cells/engine"
)

// DefaultDriver is the driver that volume mounts name.
const DefaultDriver = "local"

// MaxVolumes bounds the volumes of a cell.
const MaxVolumes = 10_000

// Config says where volumes are.
type Config struct {
	Dir    string `json:"dir" help:"directory for volumes, absolute; empty: the cell has none; kept over restarts and belongs to this cell alone. Put it on a disk of its own: nothing bounds what containers write there"`
	Driver string `json:"driver" help:"name by which volume mounts ask for these volumes, 1 to 128 letters, digits and . _ -"`
}

// Validate returns all that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	if !filepath.IsAbs(c.Dir) || filepath.Clean(c.Dir) == "/" {
		errs = append(errs, &FieldError{"dir", c.Dir, "want an absolute path below the root"})
	}
	if !namePattern.MatchString(c.Driver) {
		errs = append(errs, &FieldError{"driver", c.Driver, nameBound})
	}
	return errors.Join(errs...)
}

const (
	volumesDir = "volumes"
	mountsDir  = "mounts"
	// hidden begins what no name can begin with.
	hidden     = "."
	newPrefix  = hidden + "new-"
	gonePrefix = hidden + "gone-"
	// dirMode lets whoever sets up a container reach its volumes, and list nothing.
	dirMode = 0o711
)

// ErrInUse: containers have the volume.
var ErrInUse = errors.New("volume is in use")

// Driver gives volumes to containers. Its methods may be called concurrently, but only one Driver of a
// directory may be open at a time.
type Driver struct {
	cfg Config

	mu   sync.Mutex // one change at a time, so that no volume is deleted while it is being mounted
	root *os.Root
}

// Open makes the directories, or finds those of an earlier life. Close lets go of them.
func Open(cfg Config) (*Driver, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, dirMode); err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	root, err := os.OpenRoot(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	d := &Driver{cfg: cfg, root: root}
	if err := errors.Join(root.MkdirAll(volumesDir, dirMode), root.MkdirAll(mountsDir, dirMode), d.sweep()); err != nil {
		return nil, errors.Join(fmt.Errorf("open volumes: %w", err), root.Close())
	}
	return d, nil
}

// sweep removes what a crash left half made or half deleted.
func (d *Driver) sweep() error {
	names, err := d.names(volumesDir)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if strings.HasPrefix(name, hidden) {
			errs = append(errs, d.root.RemoveAll(path.Join(volumesDir, name)))
		}
	}
	return errors.Join(errs...)
}

// Close lets go of the directory; containers keep their volumes.
func (d *Driver) Close() error { return d.root.Close() }

// Drivers returns the names of the drivers of the cell, as its state tells them.
func (d *Driver) Drivers() []string { return []string{d.cfg.Driver} }

// Mount says that a container has a volume, makes it when it is not there, and returns the directory to bind
// into the container, and whether for reading only. An error about what was asked for is a *FieldError,
// whose text its owner may see.
func (d *Driver) Mount(id engine.ID, m lrp.VolumeMount) (source string, readOnly bool, err error) {
	if err := checkID(id); err != nil {
		return "", false, err
	}
	name, o, err := d.read(m)
	if err != nil {
		return "", false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	// The reference first: a volume that nobody is known to have could be deleted.
	if err := d.refer(id, name); err != nil {
		return "", false, fmt.Errorf("mount volume %s for container %s: %w", name, id, err)
	}
	if err := d.ensure(name, o); err != nil {
		return "", false, fmt.Errorf("mount volume %s for container %s: %w", name, id, err)
	}
	return filepath.Join(d.cfg.Dir, volumesDir, name), o.readOnly, nil
}

func (d *Driver) refer(id engine.ID, name string) error {
	dir := path.Join(mountsDir, string(id))
	if err := d.root.MkdirAll(dir, dirMode); err != nil {
		return err
	}
	file, err := d.root.OpenFile(path.Join(dir, name), os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	return file.Close()
}

// ensure makes a volume with its owner and mode, unless it is there: then it stays as it is, for whoever
// has it may have changed both.
func (d *Driver) ensure(name string, o options) error {
	at := path.Join(volumesDir, name)
	info, err := d.root.Lstat(at)
	switch {
	case err == nil && !info.IsDir():
		return fmt.Errorf("%s is no directory", filepath.Join(d.cfg.Dir, at))
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	names, err := d.names(volumesDir)
	if err != nil {
		return err
	}
	if len(names) >= MaxVolumes {
		return fmt.Errorf("%s has %d volumes, the most it may have: delete some", d.cfg.Dir, len(names))
	}
	half := path.Join(volumesDir, newPrefix+name)
	err = d.root.Mkdir(half, 0o700)
	if err == nil {
		err = d.root.Chown(half, o.uid, o.gid)
	}
	if err == nil {
		err = d.root.Chmod(half, o.mode) // Mkdir's mode is cut by the umask
	}
	if err == nil {
		err = d.root.Rename(half, at)
	}
	if err != nil {
		return errors.Join(err, d.root.RemoveAll(half))
	}
	return nil
}

// Unmount says that a container has no volumes any more; they stay. A container that had none is no error.
func (d *Driver) Unmount(id engine.ID) error {
	if err := checkID(id); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.root.RemoveAll(path.Join(mountsDir, string(id))); err != nil {
		return fmt.Errorf("unmount volumes of container %s: %w", id, err)
	}
	return nil
}

// Containers returns the containers that have volumes, in order. One that the engine does not know is left
// from a crash, and to be unmounted.
func (d *Driver) Containers() ([]engine.ID, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	names, err := d.names(mountsDir)
	if err != nil {
		return nil, fmt.Errorf("list containers with volumes: %w", err)
	}
	ids := make([]engine.ID, len(names))
	for i, name := range names {
		ids[i] = engine.ID(name)
	}
	return ids, nil
}

// Volume is what there is of a volume.
type Volume struct {
	Name string
	Path string
	By   []engine.ID // the containers that have it, in order
}

// Volumes returns all volumes, in the order of their names.
func (d *Driver) Volumes() ([]Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	names, err := d.names(volumesDir)
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	by, err := d.references()
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	var out []Volume
	for _, name := range names {
		if !strings.HasPrefix(name, hidden) {
			out = append(out, Volume{name, filepath.Join(d.cfg.Dir, volumesDir, name), by[name]})
		}
	}
	return out, nil
}

// Delete deletes a volume with all that is in it, for the operator. The error is ErrInUse while containers have
// it; one that is not there is no error.
func (d *Driver) Delete(name string) error {
	if err := checkName("volume", name); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	by, err := d.references()
	if err != nil {
		return fmt.Errorf("delete volume %s: %w", name, err)
	}
	if len(by[name]) > 0 {
		return fmt.Errorf("delete volume %s: %w by %d containers, the first is %s", name, ErrInUse, len(by[name]), by[name][0])
	}
	gone := path.Join(volumesDir, gonePrefix+name)
	err = d.root.RemoveAll(gone)
	if err == nil {
		err = d.root.Rename(path.Join(volumesDir, name), gone)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = d.root.RemoveAll(gone)
	}
	if err != nil {
		return fmt.Errorf("delete volume %s: %w", name, err)
	}
	return nil
}

// references returns who has which volume.
func (d *Driver) references() (map[string][]engine.ID, error) {
	containers, err := d.names(mountsDir)
	if err != nil {
		return nil, err
	}
	by := map[string][]engine.ID{}
	for _, id := range containers {
		volumes, err := d.names(path.Join(mountsDir, id))
		if err != nil {
			return nil, err
		}
		for _, name := range volumes {
			by[name] = append(by[name], engine.ID(id))
		}
	}
	return by, nil
}

// names lists a directory in order.
func (d *Driver) names(dir string) ([]string, error) {
	file, err := d.root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	names, err := file.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}
