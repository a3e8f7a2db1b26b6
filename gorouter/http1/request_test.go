package http1

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

var testLimits = Limits{HeadBytes: 4096, Fields: 20}

// parse scans and parses text the way a connection does.
func parse(text string) (*Request, string, error) {
	var s Scanner
	end, err := s.End([]byte(text), testLimits)
	if err != nil {
		return nil, "", err
	}
	if end == 0 {
		return nil, "", errors.New("incomplete")
	}
	var r Request
	return &r, text[end:], r.Parse([]byte(text[:end]), testLimits)
}

func TestRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	const get = "GET / HTTP/1.1\r\nHost: a\r\n"
	const post = "POST / HTTP/1.1\r\nHost: a\r\n"
	for name, tc := range map[string]struct {
		text string
		want *Error
	}{
		"CL.TE":                              {post + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX", ErrTwoLengths},
		"TE.CL":                              {post + "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n", ErrTwoLengths},
		"TE.TE, second unknown":              {post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n", ErrTransferEncoding},
		"TE.TE, twice chunked":               {post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", ErrTransferEncoding},
		"TE list":                            {post + "Transfer-Encoding: gzip, chunked\r\n\r\n", ErrTransferEncoding},
		"TE xchunked":                        {post + "Transfer-Encoding: xchunked\r\n\r\n", ErrTransferEncoding},
		"TE quoted":                          {post + "Transfer-Encoding: \"chunked\"\r\n\r\n", ErrTransferEncoding},
		"TE with vertical tab":               {post + "Transfer-Encoding: \vchunked\r\n\r\n", ErrFieldValue},
		"TE empty":                           {post + "Transfer-Encoding:\r\n\r\n", ErrTransferEncoding},
		"TE in HTTP/1.0":                     {"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", ErrTransferEncoding},
		"TE name with a space before colon":  {post + "Transfer-Encoding : chunked\r\n\r\n", ErrFieldName},
		"TE name with a tab before colon":    {post + "Transfer-Encoding\t: chunked\r\n\r\n", ErrFieldName},
		"TE on a folded line":                {post + "X: y\r\n Transfer-Encoding: chunked\r\n\r\n", ErrFolded},
		"TE folded value":                    {post + "Transfer-Encoding:\r\n chunked\r\n\r\n", ErrTransferEncoding},
		"bare LF between fields":             {post + "X: y\nTransfer-Encoding: chunked\r\n\r\n", ErrBareLF},
		"bare CR between fields":             {post + "X: y\rTransfer-Encoding: chunked\r\n\r\n", ErrFieldValue},
		"bare LF at the end":                 {get + "\n", ErrBareLF},
		"CR CR LF":                           {get + "X: y\r\r\n\r\n", ErrFieldValue},
		"NUL in a value":                     {get + "X: a\x00b\r\n\r\n", ErrFieldValue},
		"NUL in a name":                      {get + "X\x00: ab\r\n\r\n", ErrFieldName},
		"duplicate CL, different":            {post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", ErrDuplicateLength},
		"duplicate CL, equal":                {post + "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", ErrDuplicateLength},
		"CL list":                            {post + "Content-Length: 1, 1\r\n\r\n", ErrContentLength},
		"CL with plus":                       {post + "Content-Length: +1\r\n\r\n", ErrContentLength},
		"CL negative":                        {post + "Content-Length: -1\r\n\r\n", ErrContentLength},
		"CL hexadecimal":                     {post + "Content-Length: 0x10\r\n\r\n", ErrContentLength},
		"CL empty":                           {post + "Content-Length:\r\n\r\n", ErrContentLength},
		"CL overflows":                       {post + "Content-Length: 18446744073709551617\r\n\r\n", ErrContentLength},
		"CL with inner space":                {post + "Content-Length: 1 0\r\n\r\n", ErrContentLength},
		"no Host":                            {"GET / HTTP/1.1\r\n\r\n", ErrMissingHost},
		"two Hosts":                          {get + "Host: a\r\n\r\n", ErrDuplicateHost},
		"Host with a slash":                  {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", ErrHost},
		"Host like a script":                 {"GET / HTTP/1.1\r\nHost: <script>\r\n\r\n", ErrHost},
		"Host with userinfo":                 {"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", ErrHost},
		"Host with a bad port":               {"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", ErrHost},
		"Host with a space":                  {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", ErrHost},
		"target names another host":          {"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", ErrHostMismatch},
		"target with userinfo":               {"GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", ErrHost},
		"target without slash":               {"GET x HTTP/1.1\r\nHost: a\r\n\r\n", ErrTarget},
		"target of another scheme":           {"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", ErrTarget},
		"target with a broken percent":       {"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", ErrTarget},
		"target with a tab":                  {"GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n", ErrTarget},
		"target with a space":                {"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", ErrTarget},
		"star for GET":                       {"GET * HTTP/1.1\r\nHost: a\r\n\r\n", ErrTarget},
		"CONNECT":                            {"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", ErrConnect},
		"no version":                         {"GET /\r\nHost: a\r\n\r\n", ErrRequestLine},
		"HTTP/2":                             {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ErrVersion},
		"HTTP/1.2":                           {"GET / HTTP/1.2\r\nHost: a\r\n\r\n", ErrVersion},
		"lower-case version":                 {"GET / http/1.1\r\nHost: a\r\n\r\n", ErrVersion},
		"two spaces in the request line":     {"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", ErrTarget},
		"method with a bracket":              {"G[T / HTTP/1.1\r\nHost: a\r\n\r\n", ErrMethod},
		"empty line first":                   {"\r\n" + get + "\r\n", ErrEmptyLine},
		"field without colon":                {get + "X\r\n\r\n", ErrFieldName},
		"field without name":                 {get + ": x\r\n\r\n", ErrFieldName},
		"other expectation":                  {post + "Expect: 200-ok\r\n\r\n", ErrExpect},
		"too many fields":                    {get + strings.Repeat("X: y\r\n", 20) + "\r\n", ErrTooManyFields},
		"too large":                          {get + "X: " + strings.Repeat("y", 4096) + "\r\n\r\n", ErrHeadTooLarge},
		"too large without an end":           {get + "X: " + strings.Repeat("y", 4096), ErrHeadTooLarge},
		"too many names in Connection":       {get + "Connection: " + strings.Repeat("a,", 40) + "\r\n\r\n", ErrTooManyTokens},
		"Host in absolute form, none in 1.1": {"GET http://a/ HTTP/1.1\r\n\r\n", ErrMissingHost},
	} {
		if _, _, err := parse(tc.text); err != tc.want {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
}

func TestRequestsThatAreUnderstood(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ text, want string }{
		"plain":              {"GET /a%2Fb?q=%zz#f HTTP/1.1\r\nHost: A.com:80\r\n\r\nrest", "host=A.com:80 path=/a%2Fb body=0 length=-1 keep=true drop=[]"},
		"close":              {"GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, Close\r\nFoo: 1\r\n\r\n", "host=a path=/ body=0 length=-1 keep=false drop=[Connection Foo]"},
		"old":                {"GET / HTTP/1.0\r\n\r\n", "host= path=/ body=0 length=-1 keep=false drop=[]"},
		"old, kept":          {"GET / HTTP/1.0\r\nconnection: Keep-Alive\r\nKeep-Alive: 5\r\n\r\n", "host= path=/ body=0 length=-1 keep=true drop=[connection Keep-Alive]"},
		"absolute":           {"GET HTTP://a.com:80/x HTTP/1.1\r\nHost: A.com:80\r\n\r\n", "host=A.com:80 path=/x body=0 length=-1 keep=true drop=[]"},
		"absolute, no path":  {"GET http://a?x HTTP/1.1\r\nHost: a\r\n\r\n", "host=a path= body=0 length=-1 keep=true drop=[]"},
		"star":               {"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "host=a path= body=0 length=-1 keep=true drop=[]"},
		"sized":              {"PUT / HTTP/1.1\r\nHost:a\r\nContent-Length: \t007 \r\n\r\n", "host=a path=/ body=1 length=7 keep=true drop=[]"},
		"chunked":            {"PUT / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\nTrailer: X\r\n\r\n", "host=a path=/ body=2 length=-1 keep=true drop=[transfer-encoding]"},
		"trailer, no chunks": {"PUT / HTTP/1.1\r\nHost: a\r\nTrailer: X\r\n\r\n", "host=a path=/ body=0 length=-1 keep=true drop=[Trailer]"},
		"framing and origin cannot be struck out": {"PUT / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1\r\nContent-Length: 1\r\nConnection: host,content-length, x-forwarded-for\r\n\r\n",
			"host=a path=/ body=1 length=1 keep=true drop=[Connection]"},
		"te":       {"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTe: gzip\r\nProxy-Authorization: x\r\n\r\n", "host=a path=/ body=0 length=-1 keep=true drop=[Te Proxy-Authorization]"},
		"specials": {"GET /\"£^{} HTTP/1.1\r\nHost: a\r\n\r\n", "host=a path=/\"£^{} body=0 length=-1 keep=true drop=[]"},
		"v6":       {"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "host=[::1]:80 path=/ body=0 length=-1 keep=true drop=[]"},
		"no host":  {"GET / HTTP/1.1\r\nHost:\r\n\r\n", "host= path=/ body=0 length=-1 keep=true drop=[]"},
	} {
		r, _, err := parse(tc.text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		drop := []string{}
		for _, f := range r.Fields {
			if f.Drop {
				drop = append(drop, string(f.Name))
			}
		}
		got := fmt.Sprintf("host=%s path=%s body=%d length=%d keep=%v drop=%v", r.Host, r.Path, r.Body, r.Length, r.KeepAlive, drop)
		if got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, tc.want)
		}
	}
}

func TestUpgrades(t *testing.T) {
	t.Parallel()
	for fields, want := range map[string][2]bool{
		"Connection: Upgrade\r\nUpgrade: WebSocket\r\n":                                      {true, true},
		"Connection: keep-alive\r\nConnection: x, upgrade\r\nUpgrade: websocket\r\n":         {true, true},
		"Connection: Upgrade\r\nUpgrade: tls/1.2\r\n":                                        {true, false},
		"Connection: Upgrade\r\nUpgrade: h2c\r\n":                                            {false, false},
		"Connection: Upgrade\r\nUpgrade: websocket, H2C\r\n":                                 {false, false},
		"Upgrade: websocket\r\n":                                                             {false, false},
		"Connection: Upgrade\r\n":                                                            {false, false},
		"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n":                 {false, false},
		"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n":                      {false, false},
		"Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n":        {false, false},
		"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAAB\r\n": {false, false},
	} {
		r, _, err := parse("GET / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n")
		if err != nil {
			t.Errorf("%q: %v", fields, err)
		} else if got := [2]bool{r.Upgrade, r.WebSocket()}; got != want {
			t.Errorf("%q: upgrade, websocket: got %v, want %v", fields, got, want)
		}
	}
}

func TestAHeadMayArriveInAnyPieces(t *testing.T) {
	t.Parallel()
	const text = "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\nGET"
	var s Scanner
	for n := range len(text) {
		end, err := s.End([]byte(text[:n+1]), testLimits)
		if err != nil {
			t.Fatal(err)
		}
		if want := len(text) - 3; end != 0 || n+1 == want {
			if end != want || n+1 != want {
				t.Fatalf("after %d bytes: end %d, want %d", n+1, end, want)
			}
			return
		}
	}
}

func TestParsingAllocatesNothing(t *testing.T) {
	head := []byte("GET /path?q HTTP/1.1\r\nHost: a.example.com\r\nUser-Agent: x\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n")
	var r Request
	if n := testing.AllocsPerRun(100, func() {
		var s Scanner
		end, _ := s.End(head, testLimits)
		if err := r.Parse(head[:end], testLimits); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestHostname(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"a": "a", "a:1": "a", "a:": "a", "[::1]": "[::1]", "[::1]:8": "[::1]", "": ""} {
		if got := string(Hostname([]byte(in))); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
