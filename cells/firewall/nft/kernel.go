package nft

import (
	"errors"
	"fmt"

	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"
)

// missing tells whether an error says that the kernel has nothing of nftables, so that there are no rules.
func missing(err error) bool {
	return errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

// explain says what to do about errors that the machine is the reason for.
func explain(err error) error {
	switch {
	case missing(err) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: this kernel has not all of nftables: load the modules nf_tables, nft_ct, nft_limit, nft_log, nft_reject_inet "+
			"and nf_conntrack_netlink, or take a kernel with CONFIG_NF_TABLES_INET and CONFIG_NF_TABLES_BRIDGE", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: rules of the kernel take root with CAP_NET_ADMIN", err)
	}
	return err
}

// canForget tells why the connections of an address cannot be forgotten; see forget, which is not needed
// before an address is used again.
func canForget() error {
	c, err := conntrack.Dial(nil)
	if err != nil {
		return fmt.Errorf("ask for connections: %w", err)
	}
	defer c.Close()
	if _, err := c.Stats(); err != nil {
		return fmt.Errorf("ask for connections: %w", err)
	}
	return nil
}
