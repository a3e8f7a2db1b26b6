package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"

	"muster/bbs/internal/seal"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
	"muster/bbs/task"
	bbsv1 "muster/proto/bbs/v1"
)

// How the sealed columns look inside. Each holds a message of bbs.v1, encrypted and bound to its
// column and the key of its row. An empty value says that there is nothing, which is no secret.
//
//	desired_lrps.routes          ProtoRoutes
//	desired_lrps.metric_tags     DesiredLRP, with metric tags only
//	desired_lrps.volume_drivers  VolumePlacement
//	desired_lrps.run_info        DesiredLRPRunInfo
//	actual_lrps.net_info         ActualLRPNetInfo
//	actual_lrps.reported         ActualLRP, with internal routes, metric tags and placement explanation only
//	tasks.definition             TaskDefinition
//	events.payload               Event, without what has columns of its own, folded
//
// Version 1 of the schema kept JSON there, or the same message, unencrypted: plainFormat and what it
// kept. That is read, and never written.
const plainFormat = 0

// sealedColumn names a column whose values are sealed.
type sealedColumn string

const (
	routesColumn     sealedColumn = "desired_lrps.routes"
	tagsColumn       sealedColumn = "desired_lrps.metric_tags"
	driversColumn    sealedColumn = "desired_lrps.volume_drivers"
	recipeColumn     sealedColumn = "desired_lrps.run_info"
	netInfoColumn    sealedColumn = "actual_lrps.net_info"
	reportedColumn   sealedColumn = "actual_lrps.reported"
	definitionColumn sealedColumn = "tasks.definition"
	payloadColumn    sealedColumn = "events.payload"
)

// row binds values of the column to a row. No key holds a zero, which divides them.
func (c sealedColumn) row(key string) string { return string(c) + "\x00" + key }

// instanceRow is what the columns of a row of actual_lrps are bound to. The presence is left out: a row
// that moves from one place of its slot to another keeps what it holds, and its instance.
func instanceRow(a *lrp.Actual) string {
	return string(a.Process) + "\x00" + strconv.Itoa(int(a.Index)) + "\x00" + string(a.Instance)
}

// eventKey is what an entry of the log is bound to: its revision is not known when it is sealed, so
// its transaction, and what it is filtered by.
func eventKey(batch int64, trace string, r *Record) string {
	return strconv.FormatInt(batch, 10) + "\x00" + trace + "\x00" + string(r.Process) + "\x00" + string(r.Domain) + "\x00" +
		string(r.CellBefore) + "\x00" + string(r.CellAfter)
}

// seal makes the value of a column; of an empty message, an empty one.
func (s *Store) seal(m proto.Message, context string) ([]byte, error) {
	plain, err := proto.Marshal(m)
	if err != nil {
		return nil, &unstorable{fmt.Errorf("a text is not UTF-8: %w", err)}
	}
	return s.sealBytes(plain, context), nil
}

func (s *Store) sealBytes(plain []byte, context string) []byte {
	if len(plain) == 0 {
		return []byte{}
	}
	return s.Sealer.Seal(plain, context)
}

// open reads the value of a column into a message or, if it is of version 1, tells that plain is what
// that kept.
func (s *Store) open(value []byte, context string, m proto.Message) (plain []byte, old bool, err error) {
	switch {
	case len(value) == 0:
		return nil, false, nil
	case value[0] == plainFormat:
		return value[1:], true, nil
	}
	if plain, err = s.Sealer.Open(value, context); err != nil {
		return nil, false, err
	}
	return plain, false, proto.Unmarshal(plain, m)
}

// unstorable is a value that no column can hold.
type unstorable struct{ error }

func (u *unstorable) Unwrap() error { return u.error }

func isUnstorable(err error) bool {
	var u *unstorable
	return errors.As(err, &u)
}

func (s *Store) openRoutes(value []byte, p lrp.ProcessGUID) (routes map[string][]byte, err error) {
	var m bbsv1.ProtoRoutes
	plain, old, err := s.open(value, routesColumn.row(string(p)), &m)
	if err != nil || !old {
		return m.Routes, err
	}
	return routes, json.Unmarshal(plain, &routes)
}

func (s *Store) openTags(value []byte, p lrp.ProcessGUID) (tags map[string]lrp.MetricTag, err error) {
	var m bbsv1.DesiredLRP
	plain, old, err := s.open(value, tagsColumn.row(string(p)), &m)
	if err != nil || !old {
		return wire.DecodeMetricTags(&m), err
	}
	return tags, json.Unmarshal(plain, &tags)
}

func (s *Store) openDrivers(value []byte, p lrp.ProcessGUID) (drivers []string, err error) {
	var m bbsv1.VolumePlacement
	plain, old, err := s.open(value, driversColumn.row(string(p)), &m)
	if err != nil || !old {
		return m.DriverNames, err
	}
	return drivers, json.Unmarshal(plain, &drivers)
}

func (s *Store) openRecipe(value []byte, p lrp.ProcessGUID) (lrp.RunInfo, error) {
	var m bbsv1.DesiredLRPRunInfo
	plain, old, err := s.open(value, recipeColumn.row(string(p)), &m)
	if old {
		err = proto.Unmarshal(plain, &m)
	}
	if err != nil {
		return lrp.RunInfo{}, err
	}
	return wire.DecodeRunInfo(&m), nil
}

func (s *Store) sealRecipe(d lrp.Desired) ([]byte, error) {
	return s.seal(wire.EncodeRunInfo(d.RunInfo), recipeColumn.row(string(d.Process)))
}

// sealNetInfo returns nil, which becomes null, for an instance that nobody can reach.
func (s *Store) sealNetInfo(n lrp.NetInfo, key string) ([]byte, error) {
	if n.Address == "" && n.InstanceAddress == "" && n.InstanceIPv6Address == "" && n.Preferred == 0 && len(n.Ports) == 0 {
		return nil, nil
	}
	plain, err := wire.AppendNetInfo(make([]byte, 0, 192), n)
	if err != nil {
		return nil, &unstorable{err}
	}
	return s.sealBytes(plain, netInfoColumn.row(key)), nil
}

func (s *Store) openNetInfo(value []byte, key string) (n lrp.NetInfo, err error) {
	if value == nil {
		return n, nil
	}
	var m bbsv1.ActualLRPNetInfo
	plain, old, err := s.open(value, netInfoColumn.row(key), &m)
	if err != nil || !old {
		return wire.DecodeNetInfo(&m), err
	}
	return n, json.Unmarshal(plain, &n)
}

// reported is what a cell tells of an instance beside where it can be reached, in the older format.
type reported struct {
	InternalRoutes []string
	MetricTags     map[string]string
}

func (s *Store) sealReported(a *lrp.Actual, key string) ([]byte, error) {
	if len(a.InternalRoutes) == 0 && len(a.MetricTags) == 0 && a.Explanation == nil {
		return []byte{}, nil
	}
	plain, err := wire.AppendReported(make([]byte, 0, 1024), a)
	if err != nil {
		return nil, &unstorable{err}
	}
	return s.sealBytes(plain, reportedColumn.row(key)), nil
}

func (s *Store) openReported(value []byte, key string, a *lrp.Actual) error {
	if len(value) == 0 {
		return nil
	}
	var m bbsv1.ActualLRP
	plain, old, err := s.open(value, reportedColumn.row(key), &m)
	if err != nil || !old {
		wire.DecodeReported(&m, a)
		return err
	}
	var r reported
	err = json.Unmarshal(plain, &r)
	a.InternalRoutes, a.MetricTags = r.InternalRoutes, r.MetricTags
	return err
}

func (s *Store) sealTask(guid task.GUID, d task.Definition) ([]byte, error) {
	return s.seal(wire.EncodeTaskDefinition(d), definitionColumn.row(string(guid)))
}

// openTask reads a definition. There were none before they were sealed.
func (s *Store) openTask(guid task.GUID, value []byte) (task.Definition, error) {
	var m bbsv1.TaskDefinition
	_, old, err := s.open(value, definitionColumn.row(string(guid)), &m)
	if old {
		err = seal.ErrNotSealed
	}
	return wire.DecodeTaskDefinition(&m), err
}

// openPayload reads an encoded entry of the log.
func (s *Store) openPayload(value []byte, key string) (plain []byte, err error) {
	switch {
	case len(value) == 0:
		return nil, nil
	case value[0] == plainFormat:
		return value[1:], nil
	}
	return s.Sealer.Open(value, payloadColumn.row(key))
}
