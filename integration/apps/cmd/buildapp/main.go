// Command buildapp builds the sample application as an OCI archive.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"muster/integration/apps/image"
)

func main() {
	out := flag.String("o", "", "path of the OCI archive to write")
	app := flag.String("app", "hello", "hello: a small HTTP server; nginx: Debian's nginx")
	cache := flag.String("cache", os.TempDir(), "directory that keeps Debian packages for the next time")
	flag.Parse()
	if err := run(*out, *app, *cache); err != nil {
		fmt.Fprintln(os.Stderr, "buildapp:", err)
		os.Exit(1)
	}
}

func run(out, app, cache string) error {
	if out == "" {
		return fmt.Errorf("-o is empty: want the path of the OCI archive to write")
	}
	switch app {
	case "hello":
		return image.Hello(context.Background(), out)
	case "nginx":
		return image.DebianNginx(context.Background(), cache, out)
	}
	return fmt.Errorf("-app is %q: want hello or nginx", app)
}
