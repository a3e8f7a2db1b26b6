// Package inmem is an engine without containers: processes are Go functions, images are names. It is
// for tests and simulation of everything above an engine, and passes the same conformance suite
// (cells/engine/enginetest) as the engine that drives containerd.
//
// A Host is what survives: its containers and their processes. Engines are lives of the caller on
// it; a second engine on one host sees what the first one made, as a rep does that starts anew.
//
// Everything happens when it is asked for and no earlier: the package reads no wall clock but
// time.Now for timestamps and sleeps only as long as an image is told to take, so it is
// deterministic in a testing/synctest bubble. A bubble ends cleanly when every started container
// was destroyed or its program has returned.
package inmem
