package bbsclient

import (
	"context"
	"fmt"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"muster/bbs/internal/refusal"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
	bbsv1 "muster/proto/bbs/v1"
)

// Limits of one bulk call; a larger number of records becomes several calls.
const (
	batchRecords = 1_000
	batchBytes   = 16 << 20
)

// DesireAll creates many DesiredLRPs, each for itself: the errors are in their order, nil for those that
// were created. With a RequestID a repeated call, of the same records, creates those that are left.
func (c *Client) DesireAll(ctx context.Context, all []lrp.Desired, opts ...CallOption) []error {
	o, answers := options(opts), make([]error, 0, len(all))
	for part := 0; len(answers) < len(all); part++ {
		r := &bbsv1.BatchDesireLRPsRequest{ValidateOnly: o.validateOnly}
		if o.requestID != "" {
			r.RequestId = fmt.Sprintf("%s/%d", o.requestID, part)
		}
		size := 0
		for _, d := range all[len(answers):] {
			m := wire.EncodeDesired(d)
			if size += proto.Size(m); len(r.DesiredLrps) == batchRecords || len(r.DesiredLrps) > 0 && size > batchBytes {
				break
			}
			r.DesiredLrps = append(r.DesiredLrps, m)
		}
		answers = append(answers, c.desirePart(ctx, r)...)
	}
	return answers
}

// desirePart makes one call; when it fails as a whole, each record has its error.
func (c *Client) desirePart(ctx context.Context, r *bbsv1.BatchDesireLRPsRequest) []error {
	answers := make([]error, len(r.GetDesiredLrps()))
	res, err := c.rpc.BatchDesireLRPs(ctx, r)
	if err == nil && len(res.GetResults()) != len(answers) {
		err = fmt.Errorf("desire %d processes: %d answers", len(answers), len(res.GetResults()))
	}
	for i := range answers {
		if err != nil {
			answers[i] = refusal.FromStatus(err)
		} else {
			answers[i] = refusal.FromStatus(status.FromProto(res.GetResults()[i]).Err())
		}
	}
	return answers
}
