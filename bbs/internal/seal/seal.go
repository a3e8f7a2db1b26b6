// Package seal encrypts values before they are stored and opens them again.
//
// A sealed value is
//
//	1 byte     1, the format
//	1 byte     the length of the label
//	1 to 127   the label of the key
//	12 bytes   a random nonce
//	the rest   AES-256-GCM: as many bytes as the plain value and a tag of 16
//
// The key is the SHA-256 of a passphrase. Any key that a Sealer knows opens; only the active one
// seals. So a key is replaced by adding another one, making that the active one, sealing everything
// again, and dropping the old one.
//
// Each value is bound to a context, which says where it belongs, as associated data: a value that
// was changed, or moved to another place, does not open. A value that was replaced by an older one
// of the same place does.
//
// This is the standard library and a header. Tink was considered: its keysets would add a file
// format, a serialized keyset in place of a passphrase that operators know, and a dependency, and
// what it seals starts with a number of 4 bytes that nobody can read in a query. A label can be
// asked for in SQL, which is how it is known whether a key is still needed.
//
// A random nonce of 12 bytes should not be drawn more than 2^32 times for one key (NIST SP 800-38D).
// It does not prevent anything from working; it is a reason to rotate.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"unsafe"
)

// MaxLabel is the length of the longest label, in bytes.
const MaxLabel = 127

// Format is the first byte of a sealed value.
const Format = 1

// headerLen is the part of the header that has the same length for all labels.
const headerLen = 2

// Errors of Open, to be asked for with errors.Is.
var (
	// ErrNotSealed says that the value does not have the form of a sealed one.
	ErrNotSealed = errors.New("not a sealed value")
	// ErrUnknownLabel says that the value was sealed with a key that is not known here.
	ErrUnknownLabel = errors.New("sealed with a key that is not known")
	// ErrTampered says that the key does not fit, or that the value was changed or belongs elsewhere.
	ErrTampered = errors.New("the key does not fit, or the value was changed or moved")
)

// Sealer seals and opens values. It is safe for concurrent use.
type Sealer struct {
	active key
	keys   map[string]key // by label
}

type key struct {
	label  string
	header []byte
	aead   cipher.AEAD // that draws nonces itself
}

// New returns a Sealer that seals with the key labelled active and opens what any of the keys, given
// as label and passphrase, has sealed. Its error names every problem by its field.
func New(active string, keys map[string]string) (*Sealer, error) {
	s := &Sealer{keys: map[string]key{}}
	var errs []error
	if len(keys) == 0 {
		errs = append(errs, errors.New("keys is empty: at least one label with its passphrase is needed"))
	}
	for _, label := range slices.Sorted(maps.Keys(keys)) {
		k, err := newKey(label, keys[label])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.keys[label] = k
	}
	if _, known := keys[active]; !known {
		errs = append(errs, fmt.Errorf("active_key_label %q is not one of keys: %q", active, slices.Sorted(maps.Keys(keys))))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	s.active = s.keys[active]
	return s, nil
}

func newKey(label, passphrase string) (key, error) {
	if len(label) < 1 || len(label) > MaxLabel {
		return key{}, fmt.Errorf("keys: label %q has %d bytes: want 1 to %d", label, len(label), MaxLabel)
	}
	if passphrase == "" {
		return key{}, fmt.Errorf("keys: the passphrase of label %q is empty", label)
	}
	sum := sha256.Sum256([]byte(passphrase))
	block, err := aes.NewCipher(sum[:])
	if err != nil {
		return key{}, fmt.Errorf("keys: label %q: %w", label, err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return key{}, fmt.Errorf("keys: label %q: %w", label, err)
	}
	return key{label: label, header: Header(label), aead: aead}, nil
}

// Header returns what every value starts with that was sealed with the key of a label, and no other.
func Header(label string) []byte {
	return append([]byte{Format, byte(len(label))}, label...)
}

// Label returns the label of the key that a value was sealed with.
func Label(sealed []byte) (string, error) {
	if len(sealed) < headerLen || sealed[0] != Format {
		return "", ErrNotSealed
	}
	n := int(sealed[1])
	if n < 1 || n > MaxLabel || len(sealed) < headerLen+n {
		return "", ErrNotSealed
	}
	return string(sealed[headerLen : headerLen+n]), nil
}

// Active returns the label of the key that seals.
func (s *Sealer) Active() string { return s.active.label }

// Labels returns the labels of all keys, sorted.
func (s *Sealer) Labels() []string { return slices.Sorted(maps.Keys(s.keys)) }

// Knows tells whether there is a key of a label.
func (s *Sealer) Knows(label string) bool {
	_, known := s.keys[label]
	return known
}

// Seal encrypts a value that belongs to a context. It allocates nothing but the result.
func (s *Sealer) Seal(plain []byte, context string) []byte {
	k := s.active
	out := make([]byte, len(k.header), len(k.header)+len(plain)+k.aead.Overhead())
	copy(out, k.header)
	return k.aead.Seal(out, nil, plain, bytesOf(context))
}

// Open returns the value that was sealed for a context. It allocates nothing but the result.
func (s *Sealer) Open(sealed []byte, context string) ([]byte, error) {
	if len(sealed) < headerLen || sealed[0] != Format || len(sealed) < headerLen+int(sealed[1]) {
		return nil, ErrNotSealed
	}
	end := headerLen + int(sealed[1])
	k, known := s.keys[string(sealed[headerLen:end])]
	if !known {
		label, err := Label(sealed)
		if err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: its label is %q", ErrUnknownLabel, label)
	}
	body := sealed[end:]
	plain, err := k.aead.Open(make([]byte, 0, max(0, len(body)-k.aead.Overhead())), nil, body, bytesOf(context))
	if err != nil {
		return nil, fmt.Errorf("label %q: %w", k.label, ErrTampered)
	}
	return plain, nil
}

// bytesOf returns the bytes of a text without copying them. They must not be changed, and are not:
// ciphers only read associated data.
func bytesOf(text string) []byte { return unsafe.Slice(unsafe.StringData(text), len(text)) }
