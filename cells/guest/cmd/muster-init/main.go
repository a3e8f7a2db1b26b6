// Command muster-init is the first process of every container of a cell: see package guest.
//
//	muster-init [DIR]
//
// DIR is where the cell has put the program and the inbox; /.muster when it is left out.
package main

import (
	"os"

	"muster/cells/guest"
)

func main() { os.Exit(guest.Main(os.Args)) }
