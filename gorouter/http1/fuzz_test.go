package http1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// FuzzRequest compares with net/http: what is accepted here must mean the same there.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /a%2fb?q HTTP/1.1\r\nHost: a.com:80\r\nContent-Length: 3\r\n\r\nabc",
		"PUT http://a/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: x, close\r\nX: 1\r\n\r\n1\r\nx\r\n0\r\n\r\n",
		"OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
		"GET //x/../y HTTP/1.1\r\nHost: [::1]:8\r\nExpect: 100-continue\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET / HTTP/1.1\nHost: a\n\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Scanner
		end, err := s.End(b, testLimits)
		if err != nil || end == 0 {
			return
		}
		var r Request
		if err := r.Parse(b[:end], testLimits); err != nil {
			return
		}
		want, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			// net/url is stricter about hosts and fragments of absolute targets, never about framing.
			if r.Target[0] != '/' || strings.Contains(err.Error(), "invalid URL") {
				return
			}
			t.Fatalf("accepted here, refused there: %v\n%q", err, b[:end])
		}
		if string(r.Method) != want.Method || string(r.Target) != want.RequestURI || int(r.Minor) != want.ProtoMinor {
			t.Fatalf("request line: got %s %s %d, want %s %s %d", r.Method, r.Target, r.Minor, want.Method, want.RequestURI, want.ProtoMinor)
		}
		if r.Target[0] == '/' && string(r.Host) != want.Host {
			t.Fatalf("host: got %q, want %q", r.Host, want.Host)
		}
		length := map[Body]int64{NoBody: 0, Sized: r.Length, Chunked: -1}[r.Body]
		if length != want.ContentLength {
			t.Fatalf("length: got %d (%d), want %d", length, r.Body, want.ContentLength)
		}
		if r.KeepAlive == want.Close && !(r.Minor == 0 && !r.KeepAlive) {
			t.Fatalf("keep-alive: got %v, close there %v", r.KeepAlive, want.Close)
		}
		checkFields(t, r.Message, want.Header)
	})
}

// checkFields wants every field that is passed on to be known, with its value, to the other parser.
func checkFields(t *testing.T, m Message, want http.Header) {
	t.Helper()
	for _, f := range m.Fields {
		name := http.CanonicalHeaderKey(string(f.Name))
		if f.Key == Host || f.Key == TransferEncoding || f.Key == Trailer || f.Drop {
			continue
		}
		found := false
		for _, v := range want[name] {
			found = found || v == string(f.Value)
		}
		if !found {
			t.Fatalf("field %s: %q here, %q there", name, f.Value, want[name])
		}
	}
}

// FuzzResponse compares with net/http.
func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
		"HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.0 200\r\nConnection: keep-alive\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
	} {
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, toHead bool) {
		var s Scanner
		end, err := s.End(b, testLimits)
		if err != nil || end == 0 {
			return
		}
		var r Response
		if err := r.Parse(b[:end], testLimits, toHead); err != nil {
			return
		}
		method := "GET"
		if toHead {
			method = "HEAD"
		}
		want, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), &http.Request{Method: method})
		if err != nil {
			if strings.Contains(err.Error(), "bad trailer key") {
				return // announced trailers are not looked at here: they come, or they do not
			}
			t.Fatalf("accepted here, refused there: %v\n%q", err, b[:end])
		}
		if r.Status != want.StatusCode {
			t.Fatalf("status: got %d, want %d", r.Status, want.StatusCode)
		}
		if length := map[Body]int64{Sized: r.Length, Chunked: -1, UntilClose: -1}[r.Body]; r.Body != NoBody && length != want.ContentLength {
			t.Fatalf("length: got %d (%d), want %d", length, r.Body, want.ContentLength)
		}
		checkFields(t, r.Message, want.Header)
	})
}

// FuzzChunks compares with net/http, and any split of the input with any other.
func FuzzChunks(f *testing.F) {
	for _, s := range []string{"0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n", "3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\nrest", "fffffffffffffff\r\n", "1\nx\n0\n\n"} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		payload, rest, err := dechunk(string(b), max(step&0xff, 1))
		payload1, rest1, err1 := dechunk(string(b), 1<<30)
		if payload != payload1 || rest != rest1 || err != err1 {
			t.Fatalf("in steps %q %q %v, at once %q %q %v", payload, rest, err, payload1, rest1, err1)
		}
		if err != nil {
			return
		}
		text := "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + string(b)
		br := bufio.NewReaderSize(strings.NewReader(text), len(text)+64)
		req, err := http.ReadRequest(br)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			if strings.Contains(err.Error(), "excess") || strings.Contains(err.Error(), "suspiciously long trailer") {
				return // limits of its own
			}
			t.Fatalf("accepted here, refused there: %v", err)
		}
		left, _ := io.ReadAll(br)
		if string(body) != payload || string(left) != rest {
			t.Fatalf("got %q, rest %q; there %q, rest %q", payload, rest, body, left)
		}
	})
}
