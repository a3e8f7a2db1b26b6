package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"muster/bbs"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/pgtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bbs": main})
}

// passphrase is that of the key k1, which the database of the scripts is encrypted with.
const passphrase = "the right one of k1"

// TestStart starts the program as an operator does. What is wrong with its configuration or its keys is
// told in one line, and it does not run.
func TestStart(t *testing.T) {
	t.Parallel()
	ca, err := identity.OpenCA(t.TempDir())
	must(t, err)
	files, err := ca.Issue(identity.ID{Role: identity.BBS})
	must(t, err)
	url := pgtest.Database(t, nil)
	encrypted(t, files, url)
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Vars = append(env.Vars, "TLS_CA="+files.CA, "TLS_CERT="+files.Cert, "TLS_KEY="+files.Key, "DATABASE="+url, "PASSPHRASE="+passphrase)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"fill": fill},
	})
}

// fill replaces $NAME in a file by what the environment has.
func fill(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

// encrypted has a replica prepare the database with the key k1.
func encrypted(t *testing.T, files identity.Files, url string) {
	t.Helper()
	cfg := bbs.Defaults()
	cfg.TLS, cfg.ListenAddress, cfg.DebugAddress, cfg.DatabaseURL = files, "127.0.0.1:0", "", daemon.Secret(url)
	cfg.Encryption = bbs.Encryption{ActiveKeyLabel: "k1", Keys: map[string]daemon.Secret{"k1": passphrase}}
	ctx, cancel := context.WithCancel(t.Context())
	cfg.Ready = func(net.Addr) { cancel() }
	if err := bbs.Run(ctx, slog.New(slog.NewTextHandler(io.Discard, nil)), cfg); err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
	if ctx.Err() == nil {
		t.Fatal("the replica was never ready")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
