package wire

import (
	"muster/bbs/lrp"
	bbsv1 "muster/proto/bbs/v1"
)

// The requests of evacuation, one pair for each event.

// instance is what the requests have in common that say nothing but which instance is meant.
type instance interface {
	GetActualLrpKey() *bbsv1.ActualLRPKey
	GetActualLrpInstanceKey() *bbsv1.ActualLRPInstanceKey
}

// decodeInstance reads an event that says nothing else.
func decodeInstance(name lrp.EventName, m instance) lrp.Event {
	return lrp.Event{Name: name, Key: DecodeKey(m.GetActualLrpKey()), By: DecodeInstanceKey(m.GetActualLrpInstanceKey())}
}

// EncodeEvacuateClaimed makes the request of a drained cell that had claimed a slot.
func EncodeEvacuateClaimed(ev lrp.Event) *bbsv1.EvacuateClaimedActualLRPRequest {
	return &bbsv1.EvacuateClaimedActualLRPRequest{ActualLrpKey: EncodeKey(ev.Key), ActualLrpInstanceKey: EncodeInstanceKey(ev.By)}
}

// DecodeEvacuateClaimed reads that a drained cell had claimed a slot.
func DecodeEvacuateClaimed(m *bbsv1.EvacuateClaimedActualLRPRequest) lrp.Event {
	return decodeInstance(lrp.EvacuateClaimed, m)
}

// EncodeEvacuateRunning makes the request of a drained cell that runs an instance.
func EncodeEvacuateRunning(ev lrp.Event) *bbsv1.EvacuateRunningActualLRPRequest {
	return &bbsv1.EvacuateRunningActualLRPRequest{
		ActualLrpKey: EncodeKey(ev.Key), ActualLrpInstanceKey: EncodeInstanceKey(ev.By),
		ActualLrpNetInfo:        EncodeNetInfo(ev.NetInfo),
		ActualLrpInternalRoutes: list(ev.InternalRoutes, encodeInternalRoute), MetricTags: ev.MetricTags,
		Routable: &ev.Routable, AvailabilityZone: ev.AvailabilityZone,
	}
}

// DecodeEvacuateRunning reads that a drained cell runs an instance. An absent routable flag is true.
func DecodeEvacuateRunning(m *bbsv1.EvacuateRunningActualLRPRequest) lrp.Event {
	if m == nil {
		m = &bbsv1.EvacuateRunningActualLRPRequest{}
	}
	ev := decodeInstance(lrp.EvacuateRunning, m)
	ev.NetInfo = DecodeNetInfo(m.ActualLrpNetInfo)
	ev.InternalRoutes, ev.MetricTags = list(m.ActualLrpInternalRoutes, decodeInternalRoute), sameMap(m.MetricTags)
	ev.Routable, ev.AvailabilityZone = decodeRoutable(m.Routable), m.AvailabilityZone
	return ev
}

// EncodeEvacuateStopped makes the request of a drained cell whose instance was stopped.
func EncodeEvacuateStopped(ev lrp.Event) *bbsv1.EvacuateStoppedActualLRPRequest {
	return &bbsv1.EvacuateStoppedActualLRPRequest{ActualLrpKey: EncodeKey(ev.Key), ActualLrpInstanceKey: EncodeInstanceKey(ev.By)}
}

// DecodeEvacuateStopped reads that an instance of a drained cell was stopped.
func DecodeEvacuateStopped(m *bbsv1.EvacuateStoppedActualLRPRequest) lrp.Event {
	return decodeInstance(lrp.EvacuateStopped, m)
}

// EncodeEvacuateCrashed makes the request of a drained cell whose instance ended by itself.
func EncodeEvacuateCrashed(ev lrp.Event) *bbsv1.EvacuateCrashedActualLRPRequest {
	return &bbsv1.EvacuateCrashedActualLRPRequest{
		ActualLrpKey: EncodeKey(ev.Key), ActualLrpInstanceKey: EncodeInstanceKey(ev.By), ErrorMessage: ev.Reason,
	}
}

// DecodeEvacuateCrashed reads that an instance of a drained cell ended by itself.
func DecodeEvacuateCrashed(m *bbsv1.EvacuateCrashedActualLRPRequest) lrp.Event {
	ev := decodeInstance(lrp.EvacuateCrashed, m)
	ev.Reason = m.GetErrorMessage()
	return ev
}

// EncodeRemoveEvacuating makes the request of a drained cell that gives an instance up.
func EncodeRemoveEvacuating(ev lrp.Event) *bbsv1.RemoveEvacuatingActualLRPRequest {
	return &bbsv1.RemoveEvacuatingActualLRPRequest{ActualLrpKey: EncodeKey(ev.Key), ActualLrpInstanceKey: EncodeInstanceKey(ev.By)}
}

// DecodeRemoveEvacuating reads that a drained cell gives an instance up.
func DecodeRemoveEvacuating(m *bbsv1.RemoveEvacuatingActualLRPRequest) lrp.Event {
	return decodeInstance(lrp.RemoveEvacuating, m)
}
