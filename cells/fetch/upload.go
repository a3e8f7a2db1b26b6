package fetch

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Upload sends size bytes with a POST, together with their sums. It returns how many that were. The error is an
// *Error.
func (f *Fetcher) Upload(ctx context.Context, r Request, src io.ReaderAt, size int64) (int64, error) {
	u, err := r.location()
	if err != nil {
		text := "Failed to parse URL"
		if r.Name != "" {
			text += " for " + r.Name
		}
		return 0, &Error{Text: text, Err: err}
	}
	header, err := sums(src, size)
	if err != nil {
		return 0, uploadError(r, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(f.life, func() { cancel(errClosed) })()
	err = f.retry(ctx, f.uploads, UploadAttempts, func(ctx context.Context) error {
		return f.post(ctx, r.URL, header, src, size)
	})
	if err != nil {
		return 0, uploadError(r, fmt.Errorf("upload to %s: %w", u.Host, err))
	}
	return size, nil
}

// sums returns the header that lets the server see whether all arrived as it was.
func sums(src io.ReaderAt, size int64) (http.Header, error) {
	short, long := md5.New(), sha256.New()
	n, err := io.Copy(io.MultiWriter(short, long), io.NewSectionReader(src, 0, size))
	if err != nil {
		return nil, fmt.Errorf("read the file: %w", err)
	}
	if n != size {
		return nil, fmt.Errorf("the file has %d bytes: want %d", n, size)
	}
	h := http.Header{}
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-MD5", base64.StdEncoding.EncodeToString(short.Sum(nil)))
	h.Set("Content-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(long.Sum(nil))+":")
	return h, nil
}

// post sends the file once.
func (f *Fetcher) post(ctx context.Context, to string, header http.Header, src io.ReaderAt, size int64) error {
	content := func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(src, 0, size)), nil }
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, nil)
	if err != nil {
		return withoutURL(err)
	}
	req.Header = header.Clone()
	if size > 0 {
		req.ContentLength, req.GetBody = size, content
		if req.Body, err = content(); err != nil {
			return err
		}
	}
	resp, err := f.send(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return &statusError{resp.StatusCode}
	}
	// The answer is complete before the upload counts.
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return &transient{errors.Join(errors.New("read the answer"), explain(ctx, err))}
	}
	return nil
}

// maxAnswer is how much of the answer to an upload is read, in bytes.
const maxAnswer = 1 << 20
