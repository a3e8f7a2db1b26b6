package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestRoutes(t *testing.T) {
	t.Parallel()
	exits := make(chan int, 1)
	server := httptest.NewServer(routes(func(code int) { exits <- code }))
	defer server.Close()
	for path, want := range map[string]int{
		"/": 200, "/env": 200, "/healthz": 200, "/sleep?ms=1": 200, "/sleep?ms=-1": 400, "/stream?n=2&ms=0": 200, "/ws": 400, "/nothing": 404, "/exit?code=256": 400,
	} {
		if got, _ := ask(t, server.URL+path); got != want {
			t.Errorf("%s answers %d, want %d", path, got, want)
		}
	}
	if _, body := ask(t, server.URL+"/stream?n=2&ms=0"); body != "line 0\nline 1\n" {
		t.Errorf("stream %q", body)
	}
	ask(t, server.URL+"/exit?code=7")
	if code := <-exits; code != 7 {
		t.Errorf("exit code %d", code)
	}
	ask(t, server.URL+"/unhealthy")
	if got, _ := ask(t, server.URL+"/healthz"); got != 503 {
		t.Errorf("/healthz answers %d after /unhealthy", got)
	}
}

func ask(t *testing.T, url string) (int, string) {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

func TestWebSocketEcho(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(routes(nil))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	r := bufio.NewReader(conn)
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The pair of key and answer is RFC 6455's own example.
	if answer.StatusCode != 101 || answer.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("answer %v", answer)
	}
	if _, err := conn.Write([]byte{0x81, 0x82, 1, 2, 3, 4, 'h' ^ 1, 'i' ^ 2}); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(r, got); err != nil || string(got) != "\x81\x02hi" {
		t.Fatalf("echo %q, %v", got, err)
	}
}
