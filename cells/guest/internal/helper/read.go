package helper

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// read opens a file as the user and copies or describes it.
func read(verb Verb, o Order, who account) error {
	if err := who.become(); err != nil {
		return err
	}
	out := os.NewFile(dataFile, "answer")
	name := who.at(o.Path)
	file, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return &os.PathError{Op: "read", Path: name, Err: errors.New("it is not a regular file")}
	}
	if verb == Read {
		_, err = io.Copy(out, io.LimitReader(file, o.Limit))
		return err
	}
	whole, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(Description{Size: info.Size(), Path: whole})
}
