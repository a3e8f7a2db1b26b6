// Package cli is muster, the operator's program: one file a verb. It holds no rules of the domain;
// it talks to the BBS and to the cells through their clients, and to the one-machine stack through
// cli/internal/stack.
//
// People get tables (drawn on a terminal, plain columns elsewhere), programs get --json: one
// document, or one object a line for streams. Every error says what was tried and, where there is
// something to do about it, what.
package cli
