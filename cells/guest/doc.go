// Package guest is the init of every container of a cell, the process with number 1. It runs the program
// of the container (package step) from inside, so that actions, sidecars, monitors and logs go on
// whatever becomes of the rep, and it ends when the program has.
//
//	DIR/program.json   the program; DIR is /.muster, a directory of the cell, read-only
//	DIR/inbox/         answers of the cell to wants: <n>.json, and before it <n>.tar for a download
//	standard output    log records (package record), one write each
//	standard error     events, one write each
//	SIGTERM            interrupts the program
//	SIGUSR1            something is in the inbox
//	exit status        0 when it has told how the program ended; 70 when it broke down itself
//
// What has to do with a user of the container is done by helpers, processes of that user
// (internal/helper). The init reads and writes no file that the container could have prepared for it.
//
// One goroutine (reaper) collects all children, also those that their parents left behind. A process has
// ended when its status was collected and what it had written by then was read; a child of it may hold
// its output open, and is still heard.
package guest
