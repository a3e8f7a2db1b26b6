package store

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
	bbsv1 "muster/proto/bbs/v1"
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

func listJSON[E any](l []E) string         { return toJSON(l, len(l) == 0, "[]") }
func mapJSON[E any](m map[string]E) string { return toJSON(m, len(m) == 0, "{}") }

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
		case int16:
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

func encodeRecipe(r lrp.RunInfo) ([]byte, error) { return proto.Marshal(wire.EncodeRunInfo(r)) }

func decodeRecipe(b []byte) (lrp.RunInfo, error) {
	var m bbsv1.DesiredLRPRunInfo
	if err := proto.Unmarshal(b, &m); err != nil {
		return lrp.RunInfo{}, err
	}
	return wire.DecodeRunInfo(&m), nil
}

// insertDesired appends the columns of insert_desired.
func insertDesired(c columns, d lrp.Desired, recipe []byte) {
	row(c, string(d.Process), string(d.Domain), d.LogGUID, d.Instances, d.Annotation,
		mapJSON(d.Routes), mapJSON(d.MetricTags), d.RootFS, d.MemoryMB, d.DiskMB, d.MaxPids,
		listJSON(d.PlacementTags), listJSON(d.VolumeDrivers()), int16(d.Strategy), d.Tag.Epoch, int64(d.Tag.Index), recipe)
}

// updateDesired appends the columns of update_desired; recipe is nil when it did not change.
func updateDesired(c columns, d lrp.Desired, recipe []byte) {
	row(c, string(d.Process), d.Instances, d.Annotation, mapJSON(d.Routes), mapJSON(d.MetricTags),
		d.Tag.Epoch, int64(d.Tag.Index), recipe)
}

// scanDesired reads a row of read_desired, list_desired or list_scheduling.
func scanDesired(rows pgx.CollectableRow) (desiredRow, error) {
	var d desiredRow
	var routes, tags, placement, drivers []byte
	var strategy int16
	var index int64
	err := rows.Scan(&d.Process, &d.Domain, &d.LogGUID, &d.Instances, &d.Annotation, &routes, &tags, &d.RootFS,
		&d.MemoryMB, &d.DiskMB, &d.MaxPids, &placement, &drivers, &strategy, &d.Tag.Epoch, &index, &d.recipe)
	if err != nil {
		return desiredRow{}, err
	}
	d.Strategy, d.Tag.Index = lrp.UpdateStrategy(strategy), uint32(index)
	for _, err := range []error{
		fromJSON(routes, &d.Routes), fromJSON(tags, &d.MetricTags), fromJSON(placement, &d.PlacementTags), fromJSON(drivers, &d.drivers),
	} {
		if err != nil {
			return desiredRow{}, fmt.Errorf("row of process %s: %w", d.Process, err)
		}
	}
	return d, nil
}

// whole returns the record with its recipe.
func (d desiredRow) whole() (lrp.Desired, error) {
	r, err := decodeRecipe(d.recipe)
	if err != nil {
		return lrp.Desired{}, fmt.Errorf("recipe of process %s: %w", d.Process, err)
	}
	out := d.Desired
	out.RunInfo = r
	return out, nil
}

// scheduling returns the record without its recipe.
func (d desiredRow) scheduling() lrp.SchedulingInfo {
	s := d.Desired.SchedulingInfo()
	s.VolumeDrivers = d.drivers
	return s
}

// actualColumns is the number of columns of insert_actuals and update_actuals.
const actualColumns = 23

// actualRow appends the columns of insert_actuals or update_actuals.
func actualRow(c columns, a *lrp.Actual) {
	n := a.NetInfo
	row(c, string(a.Process), a.Index, presenceName(a.Presence), string(a.Domain), string(a.State),
		string(a.Instance), string(a.Cell), n.Address, n.InstanceAddress, n.InstanceIPv6Address, int16(n.Preferred),
		listJSON(n.Ports), a.PlacementError, a.CrashCount, a.CrashReason, a.Since, a.Tag.Epoch, int64(a.Tag.Index),
		listJSON(a.InternalRoutes), mapJSON(a.MetricTags), a.Routable, a.AvailabilityZone, a.Retiring)
}

// scanActual reads a row of read_actuals or list_actuals.
func scanActual(rows pgx.CollectableRow) (lrp.Actual, error) {
	var a lrp.Actual
	var presence string
	var ports, routes, tags []byte
	var preferred int16
	var index int64
	err := rows.Scan(&a.Process, &a.Index, &presence, &a.Domain, &a.State, &a.Instance, &a.Cell, &a.NetInfo.Address,
		&a.NetInfo.InstanceAddress, &a.NetInfo.InstanceIPv6Address, &preferred, &ports, &a.PlacementError, &a.CrashCount,
		&a.CrashReason, &a.Since, &a.Tag.Epoch, &index, &routes, &tags, &a.Routable, &a.AvailabilityZone, &a.Retiring)
	if err != nil {
		return lrp.Actual{}, err
	}
	a.Presence, a.NetInfo.Preferred, a.Tag.Index = presenceOf(presence), lrp.PreferredAddress(preferred), uint32(index)
	a.Since = a.Since.UTC()
	for _, err := range []error{
		fromJSON(ports, &a.NetInfo.Ports), fromJSON(routes, &a.InternalRoutes), fromJSON(tags, &a.MetricTags),
	} {
		if err != nil {
			return lrp.Actual{}, fmt.Errorf("row of slot %v: %w", a.Slot, err)
		}
	}
	return a, nil
}
