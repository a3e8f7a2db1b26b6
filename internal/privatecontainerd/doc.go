// Package privatecontainerd runs a containerd of our own: its root, state, socket and configuration
// lie below one directory and nothing of it is shared with a containerd of the machine.
//
// Containers outlive a containerd that stops or dies: their shims go on, and the next Open in the
// same directory finds them again. Stop is the end of everything: it ends the daemon, the shims and
// the containers of the directory and unmounts what they mounted, whether the daemon is alive or not.
// Images stay below Dir/root until the caller removes the directory.
package privatecontainerd

// The layout of the directory.
const (
	configFile = "config.toml"
	socketFile = "containerd.sock"
	logFile    = "containerd.log"
	rootDir    = "root"
	stateDir   = "state"
)
