// Package refusal carries the errors of the domain over gRPC: one table, read forwards by the server
// and backwards by the client, so that errors.As answers the same on either side of the wire.
//
// A *lrp.Refusal becomes a status with google.rpc.ErrorInfo, whose reason is the refusal's Why and
// whose metadata says the rest. An *lrp.Invalid becomes INVALID_ARGUMENT with google.rpc.BadRequest.
package refusal

import (
	"errors"
	"strconv"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"muster/bbs/lrp"
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

// The keys of the metadata of an ErrorInfo.
const (
	keyProcess      = "process_guid"
	keyIndex        = "index"
	keyEvent        = "event"
	keyFrom         = "from"
	keyHeldInstance = "held_instance_guid"
	keyHeldCell     = "held_cell_id"
	keyByInstance   = "by_instance_guid"
	keyByCell       = "by_cell_id"
)

// ToStatus turns an error of the domain into a status error. The second result is false, and the
// error unchanged, when it is not one.
func ToStatus(err error) (error, bool) {
	var r *lrp.Refusal
	if errors.As(err, &r) {
		return encodeRefusal(r), true
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
		if !ok {
			continue
		}
		if r, ok := decodeRefusal(st.Code(), info); ok {
			return r
		}
		if inv, ok := decodeInvalid(info); ok && st.Code() == codes.InvalidArgument {
			return inv
		}
	}
	return err
}

func encodeRefusal(r *lrp.Refusal) error {
	for _, row := range table() {
		if row.Why != r.Why {
			continue
		}
		return withDetails(status.New(row.Code, r.Error()), &errdetails.ErrorInfo{
			Reason: string(r.Why), Domain: Domain,
			Metadata: map[string]string{
				keyProcess: string(r.Slot.Process), keyIndex: strconv.Itoa(int(r.Slot.Index)),
				keyEvent: string(r.Event), keyFrom: string(r.From),
				keyHeldInstance: string(r.Held.Instance), keyHeldCell: string(r.Held.Cell),
				keyByInstance: string(r.By.Instance), keyByCell: string(r.By.Cell),
			},
		})
	}
	return status.Errorf(codes.Internal, "refusal %q is not in the table: %v", r.Why, r)
}

func decodeRefusal(code codes.Code, d *errdetails.ErrorInfo) (*lrp.Refusal, bool) {
	if d.Domain != Domain {
		return nil, false
	}
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

func withDetails(st *status.Status, details ...protoadapt.MessageV1) error {
	full, err := st.WithDetails(details...)
	if err != nil {
		return st.Err() // the code alone is still right
	}
	return full.Err()
}
