package callback

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"muster/bbs/task"
)

// verdict says what follows from one try.
type verdict int

const (
	done    verdict = iota // the receiver knows
	refused                // the receiver does not want to know
	again                  // the next try may work
	later                  // no try of the next seconds will work
)

// message is what a receiver is sent: Diego's TaskCallbackResponse.
type message struct {
	TaskGUID      task.GUID `json:"task_guid"`
	Failed        bool      `json:"failed"`
	FailureReason string    `json:"failure_reason"`
	Result        string    `json:"result"`
	Annotation    string    `json:"annotation,omitempty"`
	CreatedAt     int64     `json:"created_at"` // nanoseconds since 1970
}

// body returns what a receiver is sent about a task.
func body(t task.Task) []byte {
	// Plain values: this cannot fail.
	text, _ := json.Marshal(message{
		TaskGUID: t.GUID, Failed: t.Failed, FailureReason: t.FailureReason, Result: t.Result,
		Annotation: t.Definition.Annotation, CreatedAt: t.CreatedAt.UnixNano(),
	})
	return text
}

// post makes one try: a request, and others where the answers point.
func (p *Pool) post(ctx context.Context, to *url.URL, body []byte, trace string) (verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	for redirects := 0; ; redirects++ {
		status, next, err := p.request(ctx, to, body, trace)
		switch {
		case err != nil:
			return judgeError(err), err
		case next == nil:
			return judge(status)
		case redirects == MaxRedirects:
			return refused, fmt.Errorf("%s redirects more than %d times", to.Redacted(), MaxRedirects)
		case to.Scheme == "https" && next.Scheme != "https":
			return refused, fmt.Errorf("%s redirects to an unprotected %s", to.Redacted(), next.Redacted())
		}
		to = next
	}
}

// request sends one request. Next is where the answer redirects the whole request to, if it does.
func (p *Pool) request(ctx context.Context, to *url.URL, body []byte, trace string) (status int, next *url.URL, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(body))
	if err != nil {
		return 0, nil, fmt.Errorf("make a request to %s: %w", to.Redacted(), err)
	}
	req.Header.Set("Content-Type", "application/json")
	if trace != "" {
		req.Header.Set("X-Vcap-Request-Id", trace)
	}
	res, err := p.client.Do(req)
	if err != nil {
		return 0, nil, err // which says what was tried, without the password
	}
	defer res.Body.Close()
	// What is left of a large answer costs its connection, and nothing else; the status is known.
	_, _ = io.CopyN(io.Discard, res.Body, maxAnswerBytes)
	switch res.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		next, err = res.Location()
		if errors.Is(err, http.ErrNoLocation) {
			return res.StatusCode, nil, nil
		}
	}
	return res.StatusCode, next, err
}

// judge says what follows from the status of an answer.
func judge(status int) (verdict, error) {
	answer := fmt.Errorf("the receiver answered %d %s", status, http.StatusText(status))
	switch {
	case status >= 200 && status < 300, status == http.StatusSeeOther:
		return done, nil
	case status >= 500, status == http.StatusTooManyRequests, status == http.StatusRequestTimeout:
		return again, answer
	default:
		return refused, answer
	}
}

// judgeError says what follows from there being no answer.
func judgeError(err error) verdict {
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		return later
	}
	return again
}
