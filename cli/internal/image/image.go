// Package image looks at the image that somebody wants to run, before anything is desired: is it
// there, is it for this platform, what does it run? An image on disk (OCI archive or layout) is
// then put, by its digest, where the cells look for images.
package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// The platform that cells run.
const (
	platformOS   = "linux"
	platformArch = "amd64"
)

// Image is an image that can run here.
type Image struct {
	Name   string // as it was asked for
	Digest v1.Hash
	Config v1.Config
	// RootFS is the URL for the cells; empty for an image on disk until Spool has run.
	RootFS string

	local    *local
	manifest []byte
}

// Local tells whether the image is on disk.
func (i *Image) Local() bool { return i.local != nil }

// Close lets go of the file of an image on disk.
func (i *Image) Close() error {
	if i.local == nil || i.local.file == nil {
		return nil
	}
	return i.local.file.Close()
}

// NotFound says that there is no such image.
type NotFound struct {
	Name string
	Err  error
}

// Error says which image.
func (n *NotFound) Error() string { return fmt.Sprintf("image %s: %v", n.Name, n.Err) }

// Unwrap returns the reason.
func (n *NotFound) Unwrap() error { return n.Err }

// WrongPlatform says that an image is not for the platform of the cells.
type WrongPlatform struct {
	Name string
	Has  []string
}

// Error says what the image is for.
func (w *WrongPlatform) Error() string {
	return fmt.Sprintf("image %s is for %s: build or pick one for %s/%s", w.Name, strings.Join(w.Has, ", "), platformOS, platformArch)
}

// Open finds an image: a file or directory on disk, also as oci-archive:PATH or oci-layout:PATH, or
// else a reference to a registry, also as docker://REFERENCE.
func Open(ctx context.Context, ref string) (*Image, error) {
	for _, prefix := range []string{"oci-archive:", "oci-layout:"} {
		if path, ok := strings.CutPrefix(ref, prefix); ok {
			return openLocal(ref, strings.TrimPrefix(path, "//"))
		}
	}
	if remoteRef, ok := strings.CutPrefix(ref, "docker://"); ok {
		return openRemote(ctx, strings.Replace(strings.TrimPrefix(remoteRef, "/"), "#", ":", 1))
	}
	if _, err := os.Stat(ref); err == nil {
		return openLocal(ref, ref)
	} else if looksLikePath(ref) {
		return nil, &NotFound{ref, err}
	}
	return openRemote(ctx, ref)
}

func looksLikePath(ref string) bool {
	ext := filepath.Ext(ref)
	return strings.HasPrefix(ref, "/") || strings.HasPrefix(ref, ".") || strings.HasPrefix(ref, "~") ||
		ext == ".tar" || ext == ".tgz" || ext == ".gz"
}

func openRemote(ctx context.Context, text string) (*Image, error) {
	ref, err := name.ParseReference(text)
	if err != nil {
		return nil, &NotFound{text, fmt.Errorf("neither a file nor a valid image reference: %w", err)}
	}
	desc, err := remote.Get(ref, remote.WithContext(ctx))
	if err != nil {
		return nil, &NotFound{text, fmt.Errorf("the registry %s does not give it: %w", ref.Context().RegistryStr(), err)}
	}
	if desc.MediaType.IsIndex() {
		index, err := desc.ImageIndex()
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", text, err)
		}
		manifest, err := index.IndexManifest()
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", text, err)
		}
		if has := platforms(manifest.Manifests); len(has) > 0 && !fits(has) {
			return nil, &WrongPlatform{text, has}
		}
	}
	img, err := remote.Image(ref, remote.WithContext(ctx), remote.WithPlatform(v1.Platform{OS: platformOS, Architecture: platformArch}))
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", text, err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("image %s: read its configuration: %w", text, err)
	}
	if err := checkConfig(text, config); err != nil {
		return nil, err
	}
	return &Image{Name: text, Digest: desc.Digest, Config: config.Config, RootFS: dockerURL(ref)}, nil
}

// dockerURL is a reference in Diego's form: docker://HOST/REPOSITORY#TAG, with an empty host for
// Docker's own registry.
func dockerURL(ref name.Reference) string {
	host := ref.Context().RegistryStr()
	if host == name.DefaultRegistry {
		host = ""
	}
	if d, ok := ref.(name.Digest); ok {
		return fmt.Sprintf("docker://%s/%s@%s", host, ref.Context().RepositoryStr(), d.DigestStr())
	}
	return fmt.Sprintf("docker://%s/%s#%s", host, ref.Context().RepositoryStr(), ref.Identifier())
}

func openLocal(ref, path string) (*Image, error) {
	l, err := openPath(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &NotFound{ref, err}
		}
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	i, err := l.choose(ref)
	if err != nil {
		l.close()
		return nil, err
	}
	return i, nil
}

// choose picks the image for our platform from an image on disk.
func (l *local) choose(ref string) (*Image, error) {
	descs, err := l.manifests("index.json", 0)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	var has []string
	for _, d := range descs {
		if d.Platform != nil && (d.Platform.OS != platformOS || d.Platform.Architecture != platformArch) {
			has = append(has, d.Platform.OS+"/"+d.Platform.Architecture)
			continue
		}
		manifestText, err := l.blob(d.Digest)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", ref, err)
		}
		manifest, config, err := l.read(manifestText)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", ref, err)
		}
		if err := checkConfig(ref, config); err != nil {
			var wrong *WrongPlatform
			if errors.As(err, &wrong) {
				has = append(has, wrong.Has...)
				continue
			}
			return nil, err
		}
		l.manifest, l.desc = manifest, d
		return &Image{Name: ref, Digest: d.Digest, Config: config.Config, local: l, manifest: manifestText}, nil
	}
	if len(has) == 0 {
		return nil, fmt.Errorf("image %s: its index.json lists no image", ref)
	}
	sort.Strings(has)
	return nil, &WrongPlatform{ref, has}
}

func (l *local) read(text []byte) (*v1.Manifest, *v1.ConfigFile, error) {
	manifest, err := v1.ParseManifest(strings.NewReader(string(text)))
	if err != nil {
		return nil, nil, fmt.Errorf("read its manifest: %w", err)
	}
	configText, err := l.blob(manifest.Config.Digest)
	if err != nil {
		return nil, nil, err
	}
	config, err := v1.ParseConfigFile(strings.NewReader(string(configText)))
	if err != nil {
		return nil, nil, fmt.Errorf("read its configuration: %w", err)
	}
	return manifest, config, nil
}

// manifests lists the images of an index, those of indexes within it included.
func (l *local) manifests(index string, depth int) ([]v1.Descriptor, error) {
	const deepest = 4
	if depth > deepest {
		return nil, fmt.Errorf("indexes within indexes, more than %d deep", deepest)
	}
	text, err := l.small(index)
	if err != nil {
		return nil, err
	}
	m, err := v1.ParseIndexManifest(strings.NewReader(string(text)))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", index, err)
	}
	var out []v1.Descriptor
	for _, d := range m.Manifests {
		if d.MediaType == types.OCIImageIndex || d.MediaType == types.DockerManifestList {
			inner, err := l.manifests(blobName(d.Digest), depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, inner...)
			continue
		}
		if d.Platform != nil && d.Platform.OS == "unknown" {
			continue // an attestation, not an image
		}
		out = append(out, d)
	}
	return out, nil
}

func checkConfig(ref string, c *v1.ConfigFile) error {
	if c.OS != platformOS || c.Architecture != platformArch {
		return &WrongPlatform{ref, []string{c.OS + "/" + c.Architecture}}
	}
	return nil
}

func platforms(list []v1.Descriptor) []string {
	var has []string
	for _, d := range list {
		if d.Platform != nil && d.Platform.OS != "unknown" {
			has = append(has, d.Platform.OS+"/"+d.Platform.Architecture)
		}
	}
	sort.Strings(has)
	return has
}

func fits(has []string) bool {
	for _, p := range has {
		if p == platformOS+"/"+platformArch {
			return true
		}
	}
	return false
}
