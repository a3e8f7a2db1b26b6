package door

import (
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"muster/bbs/internal/server"
	"muster/bbs/lrp"
	bbsv1 "muster/proto/bbs/v1"
)

// What older revisions of routes take and answer, made from what the server does. Messages of answers are
// this call's own and are changed in place; the maps in them may be shared.

// startWithoutReport reads a start of a cell that knows no internal routes and metric tags.
func startWithoutReport(body []byte, request proto.Message) error {
	server.Read(body, request)
	r := request.(*bbsv1.StartActualLRPRequest)
	r.ActualLrpInternalRoutes, r.MetricTags = nil, nil
	return nil
}

// evacuationWithoutReport is startWithoutReport for an instance that a drained cell runs.
func evacuationWithoutReport(body []byte, request proto.Message) error {
	server.Read(body, request)
	r := request.(*bbsv1.EvacuateRunningActualLRPRequest)
	r.ActualLrpInternalRoutes, r.MetricTags = nil, nil
	return nil
}

// groupsOfProcess reads which process's groups are asked for.
func groupsOfProcess(body []byte, request proto.Message) error {
	var m bbsv1.ActualLRPGroupsByProcessGuidRequest
	server.Read(body, &m)
	return ask(request, &m, &bbsv1.ActualLRPsRequest{ProcessGuid: m.GetProcessGuid()})
}

// groupOfSlot reads which slot's group is asked for.
func groupOfSlot(body []byte, request proto.Message) error {
	var m bbsv1.ActualLRPGroupByProcessGuidAndIndexRequest
	server.Read(body, &m)
	return ask(request, &m, &bbsv1.ActualLRPsRequest{ProcessGuid: m.GetProcessGuid(), Index: &m.Index})
}

// ask fills a list request with what an older one asks for, or with what is wrong with that one.
func ask(request, older proto.Message, filter *bbsv1.ActualLRPsRequest) error {
	mark := older.ProtoReflect().GetUnknown()
	if filter.ProcessGuid == "" && len(mark) == 0 { // all of them is another route
		return &lrp.Invalid{Fields: []lrp.FieldError{{Field: "process_guid", Problem: "is required: name the process"}}}
	}
	proto.Merge(request, filter)
	request.ProtoReflect().SetUnknown(mark)
	return nil
}

// groups answers instances by slot. They come in the order of their slots.
func groups(_, response proto.Message) (proto.Message, error) {
	m := &bbsv1.ActualLRPGroupsResponse{}
	var last *bbsv1.ActualLRPKey
	for _, a := range response.(*bbsv1.ActualLRPsResponse).GetActualLrps() {
		if last == nil || !proto.Equal(last, a.GetActualLrpKey()) {
			m.ActualLrpGroups = append(m.ActualLrpGroups, &bbsv1.ActualLRPGroup{})
			last = a.GetActualLrpKey()
		}
		join(m.ActualLrpGroups[len(m.ActualLrpGroups)-1], a)
	}
	return m, nil
}

// oneGroup answers the group of a slot.
func oneGroup(request, response proto.Message) (proto.Message, error) {
	m, err := groups(request, response)
	if err != nil {
		return nil, err
	}
	r := request.(*bbsv1.ActualLRPsRequest)
	list := m.(*bbsv1.ActualLRPGroupsResponse).GetActualLrpGroups()
	if len(list) == 0 {
		slot := lrp.Slot{Process: lrp.ProcessGUID(r.GetProcessGuid()), Index: r.GetIndex()}
		return nil, &lrp.Refusal{Slot: slot, Event: "get", Why: lrp.NotFound}
	}
	return &bbsv1.ActualLRPGroupResponse{ActualLrpGroup: list[0]}, nil
}

// join puts an instance into the group of its slot. Of the ordinary and the suspect instance there is
// place for one.
func join(g *bbsv1.ActualLRPGroup, a *bbsv1.ActualLRP) {
	switch {
	case a.GetPresence() == bbsv1.ActualLRP_EVACUATING:
		g.Evacuating = a
	case g.Instance == nil || outranks(a, g.Instance):
		g.Instance = a
	}
}

// outranks tells whether an instance takes the place of the other one, of which one is suspect.
func outranks(a, other *bbsv1.ActualLRP) bool {
	state, otherState := lrp.State(a.GetState()), lrp.State(other.GetState())
	if a.GetPresence() == bbsv1.ActualLRP_ORDINARY {
		return state == lrp.Running || state == lrp.Claimed && otherState != lrp.Running && otherState != lrp.Claimed
	}
	return otherState != lrp.Running && (state == lrp.Running || state == lrp.Claimed)
}

// withBothNames fills in where metrics belong, which whole records say in two ways.
func withBothNames(_, response proto.Message) (proto.Message, error) {
	eachDesired(response, bothNames)
	return response, nil
}

// withoutLayers is withBothNames for clients that know no image layers: those become downloads.
func withoutLayers(_, response proto.Message) (proto.Message, error) {
	eachDesired(response, func(d *bbsv1.DesiredLRP) {
		bothNames(d)
		desiredWithoutLayers(d)
	})
	switch m := response.(type) {
	case *bbsv1.TasksResponse:
		for _, t := range m.GetTasks() {
			taskWithoutLayers(t.GetTaskDefinition())
		}
	case *bbsv1.TaskResponse:
		taskWithoutLayers(m.GetTask().GetTaskDefinition())
	}
	return response, nil
}

// eachDesired visits the DesiredLRPs of a response.
func eachDesired(response proto.Message, visit func(*bbsv1.DesiredLRP)) {
	switch m := response.(type) {
	case *bbsv1.DesiredLRPsResponse:
		for _, d := range m.GetDesiredLrps() {
			visit(d)
		}
	case *bbsv1.DesiredLRPResponse:
		visit(m.GetDesiredLrp())
	}
}

// sourceTag is the metric tag that says what metrics_guid says.
const sourceTag = "source_id"

func bothNames(d *bbsv1.DesiredLRP) {
	tag, tagged := d.MetricTags[sourceTag]
	switch {
	case tagged && d.MetricsGuid == "":
		d.MetricsGuid = tag.GetStatic()
	case !tagged && d.MetricsGuid != "":
		tags := map[string]*bbsv1.MetricTagValue{sourceTag: {Static: d.MetricsGuid}}
		maps.Copy(tags, d.MetricTags)
		d.MetricTags = tags
	}
}

func desiredWithoutLayers(d *bbsv1.DesiredLRP) {
	d.CachedDependencies = slices.Concat(sharedLayers(d.ImageLayers), d.CachedDependencies)
	if downloads := ownLayers(d.ImageLayers, d.LegacyDownloadUser); downloads != nil {
		d.Setup = before(downloads, d.Setup)
	}
	d.ImageLayers = nil
}

func taskWithoutLayers(t *bbsv1.TaskDefinition) {
	if t == nil {
		return
	}
	t.CachedDependencies = slices.Concat(sharedLayers(t.ImageLayers), t.CachedDependencies)
	if downloads := ownLayers(t.ImageLayers, t.LegacyDownloadUser); downloads != nil {
		t.Action = before(downloads, t.Action)
	}
	t.ImageLayers = nil
}

// before is an action with another one before it, which may be nil.
func before(first, then *bbsv1.Action) *bbsv1.Action {
	if then == nil {
		return first
	}
	return &bbsv1.Action{SerialAction: &bbsv1.SerialAction{Actions: []*bbsv1.Action{first, then}}}
}

// sharedLayers are the layers that several containers use, as dependencies.
func sharedLayers(layers []*bbsv1.ImageLayer) []*bbsv1.CachedDependency {
	var list []*bbsv1.CachedDependency
	for _, l := range layers {
		if l.GetLayerType() != bbsv1.ImageLayer_SHARED {
			continue
		}
		dep := &bbsv1.CachedDependency{Name: l.Name, From: l.Url, To: l.DestinationPath, ChecksumAlgorithm: algorithm(l), ChecksumValue: l.DigestValue, CacheKey: l.Url}
		if l.DigestValue != "" {
			dep.CacheKey = digestKey(l)
		}
		list = append(list, dep)
	}
	return list
}

// ownLayers are the layers that one container uses, as downloads at once; nil: there are none.
func ownLayers(layers []*bbsv1.ImageLayer, user string) *bbsv1.Action {
	parallel := &bbsv1.ParallelAction{}
	for _, l := range layers {
		if l.GetLayerType() != bbsv1.ImageLayer_EXCLUSIVE {
			continue
		}
		parallel.Actions = append(parallel.Actions, &bbsv1.Action{DownloadAction: &bbsv1.DownloadAction{
			Artifact: l.Name, From: l.Url, To: l.DestinationPath, CacheKey: digestKey(l), User: user,
			ChecksumAlgorithm: algorithm(l), ChecksumValue: l.DigestValue,
		}})
	}
	if len(parallel.Actions) == 0 {
		return nil
	}
	return &bbsv1.Action{ParallelAction: parallel}
}

// algorithm is the name of the algorithm of a layer's digest; empty when there is none.
func algorithm(l *bbsv1.ImageLayer) string {
	if l.GetDigestAlgorithm() == bbsv1.ImageLayer_DigestAlgorithmInvalid {
		return ""
	}
	return strings.ToLower(l.GetDigestAlgorithm().String())
}

func digestKey(l *bbsv1.ImageLayer) string { return algorithm(l) + ":" + l.GetDigestValue() }
