// Package round carries out what the backlog decides: one loop owns the backlog, is told what happens
// by the BBS and by the cells, and sends out orders and failures without waiting for them.
//
// Whatever arrives while a round is decided takes part in the next one; nothing waits for a tick.
// A call to one cell holds up neither the loop nor the calls to others.
package round
