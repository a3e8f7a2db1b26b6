package stack

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"sigs.k8s.io/yaml"
)

// encryptionFile holds the keys that the BBS encrypts with, as its configuration has them. It stays for
// as long as the database does, and an operator may add keys to it.
const encryptionFile = "encryption.yaml"

// encryption are the keys of a stack, in plain text.
type encryption struct {
	ActiveKeyLabel string            `json:"active_key_label"`
	Keys           map[string]string `json:"keys"`
}

// encryption reads the keys; the first time it draws one.
func (s *Stack) encryption() (e encryption, err error) {
	name := s.path(encryptionFile)
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		var passphrase [32]byte
		rand.Read(passphrase[:]) // never fails
		e = encryption{"k1", map[string]string{"k1": hex.EncodeToString(passphrase[:])}}
		if text, err = yaml.Marshal(e); err != nil {
			return e, err
		}
		return e, writeFile(name, text, 0o600)
	}
	if err != nil {
		return e, fmt.Errorf("encryption keys: %w", err)
	}
	if err := yaml.UnmarshalStrict(text, &e); err != nil {
		return e, fmt.Errorf("encryption keys in %s: %w", name, err)
	}
	return e, nil
}

// withEncryption puts the keys of the stack into the configuration of the BBS.
func (s *Stack) withEncryption(config []byte) ([]byte, error) {
	e, err := s.encryption()
	if err != nil {
		return nil, err
	}
	return reveal(config, map[string]any{"encryption": e})
}
