package door

import (
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"muster/bbs/internal/refusal"
	"muster/bbs/lrp"
	"muster/bbs/task"
	bbsv1 "muster/proto/bbs/v1"
)

// texts are what clients read of a refusal. They decide by its type, and people search for these.
var texts = map[lrp.Why]string{
	lrp.NotFound:        "the requested resource could not be found",
	lrp.Exists:          "the requested resource already exists",
	lrp.CannotBeClaimed: "cannot claim actual LRP",
	lrp.CannotBeStarted: "cannot start actual LRP",
	lrp.CannotBeCrashed: "cannot crash actual LRP",
	lrp.CannotBeFailed:  "cannot fail actual LRP",
	lrp.CannotBeRemoved: "cannot remove actual LRP",
}

// invalidText is what clients read of a request that is none.
const invalidText = "the request received is invalid"

// errUnread is the error of a request that could not be read from its connection, or is too long.
var errUnread = &lrp.Invalid{Fields: []lrp.FieldError{{Field: unreadable}}}

// unreadable is the field that stands for a whole request.
const unreadable = "request"

// failure makes of the error of a call what the response says of it. Reasons have Diego's names, which are
// those of the types.
func failure(err error) *bbsv1.Error {
	var refused *lrp.Refusal
	var refusedTask *task.Refusal
	var invalid *lrp.Invalid
	domain := refusal.FromStatus(err)
	switch {
	case errors.As(domain, &refused):
		return &bbsv1.Error{Type: named(string(refused.Why)), Message: texts[refused.Why]}
	case errors.As(domain, &refusedTask):
		return &bbsv1.Error{Type: named(string(refusedTask.Why)), Message: refusedTask.Text()}
	case errors.As(domain, &invalid) && invalid.Fields[0].Field == unreadable:
		return &bbsv1.Error{Type: bbsv1.Error_InvalidRequest, Message: invalidText}
	case errors.As(domain, &invalid):
		return &bbsv1.Error{Type: bbsv1.Error_InvalidRequest, Message: invalid.Error()}
	}
	st := status.Convert(err)
	if st.Code() == codes.DataLoss { // which record it is, is in the log
		return &bbsv1.Error{Type: bbsv1.Error_Deserialize, Message: "could not deserialize record"}
	}
	return &bbsv1.Error{Type: bbsv1.Error_UnknownError, Message: st.Message()}
}

// named returns the type of an error by its name.
func named(name string) bbsv1.Error_Type { return bbsv1.Error_Type(bbsv1.Error_Type_value[name]) }

// errorField and keepField are the fields of responses that an error fills.
const (
	errorField = 1
	keepField  = 2
)

// appendFailure appends the response of a call that failed.
func (f form) appendFailure(b []byte, err error) []byte {
	if f.bare {
		return b
	}
	content, _ := proto.Marshal(failure(err)) // its texts were checked where they came in, or are ours
	b = protowire.AppendBytes(protowire.AppendTag(b, errorField, protowire.BytesType), content)
	if f.evacuation != "" && keeps(f.evacuation, err) {
		b = protowire.AppendVarint(protowire.AppendTag(b, keepField, protowire.VarintType), 1)
	}
	return b
}

// keeps tells whether a drained cell is to keep a container although its call failed.
func keeps(on lrp.EventName, err error) bool {
	if keep, decided := refusal.KeepOf(err); decided {
		return keep
	}
	return on.KeepUndecided()
}
