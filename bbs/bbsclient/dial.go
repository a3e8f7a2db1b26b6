package bbsclient

import (
	"fmt"

	"muster/internal/daemon"
	"muster/internal/identity"
)

// Address says where the BBS is and who is calling: the PEM files are those that 'muster certs' makes.
type Address struct {
	// HostPort is host:port of any replica.
	HostPort string
	// CAFile holds the certificates of the trusted CAs. CertFile and KeyFile are the caller's, and say
	// which role it has; they are read again when they change.
	CAFile, CertFile, KeyFile string
}

// Dial returns a client with a connection of its own, which close closes. It connects with the first
// call, and again and again for as long as it is used. A server that is no BBS is not believed.
func Dial(a Address) (c *Client, close func() error, err error) {
	tls, err := identity.Files{CA: a.CAFile, Cert: a.CertFile, Key: a.KeyFile}.Client(identity.BBS)
	if err != nil {
		return nil, nil, fmt.Errorf("dial the BBS: %w", err)
	}
	conn, err := daemon.DialGRPC(a.HostPort, tls)
	if err != nil {
		return nil, nil, err
	}
	return New(conn), conn.Close, nil
}
