// Command rep runs one cell: see package rep.
package main

import (
	"os"

	"muster/internal/daemon"
	"muster/rep"
)

func main() { os.Exit(daemon.Main("rep", rep.Defaults(), rep.Run)) }
