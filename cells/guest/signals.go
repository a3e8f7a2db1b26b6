package guest

import (
	"os"
	"os/signal"
	"syscall"
)

// ignored are signals that would end a Go program and mean nothing to the init. They are caught, not
// ignored in the sense of the kernel: that would be inherited by the programs of the container.
var ignored = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGALRM, syscall.SIGUSR2, syscall.SIGSTKFLT,
	syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGXCPU, syscall.SIGXFSZ, syscall.SIGVTALRM, syscall.SIGPROF,
	syscall.SIGIO, syscall.SIGPWR, syscall.SIGABRT, syscall.SIGTRAP, syscall.SIGSYS,
}

// catch returns the channel of the signals that mean something. Each kind that does has its place in it,
// and one that is there stands for all of its kind.
func catch() <-chan os.Signal {
	signal.Notify(make(chan os.Signal), ignored...) // nobody listens: what is not taken at once is dropped
	all := make(chan os.Signal)
	for _, s := range []os.Signal{syscall.SIGCHLD, syscall.SIGTERM, syscall.SIGUSR1} {
		one := make(chan os.Signal, 1)
		signal.Notify(one, s)
		go func() {
			for s := range one {
				all <- s
			}
		}()
	}
	return all
}
