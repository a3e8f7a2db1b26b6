package fetch

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/url"
	"strings"
)

// Request says what to move.
type Request struct {
	Name     string // what people call it; may be empty
	URL      string // http or https; may hold credentials
	CacheKey string // at most 4,096 bytes; empty: not cached
	// ChecksumAlgorithm is md5, sha1, sha256 or sha512 in any case, and ChecksumValue the sum of the download
	// in hex, in quotes or not; both or neither. Uploads have none.
	ChecksumAlgorithm, ChecksumValue string
}

// location returns where a request goes to. The error does not repeat the URL.
func (r Request) location() (*url.URL, error) {
	u, err := url.Parse(r.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("the URL is none of http or https with a host")
	}
	if len(r.CacheKey) > maxKey {
		return nil, fmt.Errorf("cache_key has %d bytes: want at most %d", len(r.CacheKey), maxKey)
	}
	return u, nil
}

// checksum is what a download must add up to; the zero value is met by all.
type checksum struct{ algorithm, want string }

var algorithms = map[string]struct {
	make func() hash.Hash
	size int // bytes
}{
	"md5":    {md5.New, md5.Size},
	"sha1":   {sha1.New, sha1.Size},
	"sha256": {sha256.New, sha256.Size},
	"sha512": {sha512.New, sha512.Size},
}

// checksum checks and returns the checksum of a request.
func (r Request) checksum() (checksum, error) {
	sum := checksum{strings.ToLower(r.ChecksumAlgorithm), strings.ToLower(strings.Trim(r.ChecksumValue, `"'`))}
	a, known := algorithms[sum.algorithm]
	switch {
	case sum == checksum{}:
		return sum, nil
	case sum.algorithm == "":
		return sum, errors.New("checksum_algorithm is missing: want md5, sha1, sha256 or sha512")
	case !known:
		return sum, fmt.Errorf("checksum_algorithm is %.32q: want md5, sha1, sha256 or sha512", sum.algorithm)
	case sum.want == "":
		return sum, errors.New("checksum_value is missing")
	}
	if raw, err := hex.DecodeString(sum.want); err != nil || len(raw) != a.size {
		return sum, fmt.Errorf("checksum_value is %.160q: want %d hexadecimal digits for %s", sum.want, 2*a.size, sum.algorithm)
	}
	return sum, nil
}

// hash returns what computes the sum; nil: nothing does.
func (c checksum) hash() hash.Hash {
	if c.algorithm == "" {
		return nil
	}
	return algorithms[c.algorithm].make()
}

// check compares.
func (c checksum) check(h hash.Hash) error {
	if h == nil {
		return nil
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != c.want {
		return fmt.Errorf("Checksum failed: 'checksum mismatch', expected '%s', got '%s'", c.want, got)
	}
	return nil
}

// String returns algorithm:sum, or nothing.
func (c checksum) String() string {
	if c.algorithm == "" {
		return ""
	}
	return c.algorithm + ":" + c.want
}
