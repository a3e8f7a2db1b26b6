package fetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"muster/cells/fetch/archive"
)

// Config says where files are kept and how they are moved.
type Config struct {
	Dir          string   `json:"dir" help:"directory of downloads; belongs to this cell alone, on the file system of the containers' inboxes"`
	MaxBytes     int64    `json:"max_bytes" help:"bytes of downloads on disk, those in use and under way included, at least 1048576; larger: fewer downloads, less disk for containers; smaller than what is in use at once: downloads fail"`
	MaxDownloads int      `json:"max_downloads" help:"downloads at once, 1 to 127; more: many starts share the network and the disk, fewer: they wait for each other"`
	CAFiles      []string `json:"ca_files" help:"PEM files with CAs that servers are trusted by, besides those of the system"`
	CertFile     string   `json:"cert_file" help:"PEM file with the certificate shown to servers that ask for one; read again for each connection; empty: none"`
	KeyFile      string   `json:"key_file" help:"PEM file with the private key of cert_file"`

	// Log gets what nobody waits for; nil: nobody.
	Log *slog.Logger `json:"-"`
	// Dial, when set, opens the connections.
	Dial func(ctx context.Context, network, address string) (net.Conn, error) `json:"-"`
}

// Defaults returns the limits of Diego; Dir is the caller's.
func Defaults() Config { return Config{MaxBytes: 10_000_000_000, MaxDownloads: 5} }

// Limits of what is moved.
const (
	// MaxUploads is the most uploads at once.
	MaxUploads = 5
	// MaxDownload is the most bytes of one download, before it is unpacked.
	MaxDownload = archive.MaxBytes
	// DownloadAttempts and UploadAttempts are the most attempts for one file.
	DownloadAttempts = 4
	UploadAttempts   = 3
	// The pause after an attempt grows from firstPause to lastPause, with up to maxJitter more.
	firstPause = 500 * time.Millisecond
	lastPause  = 5 * time.Second
	maxJitter  = 200 * time.Millisecond
	// AttemptTimeout is the longest time of one attempt.
	AttemptTimeout = 10 * time.Minute
	// ConnectTimeout is the longest time to connect, and again for the TLS handshake.
	ConnectTimeout = 10 * time.Second
	// StallTimeout is how long a connection may be silent in both directions.
	StallTimeout = 10 * time.Second

	minBytes     = 1 << 20
	mostParallel = 127
	maxRedirects = 10
	// maxHeader is the longest header of an answer, and maxValidator the longest ETag, in bytes.
	maxHeader    = 1 << 20
	maxValidator = 1024
	// maxKey is the longest cache key, in bytes.
	maxKey = 4096
)

// Validate returns all that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	bad := func(field string, value any, want string) {
		errs = append(errs, fmt.Errorf("%s is %q: want %s", field, fmt.Sprint(value), want))
	}
	if !filepath.IsAbs(c.Dir) {
		bad("dir", c.Dir, "an absolute path")
	}
	if c.MaxBytes < minBytes {
		bad("max_bytes", c.MaxBytes, fmt.Sprintf("at least %d", minBytes))
	}
	if c.MaxDownloads < 1 || c.MaxDownloads > mostParallel {
		bad("max_downloads", c.MaxDownloads, fmt.Sprintf("1 to %d", mostParallel))
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		bad("cert_file", c.CertFile, fmt.Sprintf("it together with key_file, which is %q, or neither", c.KeyFile))
	}
	if _, err := c.tls(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
