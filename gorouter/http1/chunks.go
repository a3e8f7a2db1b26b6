package http1

// Limits of chunked bodies.
const (
	// MaxChunkDigits bounds a chunk's size to less than 2⁶⁰ bytes.
	MaxChunkDigits = 15
	// MaxChunkExtension bounds the bytes after a chunk's size, up to its CR.
	MaxChunkExtension = 4096
	// MaxTrailerBytes bounds all trailer lines together.
	MaxTrailerBytes = 16384
)

// Chunks follows a chunked body through bytes that arrive piece by piece; it keeps no bytes. The zero
// Chunks is before the first chunk.
type Chunks struct {
	state chunkState
	left  int64 // of the current chunk
	count int   // digits, extension bytes, or trailer bytes so far
	line  int   // bytes of the current trailer's name
	name  [17]byte
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkExtension
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	trailerStart
	trailerName
	trailerValue
	trailerLF
	lastLF
	chunksDone
)

// Done says that the body is complete.
func (c *Chunks) Done() bool { return c.state == chunksDone }

// Next looks at a prefix of b: n bytes of it, of which data is payload. It uses up b, or stops after
// a piece of payload, at the end of the body or at an error.
func (c *Chunks) Next(b []byte) (n int, data []byte, err error) {
	for n < len(b) && c.state != chunksDone {
		if c.state == chunkData {
			k := int(min(c.left, int64(len(b)-n)))
			data = b[n : n+k]
			if c.left -= int64(k); c.left == 0 {
				c.state = chunkDataCR
			}
			return n + k, data, nil
		}
		if err := c.step(b[n]); err != nil {
			return n, nil, err
		}
		n++
	}
	return n, nil, nil
}

// Feed looks at a prefix of b and returns how many of its bytes belong to the body, with size of the
// payload among them.
func (c *Chunks) Feed(b []byte) (n int, payload int64, err error) {
	for n < len(b) && c.state != chunksDone {
		k, data, err := c.Next(b[n:])
		n += k
		payload += int64(len(data))
		if err != nil {
			return n, payload, err
		}
	}
	return n, payload, nil
}

func (c *Chunks) step(b byte) error {
	switch c.state {
	case chunkSize:
		return c.size(b)
	case chunkExtension:
		if b == '\r' {
			c.state = chunkSizeLF
			return nil
		}
		if c.count++; c.count > MaxChunkExtension || class[b]&value == 0 {
			return ErrChunkLine
		}
	case chunkSizeLF:
		if b != '\n' {
			return ErrChunkSize
		}
		c.count = 0
		c.state = chunkData
		if c.left == 0 {
			c.state = trailerStart
		}
	case chunkDataCR:
		if b != '\r' {
			return ErrChunkEnd
		}
		c.state = chunkDataLF
	case chunkDataLF:
		if b != '\n' {
			return ErrChunkEnd
		}
		c.state = chunkSize
	default:
		return c.trailer(b)
	}
	return nil
}

func (c *Chunks) size(b byte) error {
	if d := hex(b); d >= 0 {
		if c.count++; c.count > MaxChunkDigits {
			return ErrChunkSize
		}
		c.left = c.left<<4 | int64(d)
		return nil
	}
	if c.count == 0 {
		return ErrChunkSize
	}
	c.count = 0
	switch b {
	case '\r':
		c.state = chunkSizeLF
	case ';':
		c.state = chunkExtension
	default:
		return ErrChunkSize
	}
	return nil
}

func (c *Chunks) trailer(b byte) error {
	if c.count++; c.count > MaxTrailerBytes {
		return ErrTrailer
	}
	switch c.state {
	case trailerStart:
		if b == '\r' {
			c.state = lastLF
			return nil
		}
		c.line, c.state = 0, trailerName
		return c.trailerName(b)
	case trailerName:
		return c.trailerName(b)
	case trailerValue:
		if b == '\r' {
			c.state = trailerLF
		} else if class[b]&value == 0 {
			return ErrTrailer
		}
	case trailerLF:
		if b != '\n' {
			return ErrTrailer
		}
		c.state = trailerStart
	case lastLF:
		if b != '\n' {
			return ErrTrailer
		}
		c.state = chunksDone
	}
	return nil
}

// trailerName refuses names that could be taken for framing when somebody merges trailers into the head.
func (c *Chunks) trailerName(b byte) error {
	if b != ':' {
		if class[b]&token == 0 {
			return ErrTrailer
		}
		if c.line < len(c.name) {
			c.name[c.line] = b
		}
		c.line++
		return nil
	}
	if c.line == 0 {
		return ErrTrailer
	}
	if c.line <= len(c.name) {
		if k := KeyOf(c.name[:c.line]); k != Other && k != Referer && k != UserAgent {
			return ErrTrailer
		}
	}
	c.state = trailerValue
	return nil
}
