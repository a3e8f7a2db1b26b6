package containerd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"muster/cells/engine"
)

// What Diego's form of a Docker URL leaves out.
const (
	dockerHub  = "docker.io"
	defaultTag = "latest"
)

// reference turns docker://HOST/REPO#TAG into containerd's HOST/REPO:TAG. The tag may be a digest.
func reference(rootFS string) (ref string, err error) {
	u, err := url.Parse(rootFS)
	if err != nil {
		return "", err
	}
	host, repo, tag := u.Host, strings.Trim(u.Path, "/"), u.Fragment
	if repo == "" {
		return "", errors.New("want docker://HOST/REPOSITORY#TAG, or docker:///REPOSITORY#TAG for Docker Hub")
	}
	if host == "" {
		host = dockerHub
		if !strings.Contains(repo, "/") {
			repo = "library/" + repo
		}
	}
	switch {
	case tag == "" && strings.Contains(repo, "@"):
		return host + "/" + repo, nil
	case tag == "":
		tag = defaultTag
	case strings.HasPrefix(tag, "sha256:"):
		return host + "/" + repo + "@" + tag, nil
	}
	return host + "/" + repo + ":" + tag, nil
}

// registrySource asks the registry which version a tag means, each time: so a moved tag is noticed, and an
// image that is on the cell already is given only to whoever may have it.
func (e *Engine) registrySource(ctx context.Context, spec engine.Spec) (source, error) {
	ref, err := reference(spec.RootFS)
	if err != nil {
		return source{}, err
	}
	resolver := resolverFor(spec.Username, spec.Password)
	_, desc, err := resolver.Resolve(ctx, ref)
	if err != nil {
		return source{}, registryError(ref, spec.Username, err)
	}
	repo, _, _ := strings.Cut(ref, "@")
	if at := strings.LastIndex(repo, ":"); at > strings.LastIndex(repo, "/") {
		repo = repo[:at]
	}
	exact := repo + "@" + desc.Digest.String()
	return source{key: exact, fetch: func(ctx context.Context, name string) (images.Image, error) {
		fetcher, err := resolver.Fetcher(ctx, name)
		if err != nil {
			return images.Image{}, err
		}
		if err := e.checkPlatform(ctx, desc, fetchDocument(fetcher)); err != nil {
			return images.Image{}, err
		}
		var parts ingests
		pulled, err := e.client.Pull(ctx, name, client.WithResolver(resolver), client.WithPlatformMatcher(e.platform),
			client.WithPullUnpack, client.WithPullSnapshotter(e.cfg.Snapshotter), client.WithImageHandlerWrapper(parts.note))
		if err != nil {
			return images.Image{}, registryError(ref, spec.Username, errors.Join(err, parts.abort(ctx, e.client.ContentStore(), err)))
		}
		return pulled.Metadata(), nil
	}}, nil
}

// ingests are the parts of an image that containerd is made to fetch.
type ingests struct {
	mu   sync.Mutex
	refs []string
}

// note notes the parts that a handler is given.
func (i *ingests) note(h images.Handler) images.Handler {
	return images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		i.mu.Lock()
		i.refs = append(i.refs, remotes.MakeRefKey(ctx, desc))
		i.mu.Unlock()
		return h.Handle(ctx, desc)
	})
}

// abort drops what was fetched of the part that was not what its digest says, which its error names. containerd would
// go on with it at the next try, and refuse it again, until it is restarted.
func (i *ingests) abort(ctx context.Context, store content.IngestManager, err error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	var errs []error
	for _, ref := range i.refs {
		if !strings.Contains(err.Error(), strconv.Quote(ref)) {
			continue
		}
		if err := store.Abort(context.WithoutCancel(ctx), ref); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("drop %s: %w", ref, err))
		}
	}
	return errors.Join(errs...)
}

// resolverFor returns a resolver with the credentials of one container; nothing of it is kept.
// Plain HTTP is for registries on this machine only.
func resolverFor(username, password string) remotes.Resolver {
	authorizer := docker.NewDockerAuthorizer(docker.WithAuthCreds(func(string) (string, string, error) {
		return username, password, nil
	}))
	return docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(
		docker.WithAuthorizer(authorizer), docker.WithPlainHTTP(docker.MatchLocalhost),
	)})
}

func fetchDocument(fetcher remotes.Fetcher) readDocument {
	return func(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
		r, err := fetcher.Fetch(ctx, desc)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return readAll(r, desc)
	}
}

// registryError says what to do about a registry's answer.
func registryError(ref, username string, err error) error {
	switch {
	case errors.Is(err, docker.ErrInvalidAuthorization), errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err), strings.Contains(err.Error(), "401 Unauthorized"),
		strings.Contains(err.Error(), "authorization failed"):
		if username == "" {
			return fmt.Errorf("the registry refuses %s without credentials: give a user name and a password: %w", ref, err)
		}
		return fmt.Errorf("the registry refuses %s to user %q: check the user name and the password: %w", ref, username, err)
	case errdefs.IsNotFound(err):
		return fmt.Errorf("%s is not in the registry: check repository and tag: %w", ref, err)
	}
	return fmt.Errorf("ask the registry for %s: %w", ref, err)
}
