package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/tern/v2/migrate"
)

//go:embed query/*.sql
var queryFiles embed.FS

//go:embed migrations/*.sql
var migrationFiles embed.FS

// versionTable is where the schema's version is kept.
const versionTable = "public.schema_version"

// loadQueries returns the named statements of the query files. A statement begins with a line
// "-- name: NAME" and ends at the next one; comments above a name belong to it.
func loadQueries() (map[string]string, error) {
	files, err := fs.Glob(queryFiles, "query/*.sql")
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, file := range files {
		text, err := queryFiles.ReadFile(file)
		if err != nil {
			return nil, err
		}
		name := ""
		for line := range strings.Lines(string(text)) {
			if n, ok := strings.CutPrefix(line, "-- name: "); ok {
				name = strings.TrimSpace(n)
				if _, twice := all[name]; twice {
					return nil, fmt.Errorf("%s: statement %s is there twice", file, name)
				}
				all[name] = ""
				continue
			}
			// Comments are for people: the server need not parse them again and again.
			if name != "" && !strings.HasPrefix(line, "--") {
				all[name] += line
			}
		}
	}
	for name, sql := range all {
		all[name] = strings.TrimSpace(sql)
	}
	return all, nil
}

// Migrate brings the schema of a database up to date. Several processes may call it at once: an
// advisory lock makes them take turns.
func Migrate(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	m, err := migrate.NewMigrator(ctx, conn, versionTable)
	if err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	sub, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return err
	}
	if err := m.LoadMigrations(sub); err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	var bad migrate.BadVersionError
	if err := m.Migrate(ctx); errors.As(err, &bad) {
		return fmt.Errorf("%w: the schema of the database is newer than version %d, the newest that this program knows: "+
			"start a program at least as new as the one that migrated it", ErrRefused, len(m.Migrations))
	} else if err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	return nil
}
