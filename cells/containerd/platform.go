package containerd

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxIndexDepth bounds indexes within indexes.
const maxIndexDepth = 3

// platformsOf returns the platforms of an image; none when it does not say.
func platformsOf(ctx context.Context, desc ocispec.Descriptor, read readDocument) ([]ocispec.Platform, error) {
	return platformsBelow(ctx, desc, read, maxIndexDepth)
}

func platformsBelow(ctx context.Context, desc ocispec.Descriptor, read readDocument, depth int) ([]ocispec.Platform, error) {
	switch {
	case depth == 0:
		return nil, fmt.Errorf("more than %d indexes within each other", maxIndexDepth)
	case images.IsIndexType(desc.MediaType):
		return platformsOfIndex(ctx, desc, read, depth)
	case images.IsManifestType(desc.MediaType) && desc.Platform == nil:
		return platformOfManifest(ctx, desc, read)
	case images.IsManifestType(desc.MediaType):
		return []ocispec.Platform{*desc.Platform}, nil
	}
	return nil, nil
}

func platformsOfIndex(ctx context.Context, desc ocispec.Descriptor, read readDocument, depth int) ([]ocispec.Platform, error) {
	var index ocispec.Index
	if err := decode(ctx, desc, read, &index); err != nil {
		return nil, err
	}
	var all []ocispec.Platform
	for _, member := range index.Manifests {
		if member.Platform != nil && member.Platform.OS == "unknown" {
			continue // an attestation, not an image
		}
		found, err := platformsBelow(ctx, member, read, depth-1)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func platformOfManifest(ctx context.Context, desc ocispec.Descriptor, read readDocument) ([]ocispec.Platform, error) {
	var manifest ocispec.Manifest
	if err := decode(ctx, desc, read, &manifest); err != nil {
		return nil, err
	}
	var config ocispec.Image
	if err := decode(ctx, manifest.Config, read, &config); err != nil {
		return nil, err
	}
	if config.Architecture == "" {
		return nil, nil
	}
	return []ocispec.Platform{config.Platform}, nil
}

func decode(ctx context.Context, desc ocispec.Descriptor, read readDocument, v any) error {
	text, err := read(ctx, desc)
	if err != nil {
		return fmt.Errorf("read %s: %w", desc.Digest, err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("document %s: %w", desc.Digest, err)
	}
	return nil
}
