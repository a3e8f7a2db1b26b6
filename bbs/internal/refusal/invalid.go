package refusal

import (
	"strconv"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/lrp"
)

// invalidReason is the reason in the ErrorInfo beside a BadRequest: Diego's name of the error.
const invalidReason = "InvalidRequest"

// encodeInvalid makes a BadRequest for everybody, and an ErrorInfo with the same fields taken apart
// for our own client.
func encodeInvalid(inv *lrp.Invalid) error {
	bad := &errdetails.BadRequest{}
	info := &errdetails.ErrorInfo{Reason: invalidReason, Domain: Domain, Metadata: map[string]string{}}
	for i, f := range inv.Fields[:min(len(inv.Fields), lrp.MaxFieldErrors)] {
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: f.Path(), Description: f.Problem})
		n := strconv.Itoa(i)
		info.Metadata[n+".field"], info.Metadata[n+".problem"] = f.Field, f.Problem
		info.Metadata[n+".value"], info.Metadata[n+".in"] = f.Value, f.In
	}
	return withDetails(status.New(codes.InvalidArgument, inv.Error()), bad, info)
}

func decodeInvalid(d *errdetails.ErrorInfo) (*lrp.Invalid, bool) {
	if d.Reason != invalidReason {
		return nil, false
	}
	inv := &lrp.Invalid{}
	for i := 0; ; i++ {
		n := strconv.Itoa(i)
		field, ok := d.Metadata[n+".field"]
		if !ok {
			return inv, len(inv.Fields) > 0
		}
		inv.Fields = append(inv.Fields, lrp.FieldError{
			Field: field, Problem: d.Metadata[n+".problem"], Value: d.Metadata[n+".value"], In: d.Metadata[n+".in"],
		})
	}
}
