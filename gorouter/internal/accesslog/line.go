package accesslog

import (
	"strconv"
	"time"
)

// Record is what a line says about a request. Empty slices and negative times are written as dashes.
type Record struct {
	Host, Method, URI, Referer, UserAgent, ForwardedFor, ForwardedProto, RequestID []byte

	Proto, ClientAddr, BackendAddr, App, Index, InstanceID, RouterError string

	Received time.Time
	Status   int
	BytesIn  int64
	BytesOut int64
	// Took is the whole time, Own the part that was spent in the router itself.
	Took, Own time.Duration
}

// Append appends the line with its newline.
func (r *Record) Append(b []byte) []byte {
	if len(r.Host) == 0 {
		b = append(b, '-')
	}
	b = appendEscaped(b, r.Host)
	b = append(b, " - ["...)
	b = appendTime(b, r.Received)
	b = append(b, "] \""...)
	b = appendEscaped(b, r.Method)
	b = append(b, ' ')
	b = appendEscaped(b, r.URI)
	b = append(b, ' ')
	b = append(b, r.Proto...)
	b = append(b, "\" "...)
	if r.Status == 0 {
		b = append(b, `"-"`...)
	} else {
		b = strconv.AppendInt(b, int64(r.Status), 10)
	}
	b = append(b, ' ')
	b = strconv.AppendInt(b, r.BytesIn, 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, r.BytesOut, 10)
	b = appendQuoted(b, " ", r.Referer)
	b = appendQuoted(b, " ", r.UserAgent)
	b = appendQuoted(b, " ", r.ClientAddr)
	b = appendQuoted(b, " ", r.BackendAddr)
	b = appendQuoted(b, " x_forwarded_for:", r.ForwardedFor)
	b = appendQuoted(b, " x_forwarded_proto:", r.ForwardedProto)
	b = appendQuoted(b, " vcap_request_id:", r.RequestID)
	b = appendSeconds(b, " response_time:", r.Took)
	b = appendSeconds(b, " gorouter_time:", r.Own)
	b = appendQuoted(b, " app_id:", r.App)
	b = appendQuoted(b, " app_index:", r.Index)
	b = appendQuoted(b, " instance_id:", r.InstanceID)
	b = appendQuoted(b, " x_cf_routererror:", r.RouterError)
	return append(b, '\n')
}

func appendQuoted[S ~string | ~[]byte](b []byte, label string, s S) []byte {
	b = append(b, label...)
	b = append(b, '"')
	if len(s) == 0 {
		b = append(b, '-')
	}
	b = appendEscaped(b, s)
	return append(b, '"')
}

// appendEscaped keeps a value from ending before its end, whoever reads the line: quotes and backslashes get
// a backslash, control characters, which a request that was refused may hold anywhere, become \xNN.
func appendEscaped[S ~string | ~[]byte](b []byte, s S) []byte {
	const hex = "0123456789abcdef"
	from := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, s[from:i]...)
			b = append(b, '\\')
			from = i
		case c < 0x20 || c == 0x7f:
			b = append(b, s[from:i]...)
			b = append(b, '\\', 'x', hex[c>>4], hex[c&15])
			from = i + 1
		}
	}
	return append(b, s[from:]...)
}

func appendSeconds(b []byte, label string, d time.Duration) []byte {
	b = append(b, label...)
	if d < 0 {
		return append(b, `"-"`...)
	}
	micros := int64((d + 500) / 1000)
	b = strconv.AppendInt(b, micros/1e6, 10)
	b = append(b, '.')
	return appendPadded(b, micros%1e6, 6)
}

func appendTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	b = append(appendPadded(b, int64(year), 4), '-')
	b = append(appendPadded(b, int64(month), 2), '-')
	b = append(appendPadded(b, int64(day), 2), 'T')
	b = append(appendPadded(b, int64(hour), 2), ':')
	b = append(appendPadded(b, int64(minute), 2), ':')
	b = append(appendPadded(b, int64(second), 2), '.')
	return append(appendPadded(b, int64(t.Nanosecond()), 9), 'Z')
}

func appendPadded(b []byte, n int64, width int) []byte {
	b = append(b, "000000000"[:width]...)
	for i := len(b) - 1; width > 0; i, width = i-1, width-1 {
		b[i] = byte('0' + n%10)
		n /= 10
	}
	return b
}
