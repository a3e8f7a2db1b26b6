package inmem

import (
	"syscall"
	"time"
)

// UntilSignal is a program that runs until SIGTERM or SIGINT and then returns code.
func UntilSignal(code int) Program {
	return func(p Proc) int {
		for {
			select {
			case s := <-p.Signals:
				if s == syscall.SIGTERM || s == syscall.SIGINT {
					return code
				}
			case <-p.Killed:
				return code
			}
		}
	}
}

// Forever is a program that ignores every signal; only SIGKILL ends it.
func Forever() Program {
	return func(p Proc) int {
		<-p.Killed
		return 0
	}
}

// After is a program that returns code after d. SIGTERM ends it earlier, with 143.
func After(d time.Duration, code int) Program {
	return func(p Proc) int {
		timer := time.NewTimer(d)
		defer timer.Stop()
		for {
			select {
			case <-timer.C:
				return code
			case s := <-p.Signals:
				if s == syscall.SIGTERM {
					return 128 + int(syscall.SIGTERM)
				}
			case <-p.Killed:
				return 0
			}
		}
	}
}
