// Package refusal carries the errors of the domain over gRPC: one table, read forwards by the server
// and backwards by the client, so that errors.As answers the same on either side of the wire.
//
// A *lrp.Refusal or *task.Refusal becomes a status with google.rpc.ErrorInfo, whose reason is the
// refusal's Why and whose metadata says the rest, and with google.rpc.ResourceInfo when something is
// missing or taken. An *lrp.Invalid becomes INVALID_ARGUMENT with google.rpc.BadRequest. Every error
// can say which request it answers (Request), and one that may pass when to try again (Unavailable).
package refusal

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"muster/bbs/lrp"
	"muster/bbs/task"
	bbsv1 "muster/proto/bbs/v1"
)

// Domain is the domain of our google.rpc.ErrorInfo.
const Domain = "bbs.muster"

// row is one line of the table.
type row struct {
	Why  lrp.Why
	Code codes.Code
}

// table says which status each reason has. No reason is listed twice.
func table() []row {
	return []row{
		{lrp.NotFound, codes.NotFound},
		{lrp.Exists, codes.AlreadyExists},
		{lrp.CannotBeClaimed, codes.FailedPrecondition},
		{lrp.CannotBeStarted, codes.FailedPrecondition},
		{lrp.CannotBeCrashed, codes.FailedPrecondition},
		{lrp.CannotBeFailed, codes.FailedPrecondition},
		{lrp.CannotBeRemoved, codes.FailedPrecondition},
	}
}

// taskRow is one line of the table of tasks.
type taskRow struct {
	Why  task.Why
	Code codes.Code
}

// taskTable says the same of tasks. Some reasons have the names of those of LRPs: the metadata tells
// them apart.
func taskTable() []taskRow {
	return []taskRow{
		{task.NotFound, codes.NotFound},
		{task.Exists, codes.AlreadyExists},
		// Not INVALID_ARGUMENT, as its name says in Diego: the request is good, the task is over.
		{task.InvalidRequest, codes.FailedPrecondition},
		{task.InvalidStateTransition, codes.FailedPrecondition},
		{task.RunningOnDifferentCell, codes.FailedPrecondition},
	}
}

// The keys of the metadata of an ErrorInfo.
const (
	keyProcess      = "process_guid"
	keyIndex        = "index"
	keyTask         = "task_guid"
	keyEvent        = "event"
	keyFrom         = "from"
	keyTo           = "to"
	keyHeldInstance = "held_instance_guid"
	keyHeldCell     = "held_cell_id"
	keyByInstance   = "by_instance_guid"
	keyByCell       = "by_cell_id"
)

// The types of resources in a ResourceInfo.
const (
	typeDesired = "bbs.v1.DesiredLRP"
	typeActual  = "bbs.v1.ActualLRP"
	typeTask    = "bbs.v1.Task"
)

// ToStatus turns an error of the domain into a status error. The second result is false, and the
// error unchanged, when it is not one.
func ToStatus(err error) (error, bool) {
	var r *lrp.Refusal
	if errors.As(err, &r) {
		return encodeRefusal(r), true
	}
	var t *task.Refusal
	if errors.As(err, &t) {
		return encodeTaskRefusal(t), true
	}
	var inv *lrp.Invalid
	if errors.As(err, &inv) {
		return encodeInvalid(inv), true
	}
	return err, false
}

// FromStatus turns a status error back into the error of the domain. An error that is none, or that
// has no such details, is returned as it is.
func FromStatus(err error) error {
	st, ok := status.FromError(err)
	if !ok || err == nil {
		return err
	}
	for _, d := range st.Details() {
		info, ok := d.(*errdetails.ErrorInfo)
		if !ok || info.Domain != Domain {
			continue
		}
		if r, ok := decodeRefusal(st.Code(), info); ok {
			return r
		}
		if r, ok := decodeTaskRefusal(st.Code(), info); ok {
			return r
		}
		if inv, ok := decodeInvalid(info); ok && st.Code() == codes.InvalidArgument {
			return inv
		}
	}
	return err
}

// Unavailable makes the status of a failure that may pass, and says when to try again.
func Unavailable(code codes.Code, text string, retry time.Duration) error {
	return withDetails(status.New(code, text), &errdetails.RetryInfo{RetryDelay: durationpb.New(retry)})
}

// Request adds to a status error which request it answers; an empty id adds nothing.
func Request(err error, id string) error {
	st, ok := status.FromError(err)
	if !ok || err == nil || id == "" {
		return err
	}
	return withDetails(st, &errdetails.RequestInfo{RequestId: id})
}

// RetryDelay returns how long a server asks to wait before the next attempt; false: it says nothing.
func RetryDelay(err error) (time.Duration, bool) {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration(), true
		}
	}
	return 0, false
}

// Keep adds to a status error what a drained cell is to do with the container all the same: a call has
// an answer or an error, and an evacuation needs both.
func Keep(err error, keep bool) error {
	st, ok := status.FromError(err)
	if !ok || err == nil {
		return err
	}
	return withDetails(st, protoadapt.MessageV1Of(&bbsv1.EvacuationResponse{KeepContainer: keep}))
}

// KeepOf returns what Keep added; false: nothing.
func KeepOf(err error) (keep, ok bool) {
	for _, d := range status.Convert(err).Details() {
		if answer, ok := d.(*bbsv1.EvacuationResponse); ok {
			return answer.GetKeepContainer(), true
		}
	}
	return false, false
}

func encodeRefusal(r *lrp.Refusal) error {
	for _, row := range table() {
		if row.Why != r.Why {
			continue
		}
		info := &errdetails.ErrorInfo{
			Reason: string(r.Why), Domain: Domain,
			Metadata: map[string]string{
				keyProcess: string(r.Slot.Process), keyIndex: strconv.Itoa(int(r.Slot.Index)),
				keyEvent: string(r.Event), keyFrom: string(r.From),
				keyHeldInstance: string(r.Held.Instance), keyHeldCell: string(r.Held.Cell),
				keyByInstance: string(r.By.Instance), keyByCell: string(r.By.Cell),
			},
		}
		// What happens to slots are the events of the machine; all else is about the process.
		kind, name := typeDesired, string(r.Slot.Process)
		if slices.Contains(lrp.EventNames(), r.Event) {
			kind, name = typeActual, fmt.Sprintf("%s/%d", r.Slot.Process, r.Slot.Index)
		}
		return withDetails(status.New(row.Code, r.Error()), about(info, row.Code, kind, name)...)
	}
	return status.Errorf(codes.Internal, "refusal %q is not in the table: %v", r.Why, r)
}

func decodeRefusal(code codes.Code, d *errdetails.ErrorInfo) (*lrp.Refusal, bool) {
	for _, row := range table() {
		if string(row.Why) != d.Reason || row.Code != code {
			continue
		}
		index, err := strconv.ParseInt(d.Metadata[keyIndex], 10, 32)
		if err != nil {
			return nil, false
		}
		return &lrp.Refusal{
			Slot:  lrp.Slot{Process: lrp.ProcessGUID(d.Metadata[keyProcess]), Index: int32(index)},
			Event: lrp.EventName(d.Metadata[keyEvent]), From: lrp.State(d.Metadata[keyFrom]), Why: row.Why,
			Held: lrp.InstanceKey{
				Instance: lrp.InstanceGUID(d.Metadata[keyHeldInstance]), Cell: lrp.CellID(d.Metadata[keyHeldCell]),
			},
			By: lrp.InstanceKey{
				Instance: lrp.InstanceGUID(d.Metadata[keyByInstance]), Cell: lrp.CellID(d.Metadata[keyByCell]),
			},
		}, true
	}
	return nil, false
}

func encodeTaskRefusal(r *task.Refusal) error {
	for _, row := range taskTable() {
		if row.Why != r.Why {
			continue
		}
		info := &errdetails.ErrorInfo{
			Reason: string(r.Why), Domain: Domain,
			Metadata: map[string]string{
				keyTask: string(r.GUID), keyEvent: string(r.Event),
				keyFrom: strconv.Itoa(int(r.From)), keyTo: strconv.Itoa(int(r.To)),
				keyHeldCell: string(r.Held), keyByCell: string(r.By),
			},
		}
		return withDetails(status.New(row.Code, r.Error()), about(info, row.Code, typeTask, string(r.GUID))...)
	}
	return status.Errorf(codes.Internal, "refusal %q is not in the table: %v", r.Why, r)
}

func decodeTaskRefusal(code codes.Code, d *errdetails.ErrorInfo) (*task.Refusal, bool) {
	guid, ok := d.Metadata[keyTask]
	if !ok {
		return nil, false
	}
	for _, row := range taskTable() {
		if string(row.Why) != d.Reason || row.Code != code {
			continue
		}
		from, err := strconv.ParseInt(d.Metadata[keyFrom], 10, 32)
		if err != nil {
			return nil, false
		}
		to, err := strconv.ParseInt(d.Metadata[keyTo], 10, 32)
		if err != nil {
			return nil, false
		}
		return &task.Refusal{
			GUID: task.GUID(guid), Event: task.EventName(d.Metadata[keyEvent]), From: task.State(from), To: task.State(to),
			Held: lrp.CellID(d.Metadata[keyHeldCell]), By: lrp.CellID(d.Metadata[keyByCell]), Why: row.Why,
		}, true
	}
	return nil, false
}

// about returns the details of a refusal: when a record is missing or in the way, also which.
func about(info *errdetails.ErrorInfo, code codes.Code, kind, name string) []protoadapt.MessageV1 {
	details := []protoadapt.MessageV1{info}
	if code == codes.NotFound || code == codes.AlreadyExists {
		details = append(details, &errdetails.ResourceInfo{ResourceType: kind, ResourceName: name})
	}
	return details
}

func withDetails(st *status.Status, details ...protoadapt.MessageV1) error {
	full, err := st.WithDetails(details...)
	if err != nil {
		return st.Err() // the code alone is still right
	}
	return full.Err()
}
