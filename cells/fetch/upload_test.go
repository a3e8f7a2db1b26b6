package fetch

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// receiver keeps what was uploaded.
type receiver struct {
	mu     sync.Mutex
	bodies []string
	last   *http.Request
}

func (s *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bodies, s.last = append(s.bodies, string(raw)), r
	w.WriteHeader(http.StatusCreated)
}

func TestUpload(t *testing.T) {
	t.Parallel()
	s := &receiver{}
	mux := http.NewServeMux()
	mux.Handle("/to", s)
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Location", "/to")
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	url := serve(t, mux)
	f := open(t, t.TempDir())
	for _, content := range []string{"", "text", strings.Repeat("long ", 1<<20)} {
		for _, path := range []string{"/to", "/moved"} {
			n, err := f.Upload(t.Context(), Request{URL: url + path}, strings.NewReader(content), int64(len(content)))
			if err != nil || n != int64(len(content)) {
				t.Fatal(n, err)
			}
			got := s.bodies[len(s.bodies)-1]
			short, long := md5.Sum([]byte(content)), sha256.Sum256([]byte(content))
			for name, want := range map[string]string{"Content-Type": "application/octet-stream", "Content-MD5": base64.StdEncoding.EncodeToString(short[:]),
				"Content-Digest": "sha-256=:" + base64.StdEncoding.EncodeToString(long[:]) + ":"} {
				if s.last.Header.Get(name) != want {
					t.Errorf("%s is %q, want %q", name, s.last.Header.Get(name), want)
				}
			}
			if got != content || s.last.ContentLength != int64(len(content)) || s.last.Method != http.MethodPost {
				t.Errorf("%s of %d bytes, %d of them arrived", s.last.Method, s.last.ContentLength, len(got))
			}
		}
	}
	// No more is sent than was said.
	if _, err := f.Upload(t.Context(), Request{URL: url + "/to"}, strings.NewReader("longer"), 4); err != nil || s.bodies[len(s.bodies)-1] != "long" {
		t.Error(err, s.bodies[len(s.bodies)-1])
	}
}

func TestUploadFails(t *testing.T) {
	for name, row := range map[string]struct {
		status    int
		attempts  int32
		text, why string
	}{
		"404":                                 {404, 1, "Upload failed: Status code 404", "upload to origin: attempt 1 of 3: status code 404"},
		"503":                                 {503, 3, "Upload failed: Status code 503", "upload to origin: attempt 3 of 3: status code 503"},
		"a redirect that would lose the file": {302, 1, "Upload failed: Status code 302", "status code 302"},
		"silence":                             {0, 3, "Uploading app failed", "upload to origin: attempt 3 of 3: no byte came or went for 10s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked atomic.Int32
				over := make(chan struct{})
				f := virtual(t, answers(&asked, func(_ int32, w http.ResponseWriter, r *http.Request) {
					if row.status == 0 {
						<-over
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					w.Header().Set("Location", "/elsewhere")
					w.WriteHeader(row.status)
				}))
				t.Cleanup(func() { close(over) })
				content := bytes.Repeat([]byte("x"), 1<<20)
				_, err := f.Upload(t.Context(), Request{Name: "app", URL: withSecrets("http://origin")}, bytes.NewReader(content), 1<<20)
				failed(t, err, row.text, row.why)
				if asked.Load() != row.attempts {
					t.Errorf("%d attempts", asked.Load())
				}
			})
		})
	}
}

// A slow network is no silence: an upload may take as long as an attempt may.
func TestSlowUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &receiver{}
		f := virtual(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Body = io.NopCloser(bufio.NewReaderSize(&trickle{r.Body}, 4096))
			s.ServeHTTP(w, r)
		}))
		begin := time.Now()
		content := strings.Repeat("x", 1<<20)
		n, err := f.Upload(t.Context(), Request{URL: "http://origin"}, strings.NewReader(content), 1<<20)
		if err != nil || n != 1<<20 || len(s.bodies) != 1 || s.bodies[0] != content {
			t.Errorf("%d %v: %d bodies", n, err, len(s.bodies))
		}
		if took := time.Since(begin); took < time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

type trickle struct{ r io.Reader }

func (t *trickle) Read(p []byte) (int, error) {
	time.Sleep(time.Second)
	n, err := io.ReadFull(t.r, p[:min(len(p), 4096)])
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, err
}

func TestUploadOfBadThings(t *testing.T) {
	t.Parallel()
	f := open(t, t.TempDir())
	_, err := f.Upload(t.Context(), Request{Name: "app", URL: "ftp://" + secret}, strings.NewReader("x"), 1)
	failed(t, err, "Failed to parse URL for app", "the URL is none of http or https")
	_, err = f.Upload(t.Context(), Request{URL: "ftp://" + secret}, strings.NewReader("x"), 1)
	failed(t, err, "Failed to parse URL", "the URL is none of http or https")
	_, err = f.Upload(t.Context(), Request{URL: "http://localhost"}, strings.NewReader("x"), 2)
	failed(t, err, "Uploading failed", "the file has 1 bytes: want 2")
}

func TestUploadsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{after: time.Second}
		f := virtual(t, s)
		var all sync.WaitGroup
		for range 2 * MaxUploads {
			all.Go(func() {
				if _, err := f.Upload(context.Background(), Request{URL: "http://origin"}, strings.NewReader("x"), 1); err != nil {
					t.Error(fmt.Errorf("%w: %w", err, err.(*Error).Err))
				}
			})
		}
		all.Wait()
		if s.most.Load() != MaxUploads {
			t.Errorf("%d at once", s.most.Load())
		}
	})
}
