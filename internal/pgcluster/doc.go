// Package pgcluster runs a private PostgreSQL server: for the one-machine stack and for tests. A
// larger installation has a server of its own and needs nothing of this.
//
// Everything lives below one directory:
//
//	DIR/data          the data directory (0700, owned by the account the server runs as)
//	DIR/run           the unix socket
//	DIR/postgres.log  what the server says
//	DIR/password      the password for connections over TCP (0600)
//	DIR/lock          held while a server is started or stopped
//
// Who may connect: over the socket the kernel says which account is calling, and only the account
// that made the cluster, root and the server's own account are let in (peer authentication with a
// map), so no password is needed and no other account gets in. Over TCP, which is off unless a port
// is given and never leaves loopback, a password is asked for.
//
// PostgreSQL refuses to run as root, so for root the server runs as the account postgres.
package pgcluster
