package wire

import (
	"muster/bbs/lrp"
	bbsv1 "muster/proto/bbs/v1"
)

// Messages that only the store keeps, each of one part of a record.

// EncodeRoutes makes the message of the routes of a DesiredLRP; without routes it is empty.
func EncodeRoutes(routes map[string][]byte) *bbsv1.ProtoRoutes {
	return &bbsv1.ProtoRoutes{Routes: routes}
}

// EncodeMetricTags makes a DesiredLRP message that holds metric tags only.
func EncodeMetricTags(tags map[string]lrp.MetricTag) *bbsv1.DesiredLRP {
	return &bbsv1.DesiredLRP{MetricTags: values(tags, encodeMetricTag)}
}

// DecodeMetricTags reads the metric tags of a DesiredLRP message; none are nil.
func DecodeMetricTags(m *bbsv1.DesiredLRP) map[string]lrp.MetricTag {
	return values(m.GetMetricTags(), decodeMetricTag)
}

// EncodeVolumePlacement makes the message of the drivers that a DesiredLRP needs.
func EncodeVolumePlacement(drivers []string) *bbsv1.VolumePlacement {
	return &bbsv1.VolumePlacement{DriverNames: drivers}
}

// EncodeReported makes an ActualLRP message that holds only what is reported of an instance: by its cell,
// beside where it can be reached, or by the auctioneer that found none for it.
func EncodeReported(a *lrp.Actual) *bbsv1.ActualLRP {
	return &bbsv1.ActualLRP{
		ActualLrpInternalRoutes: list(a.InternalRoutes, encodeInternalRoute), MetricTags: a.MetricTags,
		PlacementExplanation: encodeExplanation(a.Explanation),
	}
}

// DecodeReported is the opposite of EncodeReported.
func DecodeReported(m *bbsv1.ActualLRP, a *lrp.Actual) {
	a.InternalRoutes, a.MetricTags = list(m.GetActualLrpInternalRoutes(), decodeInternalRoute), sameMap(m.GetMetricTags())
	a.Explanation = decodeExplanation(m.GetPlacementExplanation())
}
