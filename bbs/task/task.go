package task

import (
	"fmt"
	"time"

	"muster/bbs/lrp"
)

// GUID identifies a task, across all domains: letters, digits, - and _.
type GUID string

// State is the state of a task; the numbers go over the wire.
type State int32

// The states of a task.
const (
	Invalid   State = 0 // no task
	Pending   State = 1 // wanted, no cell has started it
	Running   State = 2 // a cell runs it
	Completed State = 3 // it ended, one way or the other
	Resolving State = 4 // whoever wanted it is being told
)

// String returns the name of the state as Diego writes it in its errors.
func (s State) String() string {
	switch s {
	case Invalid:
		return "Invalid"
	case Pending:
		return "Pending"
	case Running:
		return "Running"
	case Completed:
		return "Completed"
	case Resolving:
		return "Resolving"
	default:
		return fmt.Sprintf("State(%d)", int32(s))
	}
}

// Task is something to run once.
type Task struct {
	GUID       GUID
	Domain     lrp.Domain
	Definition Definition

	State            State
	Cell             lrp.CellID // that runs it; empty unless RUNNING
	CreatedAt        time.Time
	UpdatedAt        time.Time // of the last change; being kicked is none
	FirstCompletedAt time.Time // when it ended; zero: not yet

	Result        string // what it left in its result file; empty if it failed
	Failed        bool
	FailureReason string

	RejectionCount  int32 // how often it could not be placed
	RejectionReason string
}

// Definition is what a task runs. It never changes.
type Definition struct {
	RootFS                        string
	Env                           []lrp.EnvVar
	Action                        *lrp.Action // required
	MemoryMB                      int32
	DiskMB                        int32
	MaxPids                       int32
	CPUWeight                     uint32
	Privileged                    bool
	LogSource                     string
	LogGUID                       string
	MetricsGUID                   string
	MetricTags                    map[string]lrp.MetricTag
	ResultFile                    string // path in the container; empty: no result
	CompletionCallbackURL         string // is told when the task is completed; empty: nobody
	Annotation                    string
	EgressRules                   []lrp.EgressRule
	CachedDependencies            []lrp.CachedDependency
	ImageLayers                   []lrp.ImageLayer
	LegacyDownloadUser            string
	TrustedSystemCertificatesPath string
	VolumeMounts                  []lrp.VolumeMount
	VolumeMountedFiles            []lrp.File
	Network                       map[string]string
	PlacementTags                 []string
	Certificate                   *lrp.CertificateProperties
	ImageUsername                 string
	ImagePassword                 string
	LogRateLimit                  *int64 // bytes a second; nil or -1: unlimited; 0: no logs
}

// Summary returns the task without what only its cell needs, for events: what is left of the
// definition is RootFS, the resources, MaxPids, PlacementTags, the drivers of VolumeMounts, LogGUID,
// MetricsGUID, Annotation and CompletionCallbackURL.
func (t Task) Summary() Task {
	d := t.Definition
	t.Definition = Definition{
		RootFS: d.RootFS, MemoryMB: d.MemoryMB, DiskMB: d.DiskMB, MaxPids: d.MaxPids, PlacementTags: d.PlacementTags,
		LogGUID: d.LogGUID, MetricsGUID: d.MetricsGUID, Annotation: d.Annotation, CompletionCallbackURL: d.CompletionCallbackURL,
	}
	for _, m := range d.VolumeMounts {
		t.Definition.VolumeMounts = append(t.Definition.VolumeMounts, lrp.VolumeMount{Driver: m.Driver})
	}
	return t
}
