// Package daemon is what every Muster daemon is wrapped in: configuration from a file and flags,
// the logger, signals, a run group that stops everything when one part stops, and the debug
// listener with health, metrics and profiles. It knows no word of the domain.
package daemon
