// Package identity holds the tests of who a request reaches: a BBS on PostgreSQL, a route-emitter, a router and
// NATS, all over mutual TLS, certificates of instances from an issuer, and in front of the apps cell-proxy as a
// process that is killed and upgraded. The cell itself is played by the tests, because it has to be at fault:
// it forgets to say that an instance is gone, and gives its ports to others.
package identity
