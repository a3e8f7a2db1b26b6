package belongings

import (
	"context"

	"muster/cells/engine"
)

// TrustedCerts is the directory of certificates of CAs that the operator of the cell trusts.
type TrustedCerts struct{ Dir string } // empty: there is none, and containers get none

// Prepare gives the directory to a container that says where it wants it.
func (t TrustedCerts) Prepare(_ context.Context, c Container) (Grant, error) {
	if t.Dir == "" || c.Needs.TrustedCerts == "" {
		return Grant{}, nil
	}
	return Grant{
		Mounts: []engine.Mount{{Source: t.Dir, Target: c.Needs.TrustedCerts}},
		Env:    []string{"CF_SYSTEM_CERT_PATH=" + c.Needs.TrustedCerts},
	}, nil
}

// Keep does nothing: the directory is the operator's.
func (t TrustedCerts) Keep(context.Context, engine.Container) error { return nil }

// Release does nothing.
func (t TrustedCerts) Release(context.Context, engine.ID) error { return nil }

// Holders returns nothing.
func (t TrustedCerts) Holders(context.Context) ([]engine.ID, error) { return nil, nil }
