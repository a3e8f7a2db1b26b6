// Command bbs runs one replica of the BBS.
package main

import (
	"os"

	"muster/bbs"
	"muster/internal/daemon"
)

func main() { os.Exit(daemon.Main("bbs", bbs.Defaults(), bbs.Run)) }
