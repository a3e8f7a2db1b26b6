// Package cells says what a cell is: its resources, what it can run, how it announces itself, and
// which work fits on it. It is a CORE: no I/O, no clock.
package cells
