package archive

import (
	"archive/zip"
	"errors"
	"io"
	"io/fs"
	"os"
)

// maxZipDirectory is the most bytes of the directory of a zip file, which is kept in memory.
const maxZipDirectory = 32 << 20

// readZip reads a zip file, whose directory is at its end.
func readZip(src io.Reader, sink *counter, tmp string, room Room) error {
	file, err := os.CreateTemp(tmp, "zip-")
	if err != nil {
		return err
	}
	defer file.Close()
	if err := os.Remove(file.Name()); err != nil {
		return err
	}
	size, err := io.Copy(&roomy{dst: file, room: room}, io.LimitReader(src, MaxBytes+1))
	if err != nil {
		return err
	}
	if size > MaxBytes {
		return bad("it has more than %d bytes", int64(MaxBytes))
	}
	directory := &budget{src: file, left: maxZipDirectory}
	all, err := zip.NewReader(directory, size)
	if err != nil {
		return bad("zip: %w", err)
	}
	directory.left = -1
	for _, f := range all.File {
		if err := readZipped(f, sink); err != nil {
			return err
		}
	}
	return nil
}

func readZipped(f *zip.File, sink *counter) error {
	if f.UncompressedSize64 > MaxBytes {
		return bad("it has more than %d bytes", int64(MaxBytes))
	}
	e := Entry{Name: f.Name, Mode: f.Mode() & (fs.ModeType | fs.ModePerm), Size: int64(f.UncompressedSize64), Mtime: f.Modified}
	if e.Mode.IsDir() {
		return sink.take(e, nil)
	}
	content, err := f.Open()
	if err != nil {
		return bad("zip: %q: %w", f.Name, err)
	}
	defer content.Close()
	if e.Mode.Type() == fs.ModeSymlink {
		link, err := io.ReadAll(io.LimitReader(content, MaxName+1))
		if err != nil {
			return bad("zip: %q: %w", f.Name, err)
		}
		e.Link = string(link)
	}
	return sink.take(e, content)
}

// budget bounds how much is read; negative: no bound.
type budget struct {
	src  io.ReaderAt
	left int64
}

func (b *budget) ReadAt(p []byte, off int64) (int, error) {
	if b.left >= 0 {
		if b.left -= int64(len(p)); b.left < 0 {
			b.left = 0
			return 0, errors.New("its directory is too long")
		}
	}
	return b.src.ReadAt(p, off)
}

// roomy asks for room before it writes, and keeps the error of either.
type roomy struct {
	dst  io.Writer
	room Room
	err  error
}

func (r *roomy) Write(p []byte) (n int, err error) {
	if r.err = r.room(int64(len(p))); r.err != nil {
		return 0, r.err
	}
	n, r.err = r.dst.Write(p)
	return n, r.err
}
