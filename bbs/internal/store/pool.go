package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// planAge is how long the writers use the plan of a statement. A plan that was made for a table with a
// few rows may be a bad one by then, when there are many.
const planAge = time.Second

// plannedAt names, in the custom data of a connection, when its plans were made.
const plannedAt = "muster.planned_at"

// queuePlanning has the statements that follow on a connection planned anew, when their plans are old.
func queuePlanning(pb *pgx.Batch, conn *pgx.Conn, sql map[string]string) {
	data := conn.PgConn().CustomData()
	if at, ok := data[plannedAt].(time.Time); ok && time.Since(at) < planAge {
		return
	}
	data[plannedAt] = time.Now()
	pb.Queue(sql["discard_plans"])
}

// connectTime bounds one attempt to connect to the database.
const connectTime = 2 * time.Second

// Pools are the connections of a store. The writers have their own, so that no crowd of lists keeps
// them waiting, and so that the planner can be told what each side needs.
type Pools struct {
	Read, Write *pgxpool.Pool
}

// OpenPools returns pools on a database, without connecting yet. reads bounds the connections for
// everything but the writers.
func OpenPools(ctx context.Context, url string, reads int) (Pools, error) {
	// Lists with optional filters: a plan made for the filters at hand uses the index that fits.
	read, err := newPool(ctx, url, reads, map[string]string{"plan_cache_mode": "force_custom_plan", "jit": "off"})
	if err != nil {
		return Pools{}, err
	}
	// The writers find a few rows by key, always. Left alone, the planner takes a table that has just
	// been filled for an empty one and reads all of it, until statistics are gathered. Compiling such
	// statements takes a hundred times as long as running them, and planning them longer, too: plans are
	// kept for planAge.
	write, err := newPool(ctx, url, Writers+1, map[string]string{
		"plan_cache_mode": "force_generic_plan", "jit": "off", "enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
	})
	if err != nil {
		read.Close()
		return Pools{}, err
	}
	return Pools{read, write}, nil
}

func newPool(ctx context.Context, url string, connections int, params map[string]string) (*pgxpool.Pool, error) {
	pc, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("the URL of the database: %w", err)
	}
	pc.MaxConns = int32(connections)
	pc.AfterConnect = quickLists
	pc.ConnConfig.ConnectTimeout = connectTime
	pc.ConnConfig.RuntimeParams["application_name"] = "muster-bbs"
	for name, value := range params {
		pc.ConnConfig.RuntimeParams[name] = value
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("make a pool of database connections: %w", err)
	}
	return pool, nil
}

// Close closes the pools, once nothing uses them any more.
func (p Pools) Close() {
	p.Read.Close()
	p.Write.Close()
}
