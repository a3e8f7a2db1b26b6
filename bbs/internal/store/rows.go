package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
)

// How the members of records look in their columns.

// presenceNames are the labels of the enum lrp_presence, by number.
var presenceNames = [...]string{lrp.Ordinary: "ORDINARY", lrp.Evacuating: "EVACUATING", lrp.Suspect: "SUSPECT"}

func presenceName(p lrp.Presence) string {
	if p < 0 || int(p) >= len(presenceNames) {
		return fmt.Sprintf("presence %d", p) // the column refuses it
	}
	return presenceNames[p]
}

func presenceOf(name string) lrp.Presence {
	for p, n := range presenceNames {
		if n == name {
			return lrp.Presence(p)
		}
	}
	return -1
}

// toJSON is for lists and maps of plain values, which always have a JSON form. Empty ones are not
// null.
func toJSON[T any](v T, isEmpty bool, empty string) string {
	if isEmpty {
		return empty
	}
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("store: %T has no JSON form: %v", v, err))
	}
	return string(text)
}

func listJSON[E any](l []E) string { return toJSON(l, len(l) == 0, "[]") }

// fromJSON reads a list or a map; an empty one becomes nil.
func fromJSON[T any](text []byte, into *T) error {
	if len(text) <= 2 { // [] or {}
		return nil
	}
	return json.Unmarshal(text, into)
}

// desiredRow is a DesiredLRP as its row has it. recipe is nil when it was not read.
type desiredRow struct {
	lrp.Desired
	drivers []string
	recipe  []byte
}

// columns are the arguments of set statements, one slice for each column.
type columns []any

// appendTo adds a value to a column that holds values of its type.
func appendTo[T any](c columns, i int, v T) {
	s, _ := c[i].([]T)
	c[i] = append(s, v)
}

// row appends one value to each column from the left.
func row(c columns, values ...any) {
	for i, v := range values {
		switch v := v.(type) {
		case string:
			appendTo(c, i, v)
		case int32:
			appendTo(c, i, v)
		case int64:
			appendTo(c, i, v)
		case bool:
			appendTo(c, i, v)
		case []byte:
			appendTo(c, i, v)
		case time.Time:
			appendTo(c, i, v)
		default:
			panic(fmt.Sprintf("store: column %d has a %T", i+1, v))
		}
	}
}

// sealDesired seals what a DesiredLRP has beside its recipe and can be updated.
func (s *Store) sealDesired(d lrp.Desired) (routes, tags []byte, err error) {
	key := string(d.Process)
	if routes, err = s.seal(wire.EncodeRoutes(d.Routes), routesColumn.row(key)); err != nil {
		return nil, nil, err
	}
	tags, err = s.seal(wire.EncodeMetricTags(d.MetricTags), tagsColumn.row(key))
	return routes, tags, err
}

// insertDesired appends the columns of insert_desired.
func (s *Store) insertDesired(c columns, d lrp.Desired) error {
	routes, tags, err := s.sealDesired(d)
	if err != nil {
		return err
	}
	drivers, err := s.seal(wire.EncodeVolumePlacement(d.VolumeDrivers()), driversColumn.row(string(d.Process)))
	if err != nil {
		return err
	}
	recipe, err := s.sealRecipe(d)
	if err != nil {
		return err
	}
	row(c, string(d.Process), string(d.Domain), d.LogGUID, d.Instances, d.Annotation,
		routes, tags, d.RootFS, d.MemoryMB, d.DiskMB, d.MaxPids,
		listJSON(d.PlacementTags), drivers, int32(d.Strategy), d.Tag.Epoch, int64(d.Tag.Index), recipe)
	return nil
}

// updateDesired appends the columns of update_desired; recipe is nil when it did not change.
func (s *Store) updateDesired(c columns, d lrp.Desired, recipe []byte) error {
	routes, tags, err := s.sealDesired(d)
	if err != nil {
		return err
	}
	row(c, string(d.Process), d.Instances, d.Annotation, routes, tags, d.Tag.Epoch, int64(d.Tag.Index), recipe)
	return nil
}

// scanDesired reads a row of read_desired, list_desired or list_scheduling. Of an *Unreadable one it
// returns what can be read.
func (s *Store) scanDesired(rows pgx.CollectableRow) (desiredRow, error) {
	var d desiredRow
	var placement, routes, tags, drivers []byte
	var strategy int32
	var index int64
	err := rows.Scan(&d.Process, &d.Domain, &d.LogGUID, &d.Instances, &d.Annotation, &routes, &tags, &d.RootFS,
		&d.MemoryMB, &d.DiskMB, &d.MaxPids, &placement, &drivers, &strategy, &d.Tag.Epoch, &index, &d.recipe)
	if err != nil {
		return desiredRow{}, err
	}
	d.Strategy, d.Tag.Index = lrp.UpdateStrategy(strategy), uint32(index)
	if err := fromJSON(placement, &d.PlacementTags); err != nil {
		return desiredRow{}, fmt.Errorf("row of process %s: %w", d.Process, err)
	}
	var routesErr, tagsErr, driversErr error
	d.Routes, routesErr = s.openRoutes(routes, d.Process)
	d.MetricTags, tagsErr = s.openTags(tags, d.Process)
	d.drivers, driversErr = s.openDrivers(drivers, d.Process)
	return d, firstUnreadable("desired_lrps", string(d.Process),
		columnError{"routes", routesErr}, columnError{"metric_tags", tagsErr}, columnError{"volume_drivers", driversErr})
}

// whole returns the record with its recipe.
func (s *Store) whole(d desiredRow) (lrp.Desired, error) {
	r, err := s.openRecipe(d.recipe, d.Process)
	out := d.Desired
	out.RunInfo = r
	return out, firstUnreadable("desired_lrps", string(d.Process), columnError{"run_info", err})
}

// scanWhole reads a row of read_desired or list_desired.
func (s *Store) scanWhole(rows pgx.CollectableRow) (lrp.Desired, error) {
	d, err := s.scanDesired(rows)
	if err != nil {
		return d.Desired, err
	}
	return s.whole(d)
}

// scanScheduling reads a row of list_scheduling.
func (s *Store) scanScheduling(rows pgx.CollectableRow) (lrp.SchedulingInfo, error) {
	d, err := s.scanDesired(rows)
	return d.scheduling(), err
}

// scheduling returns the record without its recipe.
func (d desiredRow) scheduling() lrp.SchedulingInfo {
	s := d.Desired.SchedulingInfo()
	s.VolumeDrivers = d.drivers
	return s
}

// actualRows are the columns of insert_actuals and update_actuals.
type actualRows struct {
	processes, presences, domains, states, instances, cells []string
	placementErrors, crashReasons, epochs, zones            []string
	indices, crashCounts                                    []int32
	tags                                                    []int64
	since                                                   []time.Time
	netInfos, reported                                      [][]byte
	routable, retiring                                      []bool
}

func (c *actualRows) args() columns {
	if len(c.processes) == 0 {
		return nil
	}
	return columns{
		c.processes, c.indices, c.presences, c.domains, c.states, c.instances, c.cells, c.netInfos, c.placementErrors,
		c.crashCounts, c.crashReasons, c.since, c.epochs, c.tags, c.reported, c.routable, c.zones, c.retiring,
	}
}

// actualRow appends the columns of insert_actuals or update_actuals.
func (s *Store) actualRow(c *actualRows, a *lrp.Actual) error {
	key := instanceRow(a)
	netInfo, err := s.sealNetInfo(a.NetInfo, key)
	if err != nil {
		return err
	}
	told, err := s.sealReported(a, key)
	if err != nil {
		return err
	}
	c.processes, c.indices, c.presences = append(c.processes, string(a.Process)), append(c.indices, a.Index), append(c.presences, presenceName(a.Presence))
	c.domains, c.states = append(c.domains, string(a.Domain)), append(c.states, string(a.State))
	c.instances, c.cells = append(c.instances, string(a.Instance)), append(c.cells, string(a.Cell))
	c.netInfos, c.reported = append(c.netInfos, netInfo), append(c.reported, told)
	c.placementErrors, c.since = append(c.placementErrors, a.PlacementError), append(c.since, a.Since)
	c.crashCounts, c.crashReasons = append(c.crashCounts, a.CrashCount), append(c.crashReasons, a.CrashReason)
	c.epochs, c.tags = append(c.epochs, a.Tag.Epoch), append(c.tags, int64(a.Tag.Index))
	c.routable, c.zones, c.retiring = append(c.routable, a.Routable), append(c.zones, a.AvailabilityZone), append(c.retiring, a.Retiring)
	return nil
}

// scanActual reads a row of read_instances or list_actuals. Of an *Unreadable one it returns what can be
// read.
func (s *Store) scanActual(rows pgx.CollectableRow) (lrp.Actual, error) {
	return s.scanRecord(rows, nil)
}

// scanRecord is scanActual, unless somebody takes over what a cell has reported, as its columns have it.
// Columns in front of the record are read into front.
func (s *Store) scanRecord(rows pgx.CollectableRow, take func(a *lrp.Actual, netInfo, told []byte) bool, front ...any) (lrp.Actual, error) {
	var a lrp.Actual
	var presence string
	var netInfo, told pgtype.DriverBytes // which last until the next row
	var index int64
	// As plain texts: what has a type of its own is read by reflection.
	err := rows.Scan(append(slices.Clip(front), (*string)(&a.Process), &a.Index, &presence, (*string)(&a.Domain), (*string)(&a.State),
		(*string)(&a.Instance), (*string)(&a.Cell), &netInfo, &a.PlacementError, &a.CrashCount, &a.CrashReason, &a.Since, &a.Tag.Epoch, &index, &told, &a.Routable,
		&a.AvailabilityZone, &a.Retiring)...)
	if err != nil {
		return lrp.Actual{}, err
	}
	a.Presence, a.Tag.Index, a.Since = presenceOf(presence), uint32(index), a.Since.UTC()
	if take != nil && take(&a, netInfo, told) {
		return a, nil
	}
	key := instanceRow(&a)
	var netInfoErr error
	a.NetInfo, netInfoErr = s.openNetInfo(netInfo, key)
	toldErr := s.openReported(told, key, &a)
	if netInfoErr == nil && toldErr == nil {
		return a, nil
	}
	return a, firstUnreadable("actual_lrps", fmt.Sprintf("%v %v", a.Slot, presence),
		columnError{"net_info", netInfoErr}, columnError{"reported", toldErr})
}
