package lrp

// Action is one action: exactly one member is set.
type Action struct {
	Download     *DownloadAction
	Upload       *UploadAction
	Run          *RunAction
	Timeout      *TimeoutAction
	EmitProgress *EmitProgressAction
	Try          *TryAction
	Parallel     *ParallelAction
	Serial       *SerialAction
	Codependent  *CodependentAction
}

// RunAction runs a process.
type RunAction struct {
	Path               string
	Args               []string
	Dir                string // empty: the home of the user
	Env                []EnvVar
	User               string
	Nofile             *uint64 // nil: the cell's default
	Nproc              *uint64 // deprecated; kept for clients, ignored by cells
	LogSource          string
	SuppressLogOutput  bool
	VolumeMountedFiles []File
}

// DownloadAction downloads an archive and extracts it in the container.
type DownloadAction struct {
	Artifact, From, To, CacheKey, LogSource, User string
	ChecksumAlgorithm, ChecksumValue              string
}

// UploadAction uploads one file of the container.
type UploadAction struct{ Artifact, From, To, LogSource, User string }

// TimeoutAction bounds the time of an action.
type TimeoutAction struct {
	Action    *Action
	TimeoutMS int64
	LogSource string
}

// EmitProgressAction wraps an action with log lines.
type EmitProgressAction struct {
	Action                                                        *Action
	StartMessage, SuccessMessage, FailureMessagePrefix, LogSource string
}

// TryAction runs an action and ignores its failure.
type TryAction struct {
	Action    *Action
	LogSource string
}

// ParallelAction runs actions at the same time.
type ParallelAction struct {
	Actions   []*Action
	LogSource string
}

// SerialAction runs actions one after another.
type SerialAction struct {
	Actions   []*Action
	LogSource string
}

// CodependentAction runs actions at the same time; the end of one ends all.
type CodependentAction struct {
	Actions   []*Action
	LogSource string
}
