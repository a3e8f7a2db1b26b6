// Command cell-proxy terminates TLS in front of the containers of a cell: see package server.
package main

import (
	"os"

	"muster/cells/proxy/server"
	"muster/internal/daemon"
)

func main() { os.Exit(daemon.Main("cell-proxy", server.Defaults(), server.Run)) }
