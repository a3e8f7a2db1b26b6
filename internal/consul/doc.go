// Package consul is what Muster keeps in a Consul besides leases: where components are, and which of the many
// keys that come and go with a process are there (presence). It knows keys and bytes, and no word of the domain.
//
// Everything lives below one prefix, so that several installations can share a Consul:
//
//	PREFIX/lease/NAME      leases (package internal/lease/consullease)
//	PREFIX/presence/KEY    presence: locked by a session of the process that is present, deleted with it
//	service PREFIX-NAME    the instances of a component, each with a check that it has to feed
//
// Absence is only believed when Consul says so: whoever asks gets an error when it does not answer, and must
// not take that for "nobody is there" (see Witness).
package consul
