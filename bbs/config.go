package bbs

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"muster/bbs/internal/callback"
	"muster/bbs/internal/seal"
	"muster/bbs/task"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/lease"
)

// Config is the configuration of a replica.
type Config struct {
	daemon.Common
	TLS           identity.Files `json:"tls"`
	ListenAddress string         `json:"listen_address" help:"host:port for gRPC"`

	Diego Diego `json:"diego"`

	DatabaseURL daemon.Secret `json:"database_url" help:"PostgreSQL, as postgres://USER:PASSWORD@HOST:PORT/NAME or postgres:///NAME?host=DIRECTORY"`
	// Writers and the listener need a few of their own; beyond that it is concurrent lists.
	DatabaseConnections int `json:"database_connections" help:"connections to the database, 4 to 1000; up: more lists at once, more memory in PostgreSQL; down: lists wait for each other"`

	Encryption Encryption `json:"encryption"`

	// Only convergence and callbacks need the lease: every replica serves.
	lease.Config

	// The comparison is the safety net: everything normal happens at once, without it.
	ConvergeInterval daemon.Duration `json:"converge_interval" help:"time between full comparisons of desired and actual state, 1s to 1h; up: what was missed is repaired later; down: more load"`
	LostCellGrace    daemon.Duration `json:"lost_cell_grace" help:"how long a cell must have been lost before its tasks fail and its evacuating instances go, 1s to 1h; up: they hang for longer; down: a cell that was cut off for a moment loses them"`
	SweepInterval    daemon.Duration `json:"sweep_interval" help:"how often silent cells are looked for, 50ms to 10s; up: a dead cell is noticed later; down: more queries"`

	MaxTaskRejections   int             `json:"max_task_retries" help:"rejections after which a task is offered again, 0 to 1000; up: a task that fits nowhere is tried for longer; down: one that met a full moment fails"`
	ExpirePendingTask   daemon.Duration `json:"expire_pending_task_duration" help:"how long a task may wait to be started before it fails, 1s to 168h; up: its owner learns later that there is no room; down: less patience with a full installation"`
	KickTask            daemon.Duration `json:"kick_task_duration" help:"after how long the telling of a completion counts as stuck and is begun again, 1s to 1h; up: owners learn later; down: slow receivers are told twice"`
	ExpireCompletedTask daemon.Duration `json:"expire_completed_task_duration" help:"how long a completed task is kept whose owner was not told or did not resolve it, 1s to 168h, more than kick_task_duration; up: more old tasks; down: owners who are away miss results"`
	TaskCallbackWorkers int             `json:"task_callback_workers" help:"completions that are told of at a time, 1 to 10000; up: one dead receiver delays others less; down: less memory and fewer connections"`
	CallbackTimeout     daemon.Duration `json:"communication_timeout" help:"time for one request to the receiver of a completion, answer included, 100ms to 1m, at most five sixths of kick_task_duration; up: slower receivers are told; down: a dead one holds a worker for less time"`

	EventAge   daemon.Duration `json:"event_age" help:"how long the log of changes is kept, 1m to 720h; up: watches can resume after longer absence, a larger table; down: they list again sooner"`
	EventCount int64           `json:"event_count" help:"how many entries of the log are kept at most, 1000 to 100000000; as event_age"`
	PruneEvery daemon.Duration `json:"prune_interval" help:"how often the log is cut, 1s to 1h; up: it overshoots its limits further; down: more, smaller deletions"`
	Bookmark   daemon.Duration `json:"bookmark_interval" help:"how long a watch is idle before it is told where the log stands, 100ms to 1m; up: a resumed watch reads more again; down: more messages"`

	// Ready, unless nil, is told the address once calls are answered there. For programs that embed
	// the daemon.
	Ready func(net.Addr) `json:"-"`
	// DiegoReady, unless nil, is told before Ready at which address Diego's clients are answered, if they are.
	DiegoReady func(net.Addr) `json:"-"`
}

// Diego is the door for programs that speak to a Diego BBS. docs/migrating-from-diego.md tells how to let
// them in.
type Diego struct {
	ListenAddress string `json:"listen_address" help:"host:port for Diego's clients, 127.0.0.1:8889 for example: HTTP/1.1 with mutual TLS; empty: they are not served"`
	// What they know about the server is the host that they dial, and the CA of their installation.
	Cert string `json:"cert_file" help:"PEM file with the certificate that they are shown, which names the host that they dial; read again when it changes; empty: tls.cert_file"`
	Key  string `json:"key_file" help:"PEM file with its private key; empty: tls.key_file"`
	// Certificates with a URI SAN of ours need neither of these.
	ClientCA string `json:"client_ca_file" help:"PEM file with the certificates of the CAs of clients that have no certificate of ours; empty: there are none"`
	// ClientRoles can only be given in the file: a flag has no room for it.
	ClientRoles map[string]identity.Role `json:"client_roles" help:"common name or DNS name of the certificate of such a client, to its role: client, operator, auctioneer or route-emitter"`
}

// gate says who is let in; own are the files of the replica.
func (d Diego) gate(own identity.Files) (*identity.Gate, error) {
	if d.Cert != "" {
		own.Cert, own.Key = d.Cert, d.Key
	}
	return identity.NewGate(own, d.guests())
}

func (d Diego) guests() identity.Guests { return identity.Guests{CA: d.ClientCA, Roles: d.ClientRoles} }

// problems returns what is wrong.
func (d Diego) problems() []error {
	errs := d.guests().Problems("diego.")
	if _, _, err := net.SplitHostPort(d.ListenAddress); err != nil && d.ListenAddress != "" {
		errs = append(errs, fmt.Errorf("diego.listen_address %q: want host:port, or nothing", d.ListenAddress))
	}
	if (d.Cert == "") != (d.Key == "") {
		errs = append(errs, fmt.Errorf("diego.cert_file %q and diego.key_file %q: want both or neither", d.Cert, d.Key))
	}
	return errs
}

// Encryption says which keys encrypt what is sensitive in the database: routes, recipes, addresses,
// tags, definitions of tasks, and the log of changes. docs/encryption.md tells how to replace a key.
type Encryption struct {
	ActiveKeyLabel string `json:"active_key_label" help:"label of the key that encrypts; to rotate: add a key to encryption.keys of all replicas and restart them, then name it here and restart them, and drop the old key once the log says that it is retired"`
	// Keys can only be given in the file: what is in a flag can be read by anybody on the machine.
	Keys map[string]daemon.Secret `json:"keys" help:"label, 1 to 127 bytes, to passphrase; any of them decrypts"`
}

// sealer makes of the keys what encrypts with them.
func (e Encryption) sealer() (*seal.Sealer, error) {
	keys := make(map[string]string, len(e.Keys))
	for label, passphrase := range e.Keys {
		keys[label] = string(passphrase)
	}
	s, err := seal.New(e.ActiveKeyLabel, keys)
	if err != nil {
		return nil, fmt.Errorf("encryption: %w", err)
	}
	return s, nil
}

// Defaults returns the default configuration.
func Defaults() *Config {
	tasks := task.DefaultPolicy()
	return &Config{
		Common:              daemon.Common{LogLevel: "info", DebugAddress: "127.0.0.1:17017"},
		Config:              lease.Defaults(),
		ListenAddress:       "0.0.0.0:8888",
		DatabaseConnections: 32,
		ConvergeInterval:    daemon.Duration(30 * time.Second),
		LostCellGrace:       daemon.Duration(15 * time.Second),
		SweepInterval:       daemon.Duration(250 * time.Millisecond),
		MaxTaskRejections:   int(tasks.MaxRejections),
		ExpirePendingTask:   daemon.Duration(tasks.ExpirePending),
		KickTask:            daemon.Duration(tasks.Kick),
		ExpireCompletedTask: daemon.Duration(tasks.ExpireCompleted),
		TaskCallbackWorkers: callback.DefaultWorkers,
		CallbackTimeout:     daemon.Duration(callback.DefaultTimeout),
		EventAge:            daemon.Duration(time.Hour),
		EventCount:          1_000_000,
		PruneEvery:          daemon.Duration(30 * time.Second),
		Bookmark:            daemon.Duration(5 * time.Second),
	}
}

// taskPolicy returns the limits of tasks.
func (c *Config) taskPolicy() task.Policy {
	return task.Policy{
		MaxRejections: int32(c.MaxTaskRejections), ExpirePending: time.Duration(c.ExpirePendingTask),
		Kick: time.Duration(c.KickTask), ExpireCompleted: time.Duration(c.ExpireCompletedTask),
	}
}

// Validate returns every problem at once.
func (c *Config) Validate() error {
	errs := append(c.Problems(), c.TLS.Problems("tls.")...)
	errs = append(errs, c.LeaseProblems()...)
	errs = append(errs, c.Diego.problems()...)
	if _, _, err := net.SplitHostPort(c.ListenAddress); err != nil {
		errs = append(errs, fmt.Errorf("listen_address %q: want host:port", c.ListenAddress))
	}
	if c.DatabaseURL == "" {
		errs = append(errs, errors.New("database_url is empty: name the PostgreSQL database"))
	} else if _, err := pgxpool.ParseConfig(string(c.DatabaseURL)); err != nil {
		errs = append(errs, errors.New("database_url is not a PostgreSQL URL such as postgres://USER:PASSWORD@HOST:PORT/NAME"))
	}
	if _, err := c.Encryption.sealer(); err != nil {
		errs = append(errs, err)
	}
	for _, d := range []struct {
		name     string
		value    daemon.Duration
		min, max time.Duration
	}{
		{"converge_interval", c.ConvergeInterval, time.Second, time.Hour},
		{"lost_cell_grace", c.LostCellGrace, time.Second, time.Hour},
		{"sweep_interval", c.SweepInterval, 50 * time.Millisecond, 10 * time.Second},
		{"expire_pending_task_duration", c.ExpirePendingTask, time.Second, 168 * time.Hour},
		{"kick_task_duration", c.KickTask, time.Second, time.Hour},
		{"expire_completed_task_duration", c.ExpireCompletedTask, time.Second, 168 * time.Hour},
		{"communication_timeout", c.CallbackTimeout, 100 * time.Millisecond, time.Minute},
		{"event_age", c.EventAge, time.Minute, 720 * time.Hour},
		{"prune_interval", c.PruneEvery, time.Second, time.Hour},
		{"bookmark_interval", c.Bookmark, 100 * time.Millisecond, time.Minute},
	} {
		if v := time.Duration(d.value); v < d.min || v > d.max {
			errs = append(errs, fmt.Errorf("%s %v: want %v to %v", d.name, d.value, d.min, d.max))
		}
	}
	for _, n := range []struct {
		name            string
		value, min, max int64
	}{
		{"database_connections", int64(c.DatabaseConnections), 4, 1000},
		{"max_task_retries", int64(c.MaxTaskRejections), 0, 1000},
		{"task_callback_workers", int64(c.TaskCallbackWorkers), 1, 10_000},
		{"event_count", c.EventCount, 1000, 100_000_000},
	} {
		if n.value < n.min || n.value > n.max {
			errs = append(errs, fmt.Errorf("%s %d: want %d to %d", n.name, n.value, n.min, n.max))
		}
	}
	if c.ExpireCompletedTask <= c.KickTask {
		errs = append(errs, fmt.Errorf("expire_completed_task_duration %v: want more than kick_task_duration, %v, or nobody is told twice", c.ExpireCompletedTask, c.KickTask))
	}
	if most := callback.TellingTime(time.Duration(c.KickTask)); time.Duration(c.CallbackTimeout) > most {
		errs = append(errs, fmt.Errorf("communication_timeout %v: want at most %v, five sixths of kick_task_duration, %v, or a request that is under way is given up", c.CallbackTimeout, most, c.KickTask))
	}
	return errors.Join(errs...)
}
