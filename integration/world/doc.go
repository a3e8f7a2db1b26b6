// Package world holds the tests of the whole system: real binaries, PostgreSQL, NATS, containerd and
// CNI on this machine, reached through public doors only (the operator's program, the BBS's API, HTTP
// through the router). Each kills something. They need root.
package world
