package belongings

import (
	"context"
	"errors"
	"fmt"

	"muster/bbs/lrp"
	"muster/cells/engine"
	"muster/cells/volume"
)

// Volumes are the volumes of a cell.
type Volumes struct{ Driver *volume.Driver } // nil: it has none

// volumesFailed is the reason of a container whose volumes could not be mounted.
const volumesFailed = "failed to mount volume"

// Prepare mounts the volumes of a container, one after another.
func (v Volumes) Prepare(_ context.Context, c Container) (Grant, error) {
	var g Grant
	for i, m := range c.Needs.Volumes {
		source, readOnly, err := v.mount(c.ID, m)
		var field *volume.FieldError
		switch {
		case errors.As(err, &field):
			return Grant{}, &Error{Reason: fmt.Sprintf("%s, errors: volume_mounts[%d].%v", volumesFailed, i, field), Err: err}
		case err != nil:
			return Grant{}, &Error{Reason: volumesFailed, Err: fmt.Errorf("volume_mounts[%d]: %w", i, err)}
		}
		g.Mounts = append(g.Mounts, engine.Mount{Source: source, Target: m.ContainerDir, Writable: !readOnly})
	}
	return g, nil
}

func (v Volumes) mount(id engine.ID, m lrp.VolumeMount) (source string, readOnly bool, err error) {
	if v.Driver == nil {
		return "", false, &volume.FieldError{Field: "driver", Value: m.Driver, Want: "want no volumes: the cell has no driver"}
	}
	return v.Driver.Mount(id, m)
}

// Keep does nothing: what a container has is on disk.
func (v Volumes) Keep(context.Context, engine.Container) error { return nil }

// Release takes the volumes of a container back; they stay.
func (v Volumes) Release(_ context.Context, id engine.ID) error {
	if v.Driver == nil {
		return nil
	}
	return v.Driver.Unmount(id)
}

// Holders returns the containers that have volumes.
func (v Volumes) Holders(context.Context) ([]engine.ID, error) {
	if v.Driver == nil {
		return nil, nil
	}
	return v.Driver.Containers()
}
