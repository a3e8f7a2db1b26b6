package containerd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"muster/bbs/lrp"
	"muster/cells/engine"
)

// paths are the places below the state directory.
type paths struct{ root string }

func (p paths) containers() string            { return filepath.Join(p.root, "containers") }
func (p paths) container(id engine.ID) string { return filepath.Join(p.containers(), string(id)) }
func (p paths) netnsDir() string              { return filepath.Join(p.root, "netns") }
func (p paths) netns(id engine.ID) string     { return filepath.Join(p.netnsDir(), string(id)) }
func (p paths) ipam() string                  { return filepath.Join(p.root, "ipam") }
func (p paths) cniCache() string              { return filepath.Join(p.root, "cni") }

func (p paths) file(id engine.ID, name string) string { return filepath.Join(p.container(id), name) }

// The files of a container.
const (
	specFile    = "spec.json"
	networkFile = "network.json"
	startedFile = "started"
)

// asked is what a container was asked to have; its network cannot be undone without it.
type asked struct {
	Ports   []engine.Port     `json:"ports"`
	Egress  []lrp.EgressRule  `json:"egress,omitempty"`
	Network map[string]string `json:"network,omitempty"`
}

func askedBy(spec engine.Spec) asked { return asked{spec.Ports, spec.Egress, spec.Network} }

// given is what the network gave.
type given struct {
	Address string `json:"address"`
}

// claim makes the directory of a container; it is the first trace of it.
func (p paths) claim(spec engine.Spec) error {
	if err := os.MkdirAll(p.containers(), 0o711); err != nil {
		return fmt.Errorf("state directory: %w", noSpace(err, p.root))
	}
	err := os.Mkdir(p.container(spec.ID), 0o711)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("container %s: %w", spec.ID, engine.ErrExists)
	}
	if err != nil {
		return fmt.Errorf("state of container %s: %w", spec.ID, noSpace(err, p.root))
	}
	return nil
}

// fill writes what the container starts with.
func (p paths) fill(spec engine.Spec, dns []string) error {
	if err := p.write(spec.ID, specFile, askedBy(spec)); err != nil {
		return err
	}
	resolv, err := resolvConf(dns)
	if err != nil {
		return err
	}
	hostname := hostname(spec.ID)
	files := map[string]string{
		"hosts": hostsFile("", hostname), "hostname": hostname + "\n", "resolv.conf": resolv, logFile: "", eventsFile: "", notesFile: "",
	}
	for name, text := range files {
		if err := os.WriteFile(p.file(spec.ID, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("state of container %s: %w", spec.ID, noSpace(err, p.root))
		}
	}
	return nil
}

func (p paths) write(id engine.ID, name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	temporary := p.file(id, name+".new")
	if err := os.WriteFile(temporary, text, 0o600); err != nil {
		return fmt.Errorf("state of container %s: %w", id, noSpace(err, p.root))
	}
	return os.Rename(temporary, p.file(id, name)) // whole or not at all
}

// read fills v from a file of a container and tells whether there is one that can be read.
func (p paths) read(id engine.ID, name string, v any) bool {
	text, err := os.ReadFile(p.file(id, name))
	return err == nil && json.Unmarshal(text, v) == nil
}

func (p paths) has(id engine.ID, name string) bool {
	_, err := os.Stat(p.file(id, name))
	return err == nil
}

// known returns the IDs that have left a trace below the state directory.
func (p paths) known() ([]engine.ID, error) {
	var ids []engine.ID
	for _, dir := range []string{p.containers(), p.netnsDir()} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("state directory: %w", err)
		}
		for _, entry := range entries {
			ids = append(ids, engine.ID(entry.Name()))
		}
	}
	return ids, nil
}
