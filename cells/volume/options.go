package volume

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"

	"muster/bbs/lrp"
	"muster/cells/engine"
)

// FieldError says what is wrong with a field of a volume mount or of the configuration.
type FieldError struct{ Field, Value, Want string }

// Error names the field, its value and the bound.
func (e *FieldError) Error() string { return fmt.Sprintf("%s is %q: %s", e.Field, e.Value, e.Want) }

// No name contains a slash or begins with a dot, so none leads anywhere else.
var (
	namePattern = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$`)
	idPattern   = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
)

const nameBound = "want 1 to 128 letters, digits and . _ -, and no . in front"

func checkName(field, name string) error {
	if !namePattern.MatchString(name) {
		return &FieldError{field, name, nameBound}
	}
	return nil
}

func checkID(id engine.ID) error {
	if !idPattern.MatchString(string(id)) {
		return &FieldError{"container", string(id), "want 1 to 64 letters, digits and -"}
	}
	return nil
}

// Bounds of mount_config.
const (
	maxConfig = 16 << 10 // bytes
	maxID     = 1<<31 - 2
	maxMode   = 0o777
)

// defaultMode lets everybody in: which user a container runs as is not known here.
const defaultMode fs.FileMode = 0o777

// options are what a volume mount asks for beside the volume.
type options struct {
	uid, gid int
	mode     fs.FileMode
	readOnly bool
}

// config is mount_config as it is written. Numbers may be written as texts, as brokers do.
type config struct {
	UID      json.Number `json:"uid"`
	GID      json.Number `json:"gid"`
	Mode     string      `json:"mode"`
	ReadOnly bool        `json:"readonly"`
}

// read reads a volume mount.
func (d *Driver) read(m lrp.VolumeMount) (name string, o options, err error) {
	const device = "shared.volume_id"
	switch {
	case m.Driver != d.cfg.Driver:
		return "", o, &FieldError{"driver", m.Driver, "want " + d.cfg.Driver + ", which is all that the cell has"}
	case m.Mode != "r" && m.Mode != "rw":
		return "", o, &FieldError{"mode", m.Mode, "want r or rw"}
	case m.Dedicated != nil:
		return "", o, &FieldError{"dedicated.mounter_id", m.Dedicated.MounterID, "want none: driver " + m.Driver + " has shared volumes only"}
	case m.Shared == nil:
		return "", o, &FieldError{device, "", nameBound}
	}
	if err := checkName(device, m.Shared.VolumeID); err != nil {
		return "", o, err
	}
	o, err = readOptions(m.Shared.MountConfig)
	o.readOnly = o.readOnly || m.Mode == "r"
	return m.Shared.VolumeID, o, err
}

// readOptions reads mount_config. Errors do not repeat it: it may hold secrets that are meant for another driver.
func readOptions(text string) (options, error) {
	const field = "shared.mount_config"
	o := options{mode: defaultMode}
	if text == "" {
		return o, nil
	}
	if len(text) > maxConfig {
		return o, &FieldError{field, fmt.Sprintf("%d bytes", len(text)), fmt.Sprintf("want at most %d", maxConfig)}
	}
	var c config
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&c); err != nil || decoder.More() {
		return o, &FieldError{field, "…", `want a JSON object with no more than the numbers "uid" and "gid", the octal text "mode" and the truth value "readonly"`}
	}
	o.readOnly = c.ReadOnly
	var err error
	if o.uid, err = readID(field+".uid", c.UID); err != nil {
		return o, err
	}
	if o.gid, err = readID(field+".gid", c.GID); err != nil {
		return o, err
	}
	if c.Mode != "" {
		mode, err := strconv.ParseUint(c.Mode, 8, 32)
		if err != nil || mode > maxMode {
			return o, &FieldError{field + ".mode", c.Mode, fmt.Sprintf("want an octal number of at most %o", maxMode)}
		}
		o.mode = fs.FileMode(mode)
	}
	return o, nil
}

// readID reads the number of a user or a group; none means root.
func readID(field string, n json.Number) (int, error) {
	if n == "" {
		return 0, nil
	}
	id, err := strconv.Atoi(n.String())
	if err != nil || id < 0 || id > maxID {
		return 0, &FieldError{field, n.String(), fmt.Sprintf("want 0 to %d", maxID)}
	}
	return id, nil
}
