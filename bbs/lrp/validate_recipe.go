package lrp

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// recipe checks how instances are to be made. Nothing of it can be changed later, so this is the only
// time that anybody looks before a cell does. What a cell must find out by itself, such as whether an
// image exists, is not asked here.
func (c checker) recipe(r RunInfo) {
	for i, v := range r.Env {
		if v.Name == "" {
			c.each("environment_variables", i).fail("name", "name cannot be blank")
		}
	}
	if r.Action == nil {
		c.fail("action", "invalid action type: an action is required")
	}
	// Each of the three is a tree of its own, and the depth counts from its root.
	c.within("setup").action(r.Setup, 1)
	c.within("action").action(r.Action, 1)
	c.within("monitor").action(r.Monitor, 1)
	for i, port := range r.Ports {
		c.port(fmt.Sprintf("ports[%d]", i), port)
	}
	if r.LogRateLimit != nil && *r.LogRateLimit < -1 {
		c.failWith("log_rate_limit_bytes_per_second", "must be at least -1, which means unlimited",
			strconv.FormatInt(*r.LogRateLimit, 10))
	}
	// The paths of these files are the cell's business; their size is ours, because every read of the
	// recipe carries them.
	size := 0
	for _, f := range r.VolumeMountedFiles {
		size += len(f.Content)
	}
	c.atMostBytes("volumeMountedFiles", size, MaxMountedFilesBytes)
	for i, rule := range r.EgressRules {
		c.each("egress_rules", i).egress(rule)
	}
	for i, d := range r.CachedDependencies {
		c.each("cached_dependencies", i).dependency(d)
	}
	c.layers(r)
	for i, m := range r.VolumeMounts {
		c.each("volume_mounts", i).mount(m)
	}
	c.credentials(r.ImageUsername, r.ImagePassword)
	if r.Check != nil {
		c.checks("checks", r.Check.Checks)
		c.checks("readiness_checks", r.Check.ReadinessChecks)
	}
	for i, s := range r.Sidecars {
		c.each("sidecars", i).sidecar(s)
	}
}

// sidecar checks a process beside the main one. It may ask for no memory or disk of its own.
func (c checker) sidecar(s Sidecar) {
	if s.Action == nil {
		c.fail("action", "invalid action type: an action is required")
	}
	c.within("action").action(s.Action, 1)
	c.notNegative("memory_mb", s.MemoryMB)
	c.notNegative("disk_mb", s.DiskMB)
}

// action checks an action that is there; depth counts from 1. Everybody who reads actions does so
// recursively (cells, clients, this), so the depth is bounded here, where it comes in.
//
// Of several members only the first in the order of the wire counts, as for all other readers.
func (c checker) action(a *Action, depth int) {
	if a == nil {
		return
	}
	if depth > MaxActionDepth {
		c.fail("action", fmt.Sprintf("actions must nest at most %d deep", MaxActionDepth))
		return
	}
	switch {
	case a.Download != nil:
		c.within("download_action").download(a.Download)
	case a.Upload != nil:
		in := c.within("upload_action")
		in.required("to", a.Upload.To)
		in.required("from", a.Upload.From)
		in.required("user", a.Upload.User)
	case a.Run != nil:
		in := c.within("run_action")
		in.required("path", a.Run.Path)
		in.required("user", a.Run.User)
	case a.Timeout != nil:
		in := c.within("timeout_action")
		in.inner(a.Timeout.Action, depth)
		if a.Timeout.TimeoutMS <= 0 {
			in.failWith("timeout_ms", "must be at least 1", strconv.FormatInt(a.Timeout.TimeoutMS, 10))
		}
	case a.EmitProgress != nil:
		c.within("emit_progress_action").inner(a.EmitProgress.Action, depth)
	case a.Try != nil:
		c.within("try_action").inner(a.Try.Action, depth)
	case a.Parallel != nil:
		c.within("parallel_action").actions(a.Parallel.Actions, depth)
	case a.Serial != nil:
		c.within("serial_action").actions(a.Serial.Actions, depth)
	case a.Codependent != nil:
		c.within("codependent_action").actions(a.Codependent.Actions, depth)
	default:
		// Diego names an empty wrapper like this, and crashes on a nested one.
		c.fail("inner-action", "one kind of action must be set")
	}
}

// inner checks the action that another one wraps. It must be there: a timeout of nothing has no
// meaning that a cell could guess.
func (c checker) inner(a *Action, depth int) {
	if a == nil {
		c.fail("action", "must be set")
		return
	}
	c.within("action").action(a, depth+1)
}

// actions checks the elements of a list of actions. An empty list would be done at once, which nobody
// who writes one can mean.
func (c checker) actions(list []*Action, depth int) {
	if len(list) == 0 {
		c.fail("actions", "must have at least one element")
	}
	for i, a := range list {
		in := c.each("actions", i)
		if a == nil {
			in.fail("inner-action", "one kind of action must be set")
			continue
		}
		in.action(a, depth+1)
	}
}

// download checks an archive to fetch. Its checksum may be absent, but not in half.
func (c checker) download(a *DownloadAction) {
	c.required("from", a.From)
	c.required("to", a.To)
	c.required("user", a.User)
	if problem := checksumProblem(a.ChecksumAlgorithm, a.ChecksumValue); problem != "" {
		c.fail("checksum", problem)
	}
}

// dependency checks a file tree that a cell shares between containers. Diego names all of its errors
// after the whole, so the problem says which member is meant.
func (c checker) dependency(d CachedDependency) {
	const field = "cached_dependency"
	if d.From == "" {
		c.fail(field, "from must not be empty")
	}
	if d.To == "" {
		c.fail(field, "to must not be empty")
	}
	if problem := checksumProblem(d.ChecksumAlgorithm, d.ChecksumValue); problem != "" {
		c.fail(field, problem)
	}
}

// checksumProblem returns what is wrong with a checksum; empty means nothing. Algorithms are those
// that a cell can compute, in any case; sha512 is not among them, unlike for image layers.
func checksumProblem(algorithm, value string) string {
	switch {
	case algorithm == "" && value == "":
		return ""
	case algorithm == "":
		return "checksum_algorithm must be given together with checksum_value"
	case value == "":
		return "checksum_value must be given together with checksum_algorithm"
	}
	switch strings.ToLower(algorithm) {
	case "md5", "sha1", "sha256":
		return ""
	}
	return fmt.Sprintf("checksum_algorithm must be md5, sha1 or sha256, got %q", algorithm)
}

// layers checks the layers on top of the root file system. An exclusive layer is unpacked inside the
// container, and so needs a user to do it.
func (c checker) layers(r RunInfo) {
	exclusive := false
	for i, l := range r.ImageLayers {
		c.each("image_layers", i).layer(l)
		exclusive = exclusive || l.Type == LayerExclusive
	}
	if exclusive && r.LegacyDownloadUser == "" {
		c.fail("legacy_download_user", "must not be empty with an EXCLUSIVE image layer")
	}
}

// layer checks one layer. The digest of an exclusive layer is required because it is the key of the
// cell's cache; that of a shared one is not, since its URL serves as well.
func (c checker) layer(l ImageLayer) {
	const field = "image_layer"
	if l.URL == "" {
		c.fail(field, "url must not be empty")
	}
	if l.DestinationPath == "" {
		c.fail(field, "destination_path must not be empty")
	}
	if l.Type != LayerShared && l.Type != LayerExclusive {
		c.fail(field, fmt.Sprintf("layer_type must be SHARED (1) or EXCLUSIVE (2), got %d", l.Type))
	}
	if l.Media != MediaTGZ && l.Media != MediaTAR && l.Media != MediaZIP {
		c.fail(field, fmt.Sprintf("media_type must be TGZ (1), TAR (2) or ZIP (3), got %d", l.Media))
	}
	hasAlgorithm := l.DigestAlgorithm == DigestSHA256 || l.DigestAlgorithm == DigestSHA512
	switch {
	case !hasAlgorithm && l.DigestAlgorithm != 0:
		c.fail(field, fmt.Sprintf("digest_algorithm must be SHA256 (1) or SHA512 (2), got %d", l.DigestAlgorithm))
	case hasAlgorithm != (l.DigestValue != ""):
		c.fail(field, "digest_algorithm and digest_value must be given together")
	case l.Type == LayerExclusive && !hasAlgorithm:
		c.fail(field, "digest_algorithm and digest_value are required for an EXCLUSIVE layer")
	}
}

// mount checks a volume. Neither device is required: some drivers need to know no more than where to
// mount. The texts are those that Diego's clients know.
func (c checker) mount(m VolumeMount) {
	const field = "volume_mount"
	if m.Driver == "" {
		c.fail(field, "invalid volume_mount driver: must not be empty")
	}
	if m.Mode != "r" && m.Mode != "rw" {
		c.failWith(field, "invalid volume_mount mode: must be r or rw", m.Mode)
	}
	if m.Shared != nil && m.Shared.VolumeID == "" {
		c.fail(field, "invalid volume_mount volume id: must not be empty")
	}
	if m.Dedicated != nil && m.Dedicated.MounterID == "" {
		c.fail(field, "invalid volume_mount mounter id: must not be empty")
	}
}

// checks checks a list of health checks. Times may be zero, which means the cell's defaults, and so
// may the path of an HTTP check.
func (c checker) checks(list string, checks []Check) {
	const field = "check_definition"
	for i, check := range checks {
		in := c.within("check_definition").each(list, i)
		switch {
		case (check.TCP == nil) == (check.HTTP == nil):
			in.fail(field, "exactly one of tcp_check and http_check must be set")
		case check.TCP != nil:
			in.port(field, check.TCP.Port)
		default:
			in.port(field, check.HTTP.Port)
		}
	}
}

// egress checks one rule about what a container may reach (bbs reference §2.4). A rule that a cell
// cannot apply must be refused here: there it could only fail the container, or be left out, which
// would open or close more than was meant.
func (c checker) egress(r EgressRule) {
	c.destinations(r.Destinations)
	switch r.Protocol {
	case "tcp", "udp":
		c.egressPorts(r)
		c.noICMP(r)
	case "icmp", "icmpv6":
		c.noPorts(r)
		if r.ICMP == nil {
			c.fail(r.Protocol+"_info", "must be set for protocol "+r.Protocol)
		}
	case "all":
		c.noPorts(r)
		c.noICMP(r)
	default:
		c.failWith("protocol", "must be tcp, udp, icmp, icmpv6 or all, in lower case", r.Protocol)
	}
}

// egressPorts checks the ports of a rule that has some: a list or a range, not both. There is no upper
// bound, as in Diego: a port that does not exist allows nothing.
func (c checker) egressPorts(r EgressRule) {
	switch {
	case len(r.Ports) == 0 && r.PortRange == nil:
		c.fail("ports", "Missing required field: ports or port_range")
	case len(r.Ports) > 0 && r.PortRange != nil:
		c.fail("ports", "Invalid: ports and port_range provided")
	case r.PortRange != nil:
		if r.PortRange.Start < 1 || r.PortRange.Start > r.PortRange.End {
			c.failWith("port_range", "start must be at least 1 and at most end",
				fmt.Sprintf("%d-%d", r.PortRange.Start, r.PortRange.End))
		}
	}
	for _, port := range r.Ports {
		if port < 1 {
			c.failWith("ports", "must be at least 1", strconv.Itoa(int(port)))
		}
	}
}

// noPorts checks that a rule about a protocol without ports names none: whoever wrote it meant
// another protocol.
func (c checker) noPorts(r EgressRule) {
	if len(r.Ports) > 0 {
		c.fail("ports", "must be absent for protocol "+r.Protocol)
	}
	if r.PortRange != nil {
		c.fail("port_range", "must be absent for protocol "+r.Protocol)
	}
}

// noICMP does the same for kinds of ICMP messages.
func (c checker) noICMP(r EgressRule) {
	if r.ICMP != nil {
		c.fail("icmp_info", "must be absent for protocol "+r.Protocol)
	}
}

// destinations checks where to. Each element may be a list by itself, because that is how security
// groups are written where they come from. The whole element is shown, not the piece: it is what
// stands in the file of whoever has to correct it.
func (c checker) destinations(list []string) {
	if len(list) == 0 {
		c.fail("destinations", "must have at least one element")
	}
	for _, element := range list {
		for _, piece := range strings.Split(element, ",") {
			if !isDestination(piece) {
				c.failWith("destinations", "must be IP addresses, CIDR blocks and ranges A-B with A at most B, joined by commas without blanks", element)
				break
			}
		}
	}
}

// isDestination tells whether a text is an address, a CIDR block or a range of addresses. A range runs
// upwards by the bytes of its ends, so one of a single address is fine. Host bits of a block may be
// set: 10.1.2.3/8 is 10.0.0.0/8.
func isDestination(s string) bool {
	if first, last, isRange := strings.Cut(s, "-"); isRange {
		from, ok1 := address(first)
		to, ok2 := address(last)
		a, b := from.As16(), to.As16()
		return ok1 && ok2 && strings.Compare(string(a[:]), string(b[:])) <= 0
	}
	if strings.Contains(s, "/") {
		_, err := netip.ParsePrefix(s)
		return err == nil
	}
	_, ok := address(s)
	return ok
}

// address parses an address without zone, since a zone means nothing on another machine.
func address(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.IPv6Unspecified(), false
	}
	return a, true
}

// credentials checks that there are both halves or none. It names the one that is missing and does not repeat the
// other, which may be the password.
func (c checker) credentials(username, password string) {
	switch {
	case username == "" && password != "":
		c.fail("image_username", "image_username and image_password must be given together")
	case username != "" && password == "":
		c.fail("image_password", "image_username and image_password must be given together")
	}
}
