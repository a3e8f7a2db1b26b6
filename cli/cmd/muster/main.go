// Command muster is the operator's program.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"muster/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := cli.Main(ctx, cli.OS(), os.Args[1:])
	stop()
	os.Exit(code)
}
