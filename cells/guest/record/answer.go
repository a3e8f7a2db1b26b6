package record

// Answer is the cell's answer to a want: <n>.json in the inbox.
type Answer struct {
	Size   int64  `json:"size"`            // of the file, in bytes
	Cached bool   `json:"cached"`          // it was not moved over the network
	Error  string `json:"error,omitempty"` // why it was not moved, for people
}
