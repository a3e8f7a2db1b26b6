package wire

import (
	"muster/bbs/lrp"
	bbsv1 "muster/proto/bbs/v1"
)

// EncodeAction makes the message of an action; nil stays nil. Of several members only the first, in
// the order of their numbers, is written, as it is the only one that would be read.
func EncodeAction(a *lrp.Action) *bbsv1.Action {
	switch {
	case a == nil:
		return nil
	case a.Download != nil:
		return &bbsv1.Action{DownloadAction: encodeDownload(a.Download)}
	case a.Upload != nil:
		return &bbsv1.Action{UploadAction: encodeUpload(a.Upload)}
	case a.Run != nil:
		return &bbsv1.Action{RunAction: encodeRun(a.Run)}
	case a.Timeout != nil:
		return &bbsv1.Action{TimeoutAction: &bbsv1.TimeoutAction{
			Action: EncodeAction(a.Timeout.Action), TimeoutMs: a.Timeout.TimeoutMS, LogSource: a.Timeout.LogSource,
		}}
	case a.EmitProgress != nil:
		return &bbsv1.Action{EmitProgressAction: &bbsv1.EmitProgressAction{
			Action: EncodeAction(a.EmitProgress.Action), StartMessage: a.EmitProgress.StartMessage,
			SuccessMessage:       a.EmitProgress.SuccessMessage,
			FailureMessagePrefix: a.EmitProgress.FailureMessagePrefix, LogSource: a.EmitProgress.LogSource,
		}}
	case a.Try != nil:
		return &bbsv1.Action{TryAction: &bbsv1.TryAction{
			Action: EncodeAction(a.Try.Action), LogSource: a.Try.LogSource,
		}}
	case a.Parallel != nil:
		return &bbsv1.Action{ParallelAction: &bbsv1.ParallelAction{
			Actions: list(a.Parallel.Actions, encodeElement), LogSource: a.Parallel.LogSource,
		}}
	case a.Serial != nil:
		return &bbsv1.Action{SerialAction: &bbsv1.SerialAction{
			Actions: list(a.Serial.Actions, encodeElement), LogSource: a.Serial.LogSource,
		}}
	case a.Codependent != nil:
		return &bbsv1.Action{CodependentAction: &bbsv1.CodependentAction{
			Actions: list(a.Codependent.Actions, encodeElement), LogSource: a.Codependent.LogSource,
		}}
	default:
		return &bbsv1.Action{}
	}
}

// encodeElement is EncodeAction for elements of lists, which cannot be absent on the wire.
func encodeElement(a *lrp.Action) *bbsv1.Action {
	if a == nil {
		return &bbsv1.Action{}
	}
	return EncodeAction(a)
}

// DecodeAction reads an action; an absent one is nil. Of several members the lowest number wins.
// Validation bounds the depth; the protobuf runtime bounds it before, when it parses.
func DecodeAction(m *bbsv1.Action) *lrp.Action {
	switch {
	case m == nil:
		return nil
	case m.DownloadAction != nil:
		return &lrp.Action{Download: decodeDownload(m.DownloadAction)}
	case m.UploadAction != nil:
		return &lrp.Action{Upload: decodeUpload(m.UploadAction)}
	case m.RunAction != nil:
		return &lrp.Action{Run: decodeRun(m.RunAction)}
	case m.TimeoutAction != nil:
		return &lrp.Action{Timeout: &lrp.TimeoutAction{
			Action: DecodeAction(m.TimeoutAction.Action), TimeoutMS: m.TimeoutAction.TimeoutMs,
			LogSource: m.TimeoutAction.LogSource,
		}}
	case m.EmitProgressAction != nil:
		return &lrp.Action{EmitProgress: &lrp.EmitProgressAction{
			Action: DecodeAction(m.EmitProgressAction.Action), StartMessage: m.EmitProgressAction.StartMessage,
			SuccessMessage:       m.EmitProgressAction.SuccessMessage,
			FailureMessagePrefix: m.EmitProgressAction.FailureMessagePrefix, LogSource: m.EmitProgressAction.LogSource,
		}}
	case m.TryAction != nil:
		return &lrp.Action{Try: &lrp.TryAction{
			Action: DecodeAction(m.TryAction.Action), LogSource: m.TryAction.LogSource,
		}}
	case m.ParallelAction != nil:
		return &lrp.Action{Parallel: &lrp.ParallelAction{
			Actions: list(m.ParallelAction.Actions, DecodeAction), LogSource: m.ParallelAction.LogSource,
		}}
	case m.SerialAction != nil:
		return &lrp.Action{Serial: &lrp.SerialAction{
			Actions: list(m.SerialAction.Actions, DecodeAction), LogSource: m.SerialAction.LogSource,
		}}
	case m.CodependentAction != nil:
		return &lrp.Action{Codependent: &lrp.CodependentAction{
			Actions: list(m.CodependentAction.Actions, DecodeAction), LogSource: m.CodependentAction.LogSource,
		}}
	default:
		return &lrp.Action{}
	}
}

func encodeDownload(a *lrp.DownloadAction) *bbsv1.DownloadAction {
	return &bbsv1.DownloadAction{
		Artifact: a.Artifact, From: a.From, To: a.To, CacheKey: a.CacheKey, LogSource: a.LogSource, User: a.User,
		ChecksumAlgorithm: a.ChecksumAlgorithm, ChecksumValue: a.ChecksumValue,
	}
}

func decodeDownload(m *bbsv1.DownloadAction) *lrp.DownloadAction {
	return &lrp.DownloadAction{
		Artifact: m.Artifact, From: m.From, To: m.To, CacheKey: m.CacheKey, LogSource: m.LogSource, User: m.User,
		ChecksumAlgorithm: m.ChecksumAlgorithm, ChecksumValue: m.ChecksumValue,
	}
}

func encodeUpload(a *lrp.UploadAction) *bbsv1.UploadAction {
	return &bbsv1.UploadAction{Artifact: a.Artifact, From: a.From, To: a.To, LogSource: a.LogSource, User: a.User}
}

func decodeUpload(m *bbsv1.UploadAction) *lrp.UploadAction {
	return &lrp.UploadAction{Artifact: m.Artifact, From: m.From, To: m.To, LogSource: m.LogSource, User: m.User}
}

func encodeRun(a *lrp.RunAction) *bbsv1.RunAction {
	m := &bbsv1.RunAction{
		Path: a.Path, Args: a.Args, Dir: a.Dir, Env: list(a.Env, encodeEnv), User: a.User, LogSource: a.LogSource,
		SuppressLogOutput: a.SuppressLogOutput, VolumeMountedFiles: list(a.VolumeMountedFiles, encodeFile),
	}
	if a.Nofile != nil || a.Nproc != nil {
		m.ResourceLimits = &bbsv1.ResourceLimits{Nofile: a.Nofile, Nproc: a.Nproc}
	}
	return m
}

func decodeRun(m *bbsv1.RunAction) *lrp.RunAction {
	return &lrp.RunAction{
		Path: m.Path, Args: same(m.Args), Dir: m.Dir, Env: list(m.Env, decodeEnv), User: m.User,
		// A present but empty limits message says as little as an absent one.
		Nofile: nofile(m.ResourceLimits), Nproc: nproc(m.ResourceLimits), LogSource: m.LogSource,
		SuppressLogOutput: m.SuppressLogOutput, VolumeMountedFiles: list(m.VolumeMountedFiles, decodeFile),
	}
}

// nofile keeps presence, which the generated getter loses.
func nofile(m *bbsv1.ResourceLimits) *uint64 {
	if m == nil {
		return nil
	}
	return m.Nofile
}

func nproc(m *bbsv1.ResourceLimits) *uint64 {
	if m == nil {
		return nil
	}
	return m.Nproc
}

func encodeSidecar(s lrp.Sidecar) *bbsv1.Sidecar {
	return &bbsv1.Sidecar{Action: EncodeAction(s.Action), MemoryMb: s.MemoryMB, DiskMb: s.DiskMB}
}

func decodeSidecar(m *bbsv1.Sidecar) lrp.Sidecar {
	return lrp.Sidecar{Action: DecodeAction(m.GetAction()), MemoryMB: m.GetMemoryMb(), DiskMB: m.GetDiskMb()}
}

func encodeCheckDefinition(d *lrp.CheckDefinition) *bbsv1.CheckDefinition {
	if d == nil {
		return nil
	}
	return &bbsv1.CheckDefinition{
		Checks: list(d.Checks, encodeCheck), ReadinessChecks: list(d.ReadinessChecks, encodeCheck), LogSource: d.LogSource,
	}
}

func decodeCheckDefinition(m *bbsv1.CheckDefinition) *lrp.CheckDefinition {
	if m == nil {
		return nil
	}
	return &lrp.CheckDefinition{
		Checks: list(m.Checks, decodeCheck), ReadinessChecks: list(m.ReadinessChecks, decodeCheck), LogSource: m.LogSource,
	}
}

func encodeCheck(c lrp.Check) *bbsv1.Check {
	m := &bbsv1.Check{}
	if c.TCP != nil {
		m.TcpCheck = &bbsv1.TCPCheck{
			Port: c.TCP.Port, ConnectTimeoutMs: c.TCP.ConnectTimeoutMS, IntervalMs: c.TCP.IntervalMS,
		}
	}
	if c.HTTP != nil {
		m.HttpCheck = &bbsv1.HTTPCheck{
			Port: c.HTTP.Port, RequestTimeoutMs: c.HTTP.RequestTimeoutMS, Path: c.HTTP.Path, IntervalMs: c.HTTP.IntervalMS,
		}
	}
	return m
}

// decodeCheck keeps both members when both are set: validation refuses that.
func decodeCheck(m *bbsv1.Check) lrp.Check {
	var c lrp.Check
	if t := m.GetTcpCheck(); t != nil {
		c.TCP = &lrp.TCPCheck{Port: t.Port, ConnectTimeoutMS: t.ConnectTimeoutMs, IntervalMS: t.IntervalMs}
	}
	if h := m.GetHttpCheck(); h != nil {
		c.HTTP = &lrp.HTTPCheck{Port: h.Port, Path: h.Path, RequestTimeoutMS: h.RequestTimeoutMs, IntervalMS: h.IntervalMs}
	}
	return c
}
