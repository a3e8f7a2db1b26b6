package archive

import (
	"archive/tar"
	"io"
	"io/fs"
)

// Tar writes entries as a plain tar file that says nothing of owners.
type Tar struct {
	out *tar.Writer
	dst *roomy
}

// NewTar returns a sink that writes to dst.
func NewTar(dst io.Writer, room Room) *Tar {
	to := &roomy{dst: dst, room: room}
	return &Tar{out: tar.NewWriter(to), dst: to}
}

// Entry implements Sink.
func (t *Tar) Entry(e Entry, content io.Reader) error {
	h := &tar.Header{Name: e.Name, Mode: int64(e.Mode.Perm()), Size: e.Size, Linkname: e.Link, ModTime: e.Mtime}
	switch {
	case e.Hard:
		h.Typeflag = tar.TypeLink
	case e.Mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, e.Name+"/"
	case e.Mode.Type() == fs.ModeSymlink:
		h.Typeflag = tar.TypeSymlink
	default:
		h.Typeflag = tar.TypeReg
	}
	if err := t.out.WriteHeader(h); err != nil {
		if t.dst.err != nil {
			return t.dst.err
		}
		return bad("%.64q: %w", e.Name, err) // what no tar file can say
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	return copyExactly(t.out, content, e)
}

// Close implements Sink.
func (t *Tar) Close() error { return t.out.Close() }

// copyExactly copies the content of a file, which must be as long as its entry says; reading beyond it makes
// a zip file check its sum.
func copyExactly(dst io.Writer, content io.Reader, e Entry) error {
	n, err := io.Copy(dst, io.LimitReader(content, e.Size))
	if err != nil {
		return err
	}
	var more [1]byte
	if _, err = io.ReadFull(content, more[:]); err == nil || n != e.Size {
		return bad("%.64q has not the %d bytes that it should have", e.Name, e.Size)
	}
	if err != io.EOF {
		return err
	}
	return nil
}
