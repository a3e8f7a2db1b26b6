package recipe

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/cells/engine"
	"muster/cells/step"
)

// FilesDir is where the files of a container are found in it.
const FilesDir = "/etc/cf-service-bindings"

// Limits of the files of a container. Their content is at most lrp.MaxMountedFilesBytes long.
const (
	MaxFiles = 4096
	// maxFilePath is the longest path of one, in bytes, and maxFileName the longest part of it.
	maxFilePath = 1024
	maxFileName = 255
)

// Needs is what a container needs of the cell besides what the engine makes. All places in the container are clean,
// absolute, those of no engine, and different; so are the paths of files.
type Needs struct {
	Dependencies []lrp.CachedDependency // each has a cache key, and goes to its To
	Volumes      []lrp.VolumeMount      // in the order in which they are desired
	TrustedCerts string                 // where the certificates that the cell's operator trusts go; empty: nowhere
	Files        []lrp.File             // below FilesDir, by relative paths; none is in another
}

// NeedsOf returns what an instance needs of the cell.
func NeedsOf(d lrp.Desired) (Needs, error) { return ofLRP(d).needs(actionsOf(d)) }

// NeedsOfTask returns what a task needs of the cell.
func NeedsOfTask(d task.Definition) (Needs, error) { return ofTask(d).needs(actionsOfTask(d)) }

func (o order) needs(p step.Program) (Needs, error) {
	var n Needs
	taken := places{}
	for i, l := range o.layers {
		if l.Type != lrp.LayerShared {
			continue
		}
		d := sharedLayer(l)
		if err := taken.put(&d.To, fmt.Sprintf("image_layers[%d].destination_path", i)); err != nil {
			return Needs{}, err
		}
		n.Dependencies = append(n.Dependencies, d)
	}
	for i, d := range o.dependencies {
		if err := taken.put(&d.To, fmt.Sprintf("cached_dependencies[%d].to", i)); err != nil {
			return Needs{}, err
		}
		d.CacheKey = cmp.Or(d.CacheKey, d.From)
		n.Dependencies = append(n.Dependencies, d)
	}
	if n.TrustedCerts = o.trusted; n.TrustedCerts != "" {
		if err := taken.put(&n.TrustedCerts, "trusted_system_certificates_path"); err != nil {
			return Needs{}, err
		}
	}
	for i, v := range o.volumes {
		if err := taken.put(&v.ContainerDir, fmt.Sprintf("volume_mounts[%d].container_dir", i)); err != nil {
			return Needs{}, err
		}
		n.Volumes = append(n.Volumes, v)
	}
	var err error
	if n.Files, err = files(o.files, p); err != nil || n.Files == nil {
		return n, err
	}
	dir := FilesDir
	return n, taken.put(&dir, "volume_mounted_files")
}

// places are the places in a container where something is mounted, with the fields that say so.
type places map[string]string

// put cleans a place and takes it for a field.
func (p places) put(place *string, field string) error {
	given := *place
	*place = path.Clean(given)
	if err := engine.CheckTarget(*place); err != nil {
		return fmt.Errorf("%s %q: %w", field, given, err)
	}
	if other, ok := p[*place]; ok {
		return fmt.Errorf("%s %q: that is the place of %s", field, given, other)
	}
	p[*place] = field
	return nil
}

// files returns the files of a container with those of its actions: where they are mounted, nothing else can be
// written. nil: they are not mounted.
func files(own []lrp.File, p step.Program) ([]lrp.File, error) {
	if len(own) == 0 {
		return nil, nil
	}
	t := tree{}
	for i, f := range own {
		if err := t.add(fmt.Sprintf("volume_mounted_files[%d]", i), f); err != nil {
			return nil, err
		}
	}
	var err error
	p.Visit(func(a *lrp.Action) {
		if a.Run == nil || err != nil {
			return
		}
		for i, f := range a.Run.VolumeMountedFiles {
			if name, ok := clean(f.Path); ok && t.has(name, f.Content) {
				continue
			}
			if err = t.add(fmt.Sprintf("volume_mounted_files[%d] of the run action of %q", i, a.Run.Path), f); err != nil {
				return
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return t.list()
}

// tree is a tree of files under construction.
type tree struct {
	files []lrp.File
	named map[string]string // the fields of files and directories, by their names
	dirs  map[string]bool
	bytes int
}

func (t *tree) has(name, content string) bool {
	return slices.Contains(t.files, lrp.File{Path: name, Content: content})
}

// add adds the file of a field.
func (t *tree) add(field string, f lrp.File) error {
	name, ok := clean(f.Path)
	if !ok {
		return fmt.Errorf("%s.path %q: want a path below %s of at most %d bytes, %d each part, without . and .. and empty parts",
			field, cut(f.Path), FilesDir, maxFilePath, maxFileName)
	}
	if t.named == nil {
		t.named, t.dirs = map[string]string{}, map[string]bool{}
	}
	if other, ok := t.named[name]; ok {
		return fmt.Errorf("%s.path %q: that is also a path of %s", field, f.Path, other)
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if other, ok := t.named[dir]; ok && !t.dirs[dir] {
			return fmt.Errorf("%s.path %q: it is below a file, %s", field, f.Path, other)
		}
		t.named[dir], t.dirs[dir] = field, true
	}
	t.named[name] = field
	t.files = append(t.files, lrp.File{Path: name, Content: f.Content})
	t.bytes += len(f.Content)
	return nil
}

func (t *tree) list() ([]lrp.File, error) {
	switch {
	case len(t.files) > MaxFiles:
		return nil, fmt.Errorf("volume_mounted_files: %d of them, more than %d", len(t.files), MaxFiles)
	case t.bytes > lrp.MaxMountedFilesBytes:
		return nil, fmt.Errorf("volume_mounted_files: %d bytes in all, more than %d", t.bytes, lrp.MaxMountedFilesBytes)
	}
	return t.files, nil
}

// clean returns the path of a file, relative; false when it is none. A / in front is dropped, as Diego does.
func clean(name string) (string, bool) {
	name = strings.TrimPrefix(name, "/")
	if name == "" || len(name) > maxFilePath || strings.ContainsRune(name, 0) {
		return "", false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." || len(part) > maxFileName {
			return "", false
		}
	}
	return name, true
}

// cut shortens what is repeated in an error.
func cut(text string) string { return text[:min(len(text), 128)] }

// sharedLayer is a layer that containers share, as a dependency.
func sharedLayer(l lrp.ImageLayer) lrp.CachedDependency {
	d := lrp.CachedDependency{Name: l.Name, From: l.URL, To: l.DestinationPath, CacheKey: l.URL}
	if l.DigestValue != "" {
		d.ChecksumAlgorithm, d.ChecksumValue, d.CacheKey = algorithm(l), l.DigestValue, digestKey(l)
	}
	return d
}

// ownLayers are the layers that a container has for itself, as downloads that are made at once; nil: it has none.
func ownLayers(layers []lrp.ImageLayer, user string) *lrp.Action {
	p := &lrp.ParallelAction{}
	for _, l := range layers {
		if l.Type != lrp.LayerExclusive {
			continue
		}
		p.Actions = append(p.Actions, &lrp.Action{Download: &lrp.DownloadAction{
			Artifact: l.Name, From: l.URL, To: l.DestinationPath, CacheKey: digestKey(l), User: user,
			ChecksumAlgorithm: algorithm(l), ChecksumValue: l.DigestValue,
		}})
	}
	if p.Actions == nil {
		return nil
	}
	return &lrp.Action{Parallel: p}
}

// after is an action that comes after another one; either may be nil.
func after(first, then *lrp.Action) *lrp.Action {
	switch {
	case first == nil:
		return then
	case then == nil:
		return first
	}
	return &lrp.Action{Serial: &lrp.SerialAction{Actions: []*lrp.Action{first, then}}}
}

// algorithm is the name of the algorithm of a layer's digest.
func algorithm(l lrp.ImageLayer) string {
	switch l.DigestAlgorithm {
	case lrp.DigestSHA256:
		return "sha256"
	case lrp.DigestSHA512:
		return "sha512"
	}
	return fmt.Sprint(int32(l.DigestAlgorithm)) // which no cell knows
}

func digestKey(l lrp.ImageLayer) string { return algorithm(l) + ":" + l.DigestValue }
