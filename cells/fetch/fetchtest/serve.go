// Package fetchtest serves archives to tests, for cells to download.
package fetchtest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"testing"
)

// Serve serves an archive that holds one file, and can be cached, until the test ends. It returns the archive's URL and
// its SHA-256, in hexadecimal.
func Serve(t testing.TB, name, content string) (url, sum string) {
	t.Helper()
	var buf bytes.Buffer
	archive := tar.NewWriter(&buf)
	err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg})
	if err == nil {
		_, err = archive.Write([]byte(content))
	}
	if err == nil {
		err = archive.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"1"`)
		_, _ = w.Write(buf.Bytes())
	}))
	t.Cleanup(s.Close)
	digest := sha256.Sum256(buf.Bytes())
	return s.URL + "/lib.tar", hex.EncodeToString(digest[:])
}
