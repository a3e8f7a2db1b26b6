package fetch

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// metaVersion is the version of what is on disk. Others are dropped.
const metaVersion = 1

// maxMeta is the longest meta.json, in bytes.
const maxMeta = 8 << 10

// meta says what an item is.
type meta struct {
	Version      int
	ETag         string `json:",omitempty"`
	LastModified string `json:",omitempty"`
	Checksum     string `json:",omitempty"` // algorithm:sum that the download was found to have
	Tree         bool   `json:",omitempty"` // a directory, else an archive
	Boot         string `json:",omitempty"` // of a tree: the run of the machine that it is good for
	Size         int64  // on disk, in bytes
	Downloaded   int64  // over the network, in bytes
	Fetched      time.Time
}

// bootID names this run of the machine.
func bootID() (string, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(raw)), err
}

// write writes meta.json, flushed to the disk.
func (i *item) write() error {
	i.Version = metaVersion
	if i.Tree {
		boot, err := bootID()
		if err != nil {
			return err
		}
		i.Boot = boot
	}
	raw, err := json.Marshal(i.meta)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(filepath.Join(i.dir, metaName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(raw)
	return errors.Join(err, file.Sync(), file.Close())
}

// read reads meta.json, checks that the item is whole, and tells when it was used last.
func (i *item) read() (used time.Time, err error) {
	name := filepath.Join(i.dir, metaName)
	info, err := os.Stat(name)
	if err != nil {
		return used, err
	}
	if info.Size() > maxMeta {
		return used, fmt.Errorf("%s has %d bytes: want at most %d", metaName, info.Size(), maxMeta)
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		return used, err
	}
	if err := json.Unmarshal(raw, &i.meta); err != nil {
		return used, fmt.Errorf("%s: %w", metaName, err)
	}
	if i.Version != metaVersion || i.ETag == "" && i.LastModified == "" || i.Size < 0 {
		return used, fmt.Errorf("%s is not of version %d, or not complete", metaName, metaVersion)
	}
	return info.ModTime(), i.whole()
}

// whole tells whether the content is as the meta data say.
func (i *item) whole() error {
	if !i.Tree {
		info, err := os.Lstat(i.archive())
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() || info.Size() != i.Size {
			return fmt.Errorf("%s has %d bytes: want %d", contentName, info.Size(), i.Size)
		}
		return nil
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	if i.Boot != boot {
		return errors.New("the machine was started anew since the tree was written")
	}
	info, err := os.Lstat(i.tree())
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return errors.New("the tree is no directory")
	}
	return nil
}

// touch notes on disk that the item was used; a note that is lost costs an order of eviction.
func (i *item) touch() {
	now := time.Now()
	_ = os.Chtimes(filepath.Join(i.dir, metaName), now, now)
}
