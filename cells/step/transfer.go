package step

import (
	"context"
	"encoding/json"
	"fmt"

	"muster/bbs/lrp"
)

// Transfers returns the downloads and uploads of a program in the order of their numbers.
func (p Program) Transfers() []*lrp.Action {
	var all []*lrp.Action
	p.Visit(func(a *lrp.Action) {
		if a.Download != nil || a.Upload != nil {
			all = append(all, a)
		}
	})
	return all
}

// WithoutAddresses returns a copy of a program without what is only needed to carry out its transfers: the
// URLs, which may hold secrets.
func (p Program) WithoutAddresses() (Program, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return Program{}, fmt.Errorf("copy program: %w", err)
	}
	var out Program
	if err := json.Unmarshal(text, &out); err != nil {
		return Program{}, fmt.Errorf("copy program: %w", err)
	}
	for _, a := range out.Transfers() {
		switch {
		case a.Download != nil:
			a.Download.From = ""
		default:
			a.Upload.To = ""
		}
	}
	return out, nil
}

// Visit calls fn for every action, outer ones first.
func (p Program) Visit(fn func(*lrp.Action)) {
	roots := append([]*lrp.Action{p.Setup, p.Action}, p.Sidecars...)
	if p.Monitor != nil {
		roots = append(roots, p.Monitor.Action)
	}
	for _, root := range roots {
		Visit(root, fn)
	}
}

// Visit calls fn for an action and all in it, outer ones first; for none when it is nil.
func Visit(a *lrp.Action, fn func(*lrp.Action)) {
	if a == nil {
		return
	}
	fn(a)
	for _, inner := range children(a) {
		Visit(inner, fn)
	}
}

func children(a *lrp.Action) []*lrp.Action {
	switch {
	case a.Timeout != nil:
		return []*lrp.Action{a.Timeout.Action}
	case a.EmitProgress != nil:
		return []*lrp.Action{a.EmitProgress.Action}
	case a.Try != nil:
		return []*lrp.Action{a.Try.Action}
	case a.Parallel != nil:
		return a.Parallel.Actions
	case a.Serial != nil:
		return a.Serial.Actions
	case a.Codependent != nil:
		return a.Codependent.Actions
	}
	return nil
}

// download fetches a file. Progress is told when the artifact has a name, failure always.
func (r *runner) download(ctx context.Context, action *lrp.Action, source string) error {
	a := action.Download
	source = first(a.LogSource, source)
	if a.Artifact != "" {
		r.log(source, Stdout, fmt.Sprintf("Downloading %s...", a.Artifact))
	}
	size, cached, err := r.host.Download(ctx, r.numbers[action], a)
	switch {
	case ctx.Err() != nil:
		return errCancelled
	case err != nil:
		return r.failed(source, err)
	case a.Artifact != "" && cached:
		r.log(source, Stdout, fmt.Sprintf("Downloaded %s", a.Artifact))
	case a.Artifact != "":
		r.log(source, Stdout, fmt.Sprintf("Downloaded %s (%s)", a.Artifact, Size(size)))
	}
	return nil
}

// upload brings a file to where it belongs.
func (r *runner) upload(ctx context.Context, action *lrp.Action, source string) error {
	a := action.Upload
	source = first(a.LogSource, source)
	if a.Artifact != "" {
		r.log(source, Stdout, fmt.Sprintf("Uploading %s...", a.Artifact))
	}
	size, err := r.host.Upload(ctx, r.numbers[action], a)
	switch {
	case ctx.Err() != nil:
		return errCancelled
	case err != nil:
		return r.failed(source, err)
	case a.Artifact != "":
		r.log(source, Stdout, fmt.Sprintf("Uploaded %s (%s)", a.Artifact, Size(size)))
	}
	return nil
}

const (
	// maxErrorBytes bounds the text of a failed transfer in the log.
	maxErrorBytes  = 1024
	errorTruncated = " (error truncated)"
)

// failed tells the user why a file was not moved. The text never holds a URL: see Host.
func (r *runner) failed(source string, err error) error {
	text := err.Error()
	if len(text) > maxErrorBytes {
		text = text[:maxErrorBytes-len(errorTruncated)] + errorTruncated
	}
	r.log(source, Stderr, text)
	return &failure{text: text}
}

// Size returns a number of bytes for people: 512B, 1.2M.
func Size(bytes int64) string {
	const unit = 1024
	if bytes < unit {
		return fmt.Sprintf("%dB", bytes)
	}
	value, letters := float64(bytes)/unit, "KMGT"
	for value >= unit && len(letters) > 1 {
		value, letters = value/unit, letters[1:]
	}
	text := fmt.Sprintf("%.1f", value)
	if text[len(text)-2:] == ".0" {
		text = text[:len(text)-2]
	}
	return text + letters[:1]
}
