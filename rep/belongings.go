package rep

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"muster/cells/fetch"
	"muster/cells/volume"
	"muster/rep/internal/belongings"
	"muster/rep/internal/runner"
)

// openBelongings opens what containers need besides the engine, and returns what lets go of it.
func (c *Config) openBelongings(to *runner.Config, fetcher *fetch.Fetcher) (closeAll func(), err error) {
	if err := trustedCerts(c.TrustedCertsDir); err != nil {
		return nil, err
	}
	files, err := belongings.OpenFiles(c.mountedFilesDir())
	if err != nil {
		return nil, fmt.Errorf("mounted_files_dir: %w", err)
	}
	closers := []func() error{files.Close}
	closeAll = func() {
		for _, f := range closers {
			_ = f() // they are only read
		}
	}
	var volumes belongings.Volumes
	if c.Volumes.Dir != "" {
		if volumes.Driver, err = volume.Open(c.Volumes); err != nil {
			closeAll()
			return nil, fmt.Errorf("volumes: %w", err)
		}
		closers = append(closers, volumes.Driver.Close)
		to.VolumeDrivers = volumes.Driver.Drivers()
	}
	to.Files = fetcher
	to.Belongings = belongings.Set{belongings.Dependencies{Fetcher: fetcher}, belongings.TrustedCerts{Dir: c.TrustedCertsDir}, volumes, files}
	return closeAll, nil
}

// trustedCerts checks that there is a directory, if there is to be one.
func trustedCerts(dir string) error {
	if dir == "" {
		return nil
	}
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = errors.New("it is no directory")
	}
	if err != nil {
		return fmt.Errorf("trusted_certs_dir %q: %w", dir, err)
	}
	return nil
}

// mountedFilesDir is where the files of containers are, unless it was given among what belongs to the cell.
func (c *Config) mountedFilesDir() string {
	if c.MountedFilesDir != "" {
		return c.MountedFilesDir
	}
	return filepath.Join(c.engineConfig().StateDir, "mounted-files")
}

// belongingsProblems returns what is wrong with the configuration of belongings.
func (c *Config) belongingsProblems() []error {
	var errs []error
	for _, f := range []struct{ name, value string }{{"trusted_certs_dir", c.TrustedCertsDir}, {"mounted_files_dir", c.MountedFilesDir}} {
		if f.value != "" && (!filepath.IsAbs(f.value) || filepath.Clean(f.value) == "/") {
			errs = append(errs, fmt.Errorf("%s is %q: want an absolute path below the root, or nothing", f.name, f.value))
		}
	}
	if c.Volumes.Dir != "" {
		if err := c.Volumes.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("volumes: %w", err))
		}
	}
	return errs
}
