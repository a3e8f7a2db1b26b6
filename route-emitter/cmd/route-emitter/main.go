// Command route-emitter tells routers where instances are.
package main

import (
	"os"

	"muster/internal/daemon"
	emitter "muster/route-emitter"
)

func main() { os.Exit(daemon.Main("route-emitter", emitter.Defaults(), emitter.Run)) }
