package engine

import "time"

// Usage is what a container uses.
type Usage struct {
	// CPU is the processor time that its processes have taken since it was made, those that ended included.
	CPU time.Duration
	// MemoryBytes is what its processes hold, with the files that the kernel keeps in memory for them; without
	// those that it gives up first, because they have not been used for long.
	MemoryBytes int64
	// Pids are its processes and threads, those of the init included.
	Pids int64
	// LogBytes is how much was written to its log, with what the engine writes around each line. It only
	// grows, unless the log began anew for want of disk.
	LogBytes int64
	// DiskBytes is the size of its writable layer as it was at DiskAt. Where that takes a walk through all its
	// files it is looked at now and then; a zero DiskAt: not yet.
	DiskBytes int64
	DiskAt    time.Time
}
