// Command auctioneer gives work to cells.
package main

import (
	"os"

	"muster/auctioneer"
	"muster/internal/daemon"
)

func main() { os.Exit(daemon.Main("auctioneer", auctioneer.Defaults(), auctioneer.Run)) }
