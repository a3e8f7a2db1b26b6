package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/cli/internal/stack"
	"muster/internal/daemon"
	"muster/internal/identity"
)

// callTime bounds one call to the BBS. A longer one means that something is wrong.
const callTime = 15 * time.Second

// link says how to reach the BBS and as whom.
type link struct {
	stateDir      string
	bbs           string
	ca, cert, key string
}

func (l *link) addFlags(f *pflag.FlagSet, getenv func(string) string) {
	or := func(name, def string) string {
		if v := getenv(name); v != "" {
			return v
		}
		return def
	}
	f.StringVar(&l.stateDir, "state-dir", or("MUSTER_STATE_DIR", stack.DefaultStateDir), "`directory` of the stack on this machine (MUSTER_STATE_DIR)")
	f.StringVar(&l.bbs, "bbs", or("MUSTER_BBS", ""), "`host:port` of the BBS (MUSTER_BBS; default: that of the stack on this machine)")
	f.StringVar(&l.ca, "ca", or("MUSTER_CA", ""), "PEM `file` with the trusted CAs (MUSTER_CA; default: that of the stack)")
	f.StringVar(&l.cert, "cert", or("MUSTER_CERT", ""), "PEM `file` with the certificate to show (MUSTER_CERT; default: the stack's operator)")
	f.StringVar(&l.key, "key", or("MUSTER_KEY", ""), "PEM `file` with its private key (MUSTER_KEY)")
}

// address is where the BBS is expected.
func (l *link) address() string {
	if l.bbs != "" {
		return l.bbs
	}
	return stack.Describe(l.stateDir).BBSAddress()
}

func (l *link) files() identity.Files {
	f := identity.FilesOf(stack.Describe(l.stateDir).CertsDir(), identity.ID{Role: identity.Operator})
	if l.ca != "" {
		f.CA = l.ca
	}
	if l.cert != "" {
		f.Cert, f.Key = l.cert, l.key
	}
	return f
}

// dial opens a connection to a server of the given role. Nothing is sent yet.
func (l *link) dial(address string, role identity.Role) (*grpc.ClientConn, error) {
	f := l.files()
	if (l.cert == "") != (l.key == "") {
		return nil, usagef("--cert and --key go together: --cert %q, --key %q", l.cert, l.key)
	}
	tlsConfig, err := f.Client(role)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, advise(fmt.Errorf("no certificate to show to %s: %w", role, err),
			"start the stack on this machine: muster up\nor name the files of another installation: --bbs HOST:PORT --ca FILE --cert FILE --key FILE")
	case errors.Is(err, fs.ErrPermission):
		return nil, advise(err, "the key of the operator is for root only: run the command as root (sudo)\nor name a certificate of yours: --cert FILE --key FILE")
	case err != nil:
		return nil, err
	}
	return daemon.DialGRPC(address, tlsConfig)
}

// withBBS calls do with a client of the BBS and explains what goes wrong.
func (a *app) withBBS(ctx context.Context, do func(context.Context, *bbsclient.Client) error) error {
	conn, err := a.link.dial(a.link.address(), identity.BBS)
	if err != nil {
		return err
	}
	defer conn.Close()
	return a.explain(do(ctx, bbsclient.New(conn)))
}

// explain adds what to do to errors of the BBS that are not about one process.
func (a *app) explain(err error) error {
	var ad *advice
	var invalid *lrp.Invalid
	switch {
	case err == nil, errors.As(err, &ad), errors.Is(err, errUsage):
		return err
	case errors.As(err, &invalid):
		return err
	case bbsclient.IsUnavailable(err):
		return advise(fmt.Errorf("the BBS at %s does not answer: %w", a.link.address(), err), "%s", a.unreachable())
	}
	switch status.Code(err) {
	case codes.PermissionDenied, codes.Unauthenticated:
		return advise(err, "the certificate %s may not do that: use one of the role operator or client", a.link.files().Cert)
	case codes.DeadlineExceeded:
		return advise(fmt.Errorf("the BBS at %s took longer than %v: %w", a.link.address(), callTime, err), "%s", a.unreachable())
	}
	return err
}

// unreachable says what to look at when the BBS does not answer.
func (a *app) unreachable() string {
	if a.link.bbs != "" {
		return "is " + a.link.bbs + " the right address? check --bbs, and that the BBS is up there"
	}
	if _, err := os.Stat(filepath.Join(a.link.stateDir)); errors.Is(err, fs.ErrNotExist) {
		return "the stack is not up on this machine: muster up\nor name another BBS: --bbs HOST:PORT"
	}
	return "is the stack up? muster status shows it, muster up brings it up"
}
