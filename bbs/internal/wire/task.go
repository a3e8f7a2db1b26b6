package wire

import (
	"muster/bbs/lrp"
	"muster/bbs/task"
	bbsv1 "muster/proto/bbs/v1"
)

// EncodeTask makes the message of a task.
func EncodeTask(t task.Task) *bbsv1.Task {
	return &bbsv1.Task{
		TaskGuid: string(t.GUID), Domain: string(t.Domain), TaskDefinition: EncodeTaskDefinition(t.Definition),
		State: bbsv1.Task_State(t.State), CellId: string(t.Cell),
		CreatedAt: encodeTime(t.CreatedAt), UpdatedAt: encodeTime(t.UpdatedAt), FirstCompletedAt: encodeTime(t.FirstCompletedAt),
		Result: t.Result, Failed: t.Failed, FailureReason: t.FailureReason,
		RejectionCount: t.RejectionCount, RejectionReason: t.RejectionReason,
	}
}

// DecodeTask reads a task.
func DecodeTask(m *bbsv1.Task) task.Task {
	return task.Task{
		GUID: task.GUID(m.GetTaskGuid()), Domain: lrp.Domain(m.GetDomain()), Definition: DecodeTaskDefinition(m.GetTaskDefinition()),
		State: task.State(m.GetState()), Cell: lrp.CellID(m.GetCellId()),
		CreatedAt: decodeTime(m.GetCreatedAt()), UpdatedAt: decodeTime(m.GetUpdatedAt()), FirstCompletedAt: decodeTime(m.GetFirstCompletedAt()),
		Result: m.GetResult(), Failed: m.GetFailed(), FailureReason: m.GetFailureReason(),
		RejectionCount: m.GetRejectionCount(), RejectionReason: m.GetRejectionReason(),
	}
}

// EncodeTaskDefinition makes the message of what a task runs.
func EncodeTaskDefinition(d task.Definition) *bbsv1.TaskDefinition {
	return &bbsv1.TaskDefinition{
		RootFs: d.RootFS, EnvironmentVariables: list(d.Env, encodeEnv), Action: EncodeAction(d.Action),
		MemoryMb: d.MemoryMB, DiskMb: d.DiskMB, MaxPids: d.MaxPids, CpuWeight: d.CPUWeight, Privileged: d.Privileged,
		LogSource: d.LogSource, LogGuid: d.LogGUID, MetricsGuid: d.MetricsGUID, MetricTags: values(d.MetricTags, encodeMetricTag),
		ResultFile: d.ResultFile, CompletionCallbackUrl: d.CompletionCallbackURL, Annotation: d.Annotation,
		EgressRules: list(d.EgressRules, encodeRule), CachedDependencies: list(d.CachedDependencies, encodeDependency),
		ImageLayers: list(d.ImageLayers, encodeLayer), LegacyDownloadUser: d.LegacyDownloadUser,
		TrustedSystemCertificatesPath: d.TrustedSystemCertificatesPath,
		VolumeMounts:                  list(d.VolumeMounts, encodeMount),
		VolumeMountedFiles:            list(d.VolumeMountedFiles, encodeFile),
		Network:                       encodeNetwork(d.Network), PlacementTags: d.PlacementTags,
		CertificateProperties: encodeCertificate(d.Certificate),
		ImageUsername:         d.ImageUsername, ImagePassword: d.ImagePassword, LogRateLimit: encodeLogRate(d.LogRateLimit),
	}
}

// DecodeTaskDefinition reads what a task runs.
func DecodeTaskDefinition(m *bbsv1.TaskDefinition) task.Definition {
	if m == nil {
		m = &bbsv1.TaskDefinition{}
	}
	return task.Definition{
		RootFS: m.RootFs, Env: list(m.EnvironmentVariables, decodeEnv), Action: DecodeAction(m.Action),
		MemoryMB: m.MemoryMb, DiskMB: m.DiskMb, MaxPids: m.MaxPids, CPUWeight: m.CpuWeight, Privileged: m.Privileged,
		LogSource: m.LogSource, LogGUID: m.LogGuid, MetricsGUID: m.MetricsGuid, MetricTags: values(m.MetricTags, decodeMetricTag),
		ResultFile: m.ResultFile, CompletionCallbackURL: m.CompletionCallbackUrl, Annotation: m.Annotation,
		EgressRules: list(m.EgressRules, decodeRule), CachedDependencies: list(m.CachedDependencies, decodeDependency),
		ImageLayers: list(m.ImageLayers, decodeLayer), LegacyDownloadUser: m.LegacyDownloadUser,
		TrustedSystemCertificatesPath: m.TrustedSystemCertificatesPath,
		VolumeMounts:                  list(m.VolumeMounts, decodeMount),
		VolumeMountedFiles:            list(m.VolumeMountedFiles, decodeFile),
		Network:                       sameMap(m.Network.GetProperties()), PlacementTags: same(m.PlacementTags),
		Certificate:   decodeCertificate(m.CertificateProperties),
		ImageUsername: m.ImageUsername, ImagePassword: m.ImagePassword, LogRateLimit: decodeLogRate(m.LogRateLimit),
	}
}

// The requests that report what happens to a task, one pair for each but for those that carry
// nothing but its GUID.

// EncodeDesireTask makes the request that creates a task.
func EncodeDesireTask(t task.Task) *bbsv1.DesireTaskRequest {
	return &bbsv1.DesireTaskRequest{
		TaskGuid: string(t.GUID), Domain: string(t.Domain), TaskDefinition: EncodeTaskDefinition(t.Definition),
	}
}

// DecodeDesireTask reads a task that is to be created. An absent definition is an empty one, which
// validation refuses.
func DecodeDesireTask(m *bbsv1.DesireTaskRequest) task.Task {
	return task.Task{
		GUID: task.GUID(m.GetTaskGuid()), Domain: lrp.Domain(m.GetDomain()), Definition: DecodeTaskDefinition(m.GetTaskDefinition()),
	}
}

// EncodeTaskGUID makes the request of an event that carries nothing else.
func EncodeTaskGUID(ev task.Event) *bbsv1.TaskGuidRequest {
	return &bbsv1.TaskGuidRequest{TaskGuid: string(ev.GUID)}
}

// DecodeTaskGUID returns a reader of such requests.
func DecodeTaskGUID(name task.EventName) func(*bbsv1.TaskGuidRequest) task.Event {
	return func(m *bbsv1.TaskGuidRequest) task.Event {
		return task.Event{Name: name, GUID: task.GUID(m.GetTaskGuid())}
	}
}

// EncodeStartTask makes the request of a start.
func EncodeStartTask(ev task.Event) *bbsv1.StartTaskRequest {
	return &bbsv1.StartTaskRequest{TaskGuid: string(ev.GUID), CellId: string(ev.Cell)}
}

// DecodeStartTask reads a start.
func DecodeStartTask(m *bbsv1.StartTaskRequest) task.Event {
	return task.Event{Name: task.Start, GUID: task.GUID(m.GetTaskGuid()), Cell: lrp.CellID(m.GetCellId())}
}

// EncodeCompleteTask makes the request of a completion.
func EncodeCompleteTask(ev task.Event) *bbsv1.CompleteTaskRequest {
	return &bbsv1.CompleteTaskRequest{
		TaskGuid: string(ev.GUID), CellId: string(ev.Cell), Failed: ev.Failed, FailureReason: ev.Reason, Result: ev.Result,
	}
}

// DecodeCompleteTask reads a completion.
func DecodeCompleteTask(m *bbsv1.CompleteTaskRequest) task.Event {
	return task.Event{
		Name: task.Complete, GUID: task.GUID(m.GetTaskGuid()), Cell: lrp.CellID(m.GetCellId()),
		Failed: m.GetFailed(), Reason: m.GetFailureReason(), Result: m.GetResult(),
	}
}

// EncodeFailTask makes the request that ends a task that cannot be run.
func EncodeFailTask(ev task.Event) *bbsv1.FailTaskRequest {
	return &bbsv1.FailTaskRequest{TaskGuid: string(ev.GUID), FailureReason: ev.Reason}
}

// DecodeFailTask reads that a task cannot be run.
func DecodeFailTask(m *bbsv1.FailTaskRequest) task.Event {
	return task.Event{Name: task.Fail, GUID: task.GUID(m.GetTaskGuid()), Reason: m.GetFailureReason()}
}

// EncodeRejectTask makes the request that reports a task that could not be placed.
func EncodeRejectTask(ev task.Event) *bbsv1.RejectTaskRequest {
	return &bbsv1.RejectTaskRequest{TaskGuid: string(ev.GUID), RejectionReason: ev.Reason}
}

// DecodeRejectTask reads that a task could not be placed.
func DecodeRejectTask(m *bbsv1.RejectTaskRequest) task.Event {
	return task.Event{Name: task.Reject, GUID: task.GUID(m.GetTaskGuid()), Reason: m.GetRejectionReason()}
}
