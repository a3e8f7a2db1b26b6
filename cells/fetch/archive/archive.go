// Package archive reads archives that strangers made (tar, tar.gz and zip, told apart by content) and
// writes them as a plain tar file (Tar) or as a directory tree (Tree). Nothing is written outside of the
// tree, whatever the archive says.
//
// An archive may hold regular files, directories, symbolic and hard links; any other entry, a name with
// .. in it, one that is too long, and a hard link out of the archive are errors. A leading / is dropped,
// as tar does. Symbolic links may point anywhere: they mean something only where the archive ends up.
// Owners, extended attributes and the bits setuid, setgid and sticky are not kept.
package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
)

// Limits of one archive.
const (
	// MaxBytes is the most bytes that an archive may take on disk when it was unpacked.
	MaxBytes = 8 << 30
	// MaxEntries is the most files, directories and links in it, and in a tree also the most directories that
	// it leaves out.
	MaxEntries = 250_000
	// MaxName is the longest name, and target of a link, in bytes: PATH_MAX of Linux without its end.
	MaxName = 4095
	// MaxDepth is the most directories that an entry may be in: each costs time again and again.
	MaxDepth = 256
	// maxElement is the longest part of a name between two slashes: NAME_MAX of Linux.
	maxElement = 255
	// maxMtime is the last second that all file systems and tar formats can hold.
	maxMtime = 1<<31 - 1
)

// Error is what is wrong with an archive, unlike a source that cannot be read or a disk that is full.
type Error struct{ Err error }

// Error returns the text of what is wrong.
func (e *Error) Error() string { return "bad archive: " + e.Err.Error() }

// Unwrap returns what is wrong.
func (e *Error) Unwrap() error { return e.Err }

func bad(format string, args ...any) error { return &Error{Err: fmt.Errorf(format, args...)} }

// Entry is one file, directory or link.
type Entry struct {
	Name  string      // relative, clean, without ..
	Mode  fs.FileMode // type (regular, directory or symbolic link) and permissions
	Size  int64       // of a regular file, in bytes
	Link  string      // target of a symbolic link; of a hard link the name of an entry before it
	Hard  bool        // a hard link
	Mtime time.Time
}

// Sink takes the entries of an archive in their order; Tar and Tree are sinks.
type Sink interface {
	// Entry takes one entry; content is that of a regular file.
	Entry(e Entry, content io.Reader) error
	// Close is called after the last.
	Close() error
}

// Room is asked before n more bytes are written to disk; an error ends the writing.
type Room func(n int64) error

// Read reads an archive to its end into a sink. What cannot be read in one pass, a zip file, is kept in an
// unnamed file below the directory tmp meanwhile. Errors of src are returned as they are, those of the archive
// as *Error. The end of ctx ends the reading with its cause.
func Read(ctx context.Context, src io.Reader, sink Sink, tmp string, room Room) error {
	source := &reader{src: src}
	err := read(bufio.NewReaderSize(source, 64<<10), &counter{ctx: ctx, sink: sink}, tmp, room)
	switch {
	case source.err != nil:
		return source.err
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return err
}

// reader keeps the error of a source, so that it is not taken for one of the archive.
type reader struct {
	src io.Reader
	err error
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.src.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

func read(src *bufio.Reader, sink *counter, tmp string, room Room) error {
	magic, err := src.Peek(4)
	switch {
	case len(magic) == 0 && err == io.EOF:
		return bad("it is empty")
	case err != nil && err != io.EOF:
		return err
	case bytes.HasPrefix(magic, []byte("PK\x03\x04")), bytes.HasPrefix(magic, []byte("PK\x05\x06")):
		err = readZip(src, sink, tmp, room)
	case bytes.HasPrefix(magic, []byte("\x1f\x8b")):
		err = readGzip(src, sink)
	default:
		err = readTar(src, sink)
	}
	if err != nil {
		return err
	}
	return sink.sink.Close()
}

func readGzip(src io.Reader, sink *counter) error {
	plain, err := gzip.NewReader(src)
	if err != nil {
		return bad("gzip: %w", err)
	}
	if err := readTar(plain, sink); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, src) // padding
	return err
}

// readTar reads src to its end, beyond that of the tar file in it, so that all of it is checked.
func readTar(src io.Reader, sink *counter) error {
	src = &capped{ctx: sink.ctx, src: src, left: MaxBytes}
	in := tar.NewReader(src)
	for {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if errors.Is(err, tar.ErrHeader) && sink.entries == 0 {
			return bad("it is neither tar, tar.gz nor zip")
		}
		if err != nil {
			return bad("tar: %w", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		e, err := fromHeader(h)
		if err != nil {
			return err
		}
		if err := sink.take(e, in); err != nil {
			return err
		}
	}
	// Behind a gzip file there may be padding, which is no header of another one.
	if _, err := io.Copy(io.Discard, src); err != nil && !errors.Is(err, gzip.ErrHeader) {
		return bad("behind the last entry: %w", err)
	}
	return nil
}

// fromHeader returns the entry of a header, whose type alone says what it is.
func fromHeader(h *tar.Header) (Entry, error) {
	e := Entry{Name: h.Name, Mode: fs.FileMode(h.Mode).Perm(), Size: h.Size, Link: h.Linkname, Mtime: h.ModTime}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
	case tar.TypeDir:
		e.Mode |= fs.ModeDir
	case tar.TypeSymlink:
		e.Mode |= fs.ModeSymlink
	case tar.TypeLink:
		e.Size, e.Hard = 0, true
	default:
		return e, bad("%.64q is neither a file, a directory nor a link (type %q)", h.Name, h.Typeflag)
	}
	return e, nil
}

// capped ends with an error when more than left bytes are read, or with ctx.
type capped struct {
	ctx  context.Context
	src  io.Reader
	left int64
}

func (c *capped) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.src.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return 0, fmt.Errorf("it has more than %d bytes", int64(MaxBytes))
	}
	return n, err
}

// counter checks entries and their number before a sink gets them.
type counter struct {
	ctx     context.Context
	sink    Sink
	entries int
	bytes   int64
}

func (c *counter) take(e Entry, content io.Reader) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	name, err := local(e.Name)
	if err != nil {
		return err
	}
	switch e.Mode.Type() {
	case 0, fs.ModeDir, fs.ModeSymlink:
	default:
		return bad("%.64q is neither a file, a directory nor a link (mode %v)", e.Name, e.Mode)
	}
	if name == "." && !e.Mode.IsDir() {
		return bad("%q is the name of the whole, and no directory", e.Name)
	}
	switch {
	case e.Hard:
		e.Link, err = local(e.Link)
	case e.Mode.Type() == fs.ModeSymlink:
		err = target(e.Link)
	}
	if err != nil {
		return fmt.Errorf("link %.64q: %w", e.Name, err)
	}
	e = e.usable()
	e.Name = name
	if c.entries++; c.entries > MaxEntries {
		return bad("it has more than %d entries", MaxEntries)
	}
	if e.Size < 0 || e.Size > MaxBytes-c.bytes {
		return bad("it has more than %d bytes", int64(MaxBytes))
	}
	c.bytes += e.Size
	return c.sink.Entry(e, &contents{ctx: c.ctx, src: content, name: e.Name})
}

// usable returns the entry with a size that means something, permissions that let its owner read it, and a
// time that every file system can hold.
func (e Entry) usable() Entry {
	switch {
	case e.Mode.IsDir():
		e.Size, e.Mode = 0, e.Mode|0o700
	case e.Mode.IsRegular():
		e.Mode |= 0o400
	default:
		e.Size = 0
	}
	if seconds := e.Mtime.Unix(); seconds < 0 || seconds > maxMtime {
		e.Mtime = time.Unix(0, 0)
	}
	return e
}

// contents tells errors of the archive in the middle of a file from those of the sink. It ends with ctx.
type contents struct {
	ctx  context.Context
	src  io.Reader
	name string
}

func (c *contents) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.src.Read(p)
	if err != nil && err != io.EOF {
		err = bad("read %q: %w", c.name, err)
	}
	return n, err
}

// local returns the clean form of a name that stays below where it is unpacked.
func local(name string) (string, error) {
	if err := target(name); err != nil {
		return "", err
	}
	for element := range strings.SplitSeq(name, "/") {
		if element == ".." {
			return "", bad("the name %q has .. in it", name)
		}
		if len(element) > maxElement {
			return "", bad("a part of the name %.64q… has %d bytes: at most %d are possible", element, len(element), maxElement)
		}
	}
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if depth := strings.Count(clean, "/"); depth > MaxDepth {
		return "", bad("the name %.64q… is in %d directories: at most %d are possible", clean, depth, MaxDepth)
	}
	return clean, nil
}

// target checks what a link points to.
func target(name string) error {
	switch {
	case name == "":
		return bad("a name is empty")
	case len(name) > MaxName:
		return bad("the name %.64q… has %d bytes: at most %d are possible", name, len(name), MaxName)
	case strings.ContainsRune(name, 0):
		return bad("the name %.64q has a NUL in it", name)
	}
	return nil
}
