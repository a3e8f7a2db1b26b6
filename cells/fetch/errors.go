package fetch

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"syscall"

	"muster/cells/engine"
	"muster/cells/fetch/cache"
)

// DependenciesFailed is the reason of a container whose cached dependencies could not be had.
const DependenciesFailed = "failed to download cached artifacts"

// Error is why a file was not moved. Its text is for the owner of the app: it holds no part of a URL.
type Error struct {
	Text string
	Err  error // for the log of the cell; without credentials and query
}

// Error returns the text for people.
func (e *Error) Error() string { return e.Text }

// Unwrap returns the cause: of a cancelled context, engine.ErrNoSpace when the disk of the cell or the cache
// is full, and others.
func (e *Error) Unwrap() error { return e.Err }

// downloadError returns the error of a request.
func downloadError(r Request, err error) error {
	if r.Name == "" {
		return &Error{Text: "Downloading failed", Err: err}
	}
	return &Error{Text: fmt.Sprintf("Downloading %s failed", r.Name), Err: err}
}

// uploadError returns the error of an upload.
func uploadError(r Request, err error) error {
	var status *statusError
	switch {
	case errors.As(err, &status):
		return &Error{Text: fmt.Sprintf("Upload failed: Status code %d", status.code), Err: err}
	case r.Name == "":
		return &Error{Text: "Uploading failed", Err: err}
	}
	return &Error{Text: fmt.Sprintf("Uploading %s failed", r.Name), Err: err}
}

// statusError is an answer that is no success.
type statusError struct{ code int }

func (e *statusError) Error() string { return fmt.Sprintf("status code %d", e.code) }

// transient wraps what may be over when it is tried again.
type transient struct{ error }

func (t *transient) Unwrap() error { return t.error }

// worthRetrying tells whether another attempt may end otherwise.
func worthRetrying(err error) bool {
	var status *statusError
	if errors.As(err, &status) {
		return status.code >= 500 || status.code == http.StatusTooManyRequests || status.code == http.StatusRequestTimeout
	}
	var t *transient
	return errors.As(err, &t)
}

// withoutURL takes the URL out of an error of package http: its query may be a signature.
func withoutURL(err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

// full marks the errors of a disk or a cache that is full.
func full(err error) error {
	var room *cache.Full
	if errors.As(err, &room) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", engine.ErrNoSpace, err)
	}
	return err
}

var (
	errClosed  = errors.New("the cell stops downloading")
	errTooLong = fmt.Errorf("it took longer than %v", AttemptTimeout)
	errStalled = fmt.Errorf("no byte came or went for %v", StallTimeout)
)
