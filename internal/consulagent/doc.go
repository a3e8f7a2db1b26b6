// Package consulagent is a private Consul agent, the real one: for the one-machine stack and for tests. A larger
// installation has its own and needs nothing of this.
//
// The program is built from source, from the module in tools/consul, which pins its version, and kept in the
// user's cache (see Binary). Config says how one server of it runs alone, on loopback only.
package consulagent
