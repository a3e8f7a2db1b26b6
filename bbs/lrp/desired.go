package lrp

import "time"

// Desired is what should run: N instances of one recipe.
type Desired struct {
	Process ProcessGUID
	Domain  Domain
	LogGUID string

	// Instances, Annotation, Routes, MetricTags and the image credentials of RunInfo can be
	// updated; everything else needs a new process GUID.
	Instances  int32
	Annotation string
	// Routes maps a router group (cf-router, tcp-router, internal-router, diego-ssh) to raw JSON,
	// kept byte for byte.
	Routes     map[string][]byte
	MetricTags map[string]MetricTag

	RootFS        string
	MemoryMB      int32
	DiskMB        int32
	MaxPids       int32
	PlacementTags []string
	Strategy      UpdateStrategy

	RunInfo RunInfo
	Tag     ModificationTag
}

// VolumeDrivers returns the drivers of the volume mounts, once each, in the order of the mounts.
func (d Desired) VolumeDrivers() []string { return Drivers(d.RunInfo.VolumeMounts) }

// Drivers returns the drivers of some volume mounts, once each, in their order.
func Drivers(mounts []VolumeMount) []string {
	var drivers []string
	seen := map[string]bool{}
	for _, m := range mounts {
		if !seen[m.Driver] {
			seen[m.Driver] = true
			drivers = append(drivers, m.Driver)
		}
	}
	return drivers
}

// SchedulingInfo is a Desired without its recipe: what placement, routing and events need.
type SchedulingInfo struct {
	Process       ProcessGUID
	Domain        Domain
	LogGUID       string
	Instances     int32
	Annotation    string
	Routes        map[string][]byte
	MetricTags    map[string]MetricTag
	RootFS        string
	MemoryMB      int32
	DiskMB        int32
	MaxPids       int32
	PlacementTags []string
	VolumeDrivers []string
	Tag           ModificationTag
}

// SchedulingInfo returns what is left of d without its recipe. Maps and slices are shared.
func (d Desired) SchedulingInfo() SchedulingInfo {
	return SchedulingInfo{
		Process: d.Process, Domain: d.Domain, LogGUID: d.LogGUID,
		Instances: d.Instances, Annotation: d.Annotation, Routes: d.Routes, MetricTags: d.MetricTags,
		RootFS: d.RootFS, MemoryMB: d.MemoryMB, DiskMB: d.DiskMB, MaxPids: d.MaxPids,
		PlacementTags: d.PlacementTags, VolumeDrivers: d.VolumeDrivers(), Tag: d.Tag,
	}
}

// UpdateStrategy says how instances are replaced while a cell is drained.
type UpdateStrategy int32

// The strategies; the numbers go over the wire.
const (
	Rolling  UpdateStrategy = 0
	Recreate UpdateStrategy = 1
)

// MetricTag is the value of a metric tag: exactly one of the two is set.
type MetricTag struct {
	Static  string
	Dynamic DynamicTag
}

// DynamicTag is a tag value known only once an instance exists.
type DynamicTag int32

// The dynamic values; the numbers go over the wire.
const (
	NotDynamic      DynamicTag = 0
	TagIndex        DynamicTag = 1
	TagInstanceGUID DynamicTag = 2
)

// Update is what can change of a Desired. A nil member is left alone.
type Update struct {
	Instances     *int32
	Annotation    *string
	Routes        map[string][]byte    // nil: unchanged; empty: none
	MetricTags    map[string]MetricTag // empty: unchanged
	ImageUsername *string
	ImagePassword *string
}

// RunInfo is the recipe: how an instance is made.
type RunInfo struct {
	CreatedAt                     time.Time
	Env                           []EnvVar
	Setup                         *Action // runs to its end before Action
	Action                        *Action // required
	Monitor                       *Action // health check as an action; ignored with Check
	Check                         *CheckDefinition
	Sidecars                      []Sidecar
	StartTimeoutMS                int64 // 0: for ever
	CPUWeight                     uint32
	Privileged                    bool
	Ports                         []uint32
	EgressRules                   []EgressRule
	LogSource                     string
	MetricsGUID                   string
	LogRateLimit                  *int64 // bytes a second; nil or -1: unlimited; 0: no logs
	CachedDependencies            []CachedDependency
	ImageLayers                   []ImageLayer
	LegacyDownloadUser            string
	TrustedSystemCertificatesPath string
	VolumeMounts                  []VolumeMount
	VolumeMountedFiles            []File
	Network                       map[string]string
	Certificate                   *CertificateProperties
	ImageUsername                 string
	ImagePassword                 string
}

// CertificateProperties go into the instance identity certificate.
type CertificateProperties struct{ OrganizationalUnits []string }

// EnvVar is one environment variable.
type EnvVar struct{ Name, Value string }

// File is a small file given to a container.
type File struct{ Path, Content string }

// CachedDependency is a file tree that a cell downloads once and binds into containers.
type CachedDependency struct {
	Name, From, To, CacheKey, LogSource, ChecksumAlgorithm, ChecksumValue string
}

// ImageLayer is a layer on top of the root file system.
type ImageLayer struct {
	Name, URL, DestinationPath string
	Type                       LayerType
	Media                      MediaType
	DigestAlgorithm            DigestAlgorithm
	DigestValue                string
}

// LayerType, MediaType and DigestAlgorithm describe an image layer; the numbers go over the wire.
type (
	LayerType       int32
	MediaType       int32
	DigestAlgorithm int32
)

// What image layers can be.
const (
	LayerShared    LayerType = 1
	LayerExclusive LayerType = 2

	MediaTGZ MediaType = 1
	MediaTAR MediaType = 2
	MediaZIP MediaType = 3

	DigestSHA256 DigestAlgorithm = 1
	DigestSHA512 DigestAlgorithm = 2
)

// VolumeMount is a volume of a driver on the cell.
type VolumeMount struct {
	Driver, ContainerDir, Mode string
	Shared                     *SharedDevice
	Dedicated                  *DedicatedDevice
}

// SharedDevice is a volume that several containers may mount.
type SharedDevice struct{ VolumeID, MountConfig string }

// DedicatedDevice is a volume that one container mounts.
type DedicatedDevice struct{ MounterID, MountConfig, DeviceConfig string }

// EgressRule says what a container may reach.
type EgressRule struct {
	Protocol     string // tcp, udp, icmp, icmpv6, all
	Destinations []string
	Ports        []uint32
	PortRange    *PortRange
	ICMP         *ICMP
	Log          bool
	Annotations  []string
}

// PortRange is an inclusive range of ports.
type PortRange struct{ Start, End uint32 }

// ICMP says which messages; -1 means any.
type ICMP struct{ Type, Code int32 }

// Sidecar is a process beside the main one.
type Sidecar struct {
	Action   *Action
	MemoryMB int32
	DiskMB   int32
}

// CheckDefinition holds the health checks made by the cell.
type CheckDefinition struct {
	Checks          []Check // startup and liveness: all must pass
	ReadinessChecks []Check // decide whether the instance is routable
	LogSource       string
}

// Check is a TCP or an HTTP check: exactly one is set.
type Check struct {
	TCP  *TCPCheck
	HTTP *HTTPCheck
}

// TCPCheck passes when a connection opens. Zero times mean the cell's defaults.
type TCPCheck struct {
	Port                         uint32
	ConnectTimeoutMS, IntervalMS uint64
}

// HTTPCheck passes when a GET answers 200. Zero times mean the cell's defaults.
type HTTPCheck struct {
	Port                         uint32
	Path                         string
	RequestTimeoutMS, IntervalMS uint64
}
