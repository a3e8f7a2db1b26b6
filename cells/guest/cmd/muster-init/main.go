// Command muster-init is the first process of every container of a cell; see package guest.
package main

import (
	"os"

	"muster/cells/guest"
)

func main() { os.Exit(guest.Main(os.Args)) }
