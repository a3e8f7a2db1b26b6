package lrp

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"muster/bbs/lrp/cfroute"
)

// Bounds of what may be desired. Those that Diego has are Diego's (bbs reference §2).
const (
	MaxAnnotationBytes   = 10_240  // of the annotation
	MaxRoutesBytes       = 131_072 // of the values of all routes together, keys not counted
	MaxMountedFilesBytes = 1 << 20 // of the contents of all volume-mounted files together
	MaxNameLength        = 255     // characters of GUIDs, domains and the like
	MaxRootFSLength      = 1024    // characters of the root file system's URL
	// MaxInstances bounds what one request makes the BBS create. Diego has no bound.
	MaxInstances = 100_000
	// MaxActionDepth bounds how deeply actions nest, since everybody reads them recursively.
	MaxActionDepth = 64
	maxPort        = 65_535
)

// Validate checks everything about a Desired that needs nothing else to check. It returns nil or an
// *Invalid that names every field that breaks a rule.
func (d Desired) Validate() error {
	c := newChecker()
	// In the order in which a record is usually written, which is also that of the errors.
	c.processGUID(d.Process)
	c.required("domain", string(d.Domain))
	c.name("domain", string(d.Domain))
	c.name("log_guid", d.LogGUID)
	c.rootFS(d.RootFS)
	c.instances(d.Instances)
	c.notNegative("memory_mb", d.MemoryMB)
	c.notNegative("disk_mb", d.DiskMB)
	c.notNegative("max_pids", d.MaxPids)
	c.annotation(d.Annotation)
	c.routes(d.Routes)
	c.routePorts(d.Routes, d.RunInfo.Ports)
	for i, tag := range d.PlacementTags {
		c.text(fmt.Sprintf("placement_tags[%d]", i), tag)
	}
	if len(d.MetricTags) == 0 {
		c.fail("metric_tags", `must have at least one entry, for example "source_id"`)
	}
	c.metricTags(d.MetricTags)
	c.metricsGUID(d)
	c.recipe(d.RunInfo)
	return c.err()
}

// Validate checks what can be checked of an update alone. ValidateFor checks the rest.
func (u Update) Validate() error {
	c := newChecker()
	c.update(u)
	return c.err()
}

// ValidateFor checks an update of d, which is valid: the update alone, and that its routes fit the
// ports of d.
func (u Update) ValidateFor(d Desired) error {
	c := newChecker()
	c.update(u)
	c.routePorts(u.Routes, d.RunInfo.Ports)
	return c.err()
}

// update checks the members that are set. Zero values are values here: scaling to zero and clearing
// the annotation are what clients do every day.
func (c checker) update(u Update) {
	if u.Instances != nil {
		c.instances(*u.Instances)
	}
	if u.Annotation != nil {
		c.annotation(*u.Annotation)
	}
	c.routes(u.Routes)
	c.metricTags(u.MetricTags)
	switch {
	case u.ImageUsername != nil && u.ImagePassword == nil:
		c.fail("image_password", "must be given together with image_username")
	case u.ImageUsername == nil && u.ImagePassword != nil:
		c.fail("image_username", "must be given together with image_password")
	case u.ImageUsername != nil:
		c.credentials(*u.ImageUsername, *u.ImagePassword)
	}
}

// processGUID checks the name of a process.
func (c checker) processGUID(p ProcessGUID) { c.guid("process_guid", string(p)) }

// guid checks one of the two names that clients may choose freely, those of processes and tasks: they
// end up in URLs and paths.
func (c checker) guid(field, guid string) {
	const problem = "must be one or more letters, digits, - and _"
	if guid == "" {
		c.fail(field, problem)
		return
	}
	for _, r := range guid {
		if !isLetter(r) && !isDigit(r) && r != '-' && r != '_' {
			c.failWith(field, problem, strings.ToValidUTF8(guid, "\uFFFD"))
			return
		}
	}
	c.name(field, guid)
}

// rootFS checks that the root file system is a URL with a scheme, by which cells are chosen. What
// follows the scheme is for the cell to judge.
func (c checker) rootFS(url string) {
	if url == "" {
		c.fail("rootfs", "must not be empty: give a URL such as docker://HOST/REPOSITORY#TAG")
		return
	}
	scheme, _, found := strings.Cut(url, ":")
	valid := found && scheme != "" && isLetter(rune(scheme[0]))
	for _, r := range scheme {
		valid = valid && (isLetter(r) || isDigit(r) || r == '+' || r == '-' || r == '.')
	}
	if !valid {
		c.failWith("rootfs", "must be a URL with a scheme, such as docker://HOST/REPOSITORY#TAG", strings.ToValidUTF8(url, "\uFFFD"))
	}
	c.nameUpTo("rootfs", url, MaxRootFSLength)
}

// instances checks a wish for instances. None is fine: it keeps the recipe for later.
func (c checker) instances(n int32) {
	c.notNegative("instances", n)
	if n > MaxInstances {
		c.failWith("instances", fmt.Sprintf("must be at most %d", MaxInstances), strconv.Itoa(int(n)))
	}
}

// annotation checks a text of the client's own. Its size counts in bytes, not characters: that is what
// it costs in every list.
func (c checker) annotation(text string) {
	c.atMostBytes("annotation", len(text), MaxAnnotationBytes)
	c.text("annotation", text)
}

// routes checks what can be checked of routes alone. Of the router groups only HTTP is read; the
// others are none of the BBS's business.
func (c checker) routes(routes map[string][]byte) {
	size := 0
	for _, group := range slices.Sorted(maps.Keys(routes)) {
		size += len(routes[group])
		c.text("routes", group)
	}
	c.atMostBytes("routes", size, MaxRoutesBytes)
	if _, err := cfroute.FromRoutes(routes); err != nil {
		c.fail("routes", err.Error())
	}
}

// routePorts checks that every HTTP route goes to a port that the container opens: any other would
// never get a packet, and whoever wrote it would look for the reason everywhere else.
func (c checker) routePorts(routes map[string][]byte, ports []uint32) {
	list, err := cfroute.FromRoutes(routes)
	if err != nil {
		return // named by routes
	}
	for i, r := range list {
		if !slices.Contains(ports, r.Port) {
			c.failWith("routes", fmt.Sprintf(
				"%s route %d goes to port %d, which is not in ports %v: add the port to ports or change the route",
				cfroute.Group, i, r.Port, ports), strings.Join(r.Hostnames, " "))
		}
	}
}

// metricTags checks the values of tags, in the order of their names, so that equal requests get equal
// answers.
func (c checker) metricTags(tags map[string]MetricTag) {
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		tag := tags[name]
		c.text("metric_tags", name)
		c.text("metric_tags", tag.Static)
		switch {
		case tag.Dynamic < NotDynamic || tag.Dynamic > TagInstanceGUID:
			c.failWith("dynamic", fmt.Sprintf("metric_tags %q: must be INDEX or INSTANCE_GUID", name), strconv.Itoa(int(tag.Dynamic)))
		case (tag.Static == "") == (tag.Dynamic == NotDynamic):
			c.failWith("metric_tags", "exactly one of static and dynamic must be set", name)
		}
	}
}

// metricsGUID checks the older of two ways to say where metrics belong against the newer.
func (c checker) metricsGUID(d Desired) {
	guid := d.RunInfo.MetricsGUID
	if guid != "" && d.MetricTags["source_id"].Static != guid {
		c.failWith("metrics_guid", `source_id should match metrics_guid: set metric_tags["source_id"] to the same text`, guid)
	}
}

// Letters and digits of ASCII only: what is legal in a process GUID or a scheme is so everywhere.

func isLetter(r rune) bool { return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' }
func isDigit(r rune) bool  { return '0' <= r && r <= '9' }
