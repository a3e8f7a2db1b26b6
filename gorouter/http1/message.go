package http1

import "bytes"

// Field is one header field. Its slices are parts of the head it was parsed from.
type Field struct {
	Name, Value []byte
	// Start and End are where its line lies in the head, CR LF included.
	Start, End int
	Key        Key
	// Drop says that the field concerns this connection only.
	Drop bool
}

// Body says how the end of a body is found.
type Body uint8

// The kinds of bodies.
const (
	NoBody Body = iota
	Sized
	Chunked
	UntilClose
)

// Message is what requests and responses have in common.
type Message struct {
	Fields []Field
	// Minor is the minor version: 0 or 1.
	Minor uint8
	Body  Body
	// Length is the value of Content-Length, or -1 without one.
	Length int64
	// KeepAlive says that the sender will go on using the connection.
	KeepAlive bool
	// Upgrade says that the message offers, or agrees to, another protocol.
	Upgrade bool
	// Protocol is the value of the Upgrade field.
	Protocol []byte

	upgradeToken, closeToken, keepToken bool
	hosts, encodings, upgrades          int
}

// maxTokens bounds the names in Connection: each is looked for among all fields.
const maxTokens = 32

func (m *Message) reset() {
	*m = Message{Fields: m.Fields[:0], Length: -1}
}

// parseFields parses the lines from start to the end of a complete head.
func (m *Message) parseFields(head []byte, start int, limits Limits) error {
	for {
		i := bytes.IndexByte(head[start:], '\n')
		if i < 1 || head[start+i-1] != '\r' {
			return ErrBareLF
		}
		if i == 1 {
			if start+2 != len(head) {
				return ErrEmptyLine
			}
			break
		}
		if len(m.Fields) == limits.Fields {
			return ErrTooManyFields
		}
		f := Field{Start: start, End: start + i + 1}
		if err := f.parse(head[start : start+i-1]); err != nil {
			return err
		}
		m.Fields = append(m.Fields, f)
		if f.Key != Other {
			if err := m.note(&m.Fields[len(m.Fields)-1]); err != nil {
				return err
			}
		}
		start = f.End
	}
	return m.connection()
}

func (f *Field) parse(line []byte) error {
	if line[0] == ' ' || line[0] == '\t' {
		return ErrFolded
	}
	n := 0
	for n < len(line) && class[line[n]]&token != 0 {
		n++
	}
	if n == 0 || n == len(line) || line[n] != ':' {
		return ErrFieldName
	}
	f.Name, f.Value = line[:n], trim(line[n+1:])
	if !all(f.Value, value) {
		return ErrFieldValue
	}
	f.Key = KeyOf(f.Name)
	return nil
}

// note takes down what one field says about the message.
func (m *Message) note(f *Field) error {
	f.Drop = perConnection(f.Key)
	switch f.Key {
	case Host:
		if m.hosts++; m.hosts > 1 {
			return ErrDuplicateHost
		}
	case ContentLength:
		n, ok := decimal(f.Value)
		if !ok {
			return ErrContentLength
		}
		if m.Length >= 0 {
			if m.Length != n {
				return ErrDuplicateLength
			}
			f.Drop = true
		}
		m.Length = n
	case TransferEncoding:
		if m.encodings++; m.encodings > 1 || !fold(f.Value, "chunked") {
			return ErrTransferEncoding
		}
	case TE:
		f.Drop = !fold(f.Value, "trailers")
	case Upgrade:
		m.upgrades++
		m.Protocol = f.Value
	}
	return nil
}

// maxLengthDigits keeps a length far from overflowing 63 bits.
const maxLengthDigits = 18

func decimal(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > maxLengthDigits {
		return 0, false
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// connection reads the Connection fields and settles framing and keep-alive.
func (m *Message) connection() error {
	tokens := 0
	for i := range m.Fields {
		if m.Fields[i].Key != Connection {
			continue
		}
		for rest := m.Fields[i].Value; len(rest) > 0; {
			var t []byte
			t, rest = cut(rest)
			if len(t) == 0 {
				continue
			}
			if tokens++; tokens > maxTokens {
				return ErrTooManyTokens
			}
			m.connectionToken(t)
		}
	}
	if m.encodings > 0 {
		switch {
		case m.Length >= 0:
			return ErrTwoLengths
		case m.Minor == 0:
			return ErrTransferEncoding
		}
		m.Body = Chunked
	}
	m.KeepAlive = !m.closeToken && (m.Minor == 1 || m.keepToken)
	m.Upgrade = m.upgradeToken && m.upgrades == 1 && m.Minor == 1 && len(m.Protocol) > 0
	return nil
}

func cut(list []byte) (first, rest []byte) {
	if i := bytes.IndexByte(list, ','); i >= 0 {
		return trim(list[:i]), list[i+1:]
	}
	return trim(list), nil
}

func (m *Message) connectionToken(t []byte) {
	switch {
	case fold(t, "close"):
		m.closeToken = true
	case fold(t, "keep-alive"):
		m.keepToken = true
	case fold(t, "upgrade"):
		m.upgradeToken = true
	default:
		for i := range m.Fields {
			if f := &m.Fields[i]; !protected(f.Key) && equalFold(f.Name, t) {
				f.Drop = true
			}
		}
	}
}
