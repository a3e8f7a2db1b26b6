package container

import "fmt"

// Reasons of completion that are fixed texts. Operators and clients know all reasons from Diego.
const (
	// Missing: the engine lost the container.
	Missing = "missing garden container"
	// StoppedBeforeRunning: it was stopped before its process was started.
	StoppedBeforeRunning = "stopped-before-running"
	// DidNotExit: not even SIGKILL ended its process in time.
	DidNotExit = "process did not exit"
)

// MaxReason is the longest reason that is kept, in characters; the middle of a longer one is cut.
const MaxReason = 10_000

// cutMark stands for what was cut.
const cutMark = "(truncated)"

// CreateFailed is the reason of a container that could not be made.
func CreateFailed(err error) string { return fmt.Sprintf("failed to create container: %v", err) }

// Cut shortens a reason to MaxReason characters, leaving its beginning and its end.
func Cut(reason string) string {
	if len(reason) <= MaxReason {
		return reason
	}
	chars := []rune(reason)
	if len(chars) <= MaxReason {
		return reason
	}
	keep := MaxReason - len(cutMark)
	return string(chars[:keep/2]) + cutMark + string(chars[len(chars)-(keep-keep/2):])
}
