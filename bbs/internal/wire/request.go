package wire

import (
	"muster/bbs/lrp"
	bbsv1 "muster/proto/bbs/v1"
)

// The requests that report an event, one pair for each. A request carries no epoch: the server
// draws it. Claim and Remove carry no domain either; the rules take it from the record.

// EncodeClaim makes the request of a claim.
func EncodeClaim(ev lrp.Event) *bbsv1.ClaimActualLRPRequest {
	return &bbsv1.ClaimActualLRPRequest{
		ProcessGuid: string(ev.Key.Process), Index: ev.Key.Index, ActualLrpInstanceKey: EncodeInstanceKey(ev.By),
	}
}

// DecodeClaim reads a claim.
func DecodeClaim(m *bbsv1.ClaimActualLRPRequest) lrp.Event {
	return lrp.Event{
		Name: lrp.Claim, Key: slotKey(m.GetProcessGuid(), m.GetIndex()),
		By: DecodeInstanceKey(m.GetActualLrpInstanceKey()),
	}
}

// EncodeStart makes the request of a start.
func EncodeStart(ev lrp.Event) *bbsv1.StartActualLRPRequest {
	return &bbsv1.StartActualLRPRequest{
		ActualLrpKey: EncodeKey(ev.Key), ActualLrpInstanceKey: EncodeInstanceKey(ev.By),
		ActualLrpNetInfo:        EncodeNetInfo(ev.NetInfo),
		ActualLrpInternalRoutes: list(ev.InternalRoutes, encodeInternalRoute), MetricTags: ev.MetricTags,
		Routable: &ev.Routable, AvailabilityZone: ev.AvailabilityZone,
	}
}

// DecodeStart reads a start. An absent routable flag is true.
func DecodeStart(m *bbsv1.StartActualLRPRequest) lrp.Event {
	if m == nil {
		m = &bbsv1.StartActualLRPRequest{}
	}
	return lrp.Event{
		Name: lrp.Start, Key: DecodeKey(m.ActualLrpKey), By: DecodeInstanceKey(m.ActualLrpInstanceKey),
		NetInfo:        DecodeNetInfo(m.ActualLrpNetInfo),
		InternalRoutes: list(m.ActualLrpInternalRoutes, decodeInternalRoute), MetricTags: sameMap(m.MetricTags),
		Routable: decodeRoutable(m.Routable), AvailabilityZone: m.AvailabilityZone,
	}
}

// EncodeCrash makes the request of a crash.
func EncodeCrash(ev lrp.Event) *bbsv1.CrashActualLRPRequest {
	return &bbsv1.CrashActualLRPRequest{
		ActualLrpKey: EncodeKey(ev.Key), ActualLrpInstanceKey: EncodeInstanceKey(ev.By), ErrorMessage: ev.Reason,
	}
}

// DecodeCrash reads a crash.
func DecodeCrash(m *bbsv1.CrashActualLRPRequest) lrp.Event {
	return lrp.Event{
		Name: lrp.Crash, Key: DecodeKey(m.GetActualLrpKey()), By: DecodeInstanceKey(m.GetActualLrpInstanceKey()),
		Reason: m.GetErrorMessage(),
	}
}

// EncodeFail makes the request that reports a slot that could not be placed.
func EncodeFail(ev lrp.Event) *bbsv1.FailActualLRPRequest {
	return &bbsv1.FailActualLRPRequest{
		ActualLrpKey: EncodeKey(ev.Key), ErrorMessage: ev.Reason, PlacementExplanation: encodeExplanation(ev.Explanation),
	}
}

// DecodeFail reads a failed placement.
func DecodeFail(m *bbsv1.FailActualLRPRequest) lrp.Event {
	return lrp.Event{
		Name: lrp.Fail, Key: DecodeKey(m.GetActualLrpKey()), Reason: m.GetErrorMessage(),
		Explanation: decodeExplanation(m.GetPlacementExplanation()),
	}
}

// EncodeRetire makes the request to stop the instance of a slot.
func EncodeRetire(ev lrp.Event) *bbsv1.RetireActualLRPRequest {
	return &bbsv1.RetireActualLRPRequest{ActualLrpKey: EncodeKey(ev.Key)}
}

// DecodeRetire reads a request to stop the instance of a slot.
func DecodeRetire(m *bbsv1.RetireActualLRPRequest) lrp.Event {
	return lrp.Event{Name: lrp.Retire, Key: DecodeKey(m.GetActualLrpKey())}
}

// EncodeRemove makes the request of a removal. A zero instance key, which matches any instance, is
// left out.
func EncodeRemove(ev lrp.Event) *bbsv1.RemoveActualLRPRequest {
	m := &bbsv1.RemoveActualLRPRequest{ProcessGuid: string(ev.Key.Process), Index: ev.Key.Index}
	if !ev.By.IsZero() {
		m.ActualLrpInstanceKey = EncodeInstanceKey(ev.By)
	}
	return m
}

// DecodeRemove reads a removal.
func DecodeRemove(m *bbsv1.RemoveActualLRPRequest) lrp.Event {
	return lrp.Event{
		Name: lrp.Remove, Key: slotKey(m.GetProcessGuid(), m.GetIndex()),
		By: DecodeInstanceKey(m.GetActualLrpInstanceKey()),
	}
}

// slotKey is the key of requests that carry no domain.
func slotKey(process string, index int32) lrp.Key {
	return lrp.Key{Slot: lrp.Slot{Process: lrp.ProcessGUID(process), Index: index}}
}
