package lrp

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// needs says what an event must carry, beside a process GUID. It is the table of bbs reference §2.6.
type needs struct {
	index  bool // at least 0
	domain bool
	by     bool // whole instance key
	reason bool
	net    bool // an address
}

// needsOf returns what an event must carry; false for a name that is none.
func needsOf(name EventName) (n needs, known bool) {
	switch name {
	case Create, Retire:
		return needs{index: true, domain: true}, true
	case Claim:
		// Diego does not check the index of a claim either: there is no such slot to be found.
		return needs{by: true}, true
	case Start:
		return needs{index: true, domain: true, by: true, net: true}, true
	case Crash:
		return needs{index: true, domain: true, by: true}, true
	case Fail:
		return needs{index: true, domain: true, reason: true}, true
	case EvacuateRunning:
		return needs{index: true, domain: true, by: true, net: true}, true
	case EvacuateCrashed:
		// Unlike that of Crash, the reason must not be empty.
		return needs{index: true, domain: true, by: true, reason: true}, true
	case EvacuateClaimed, EvacuateStopped, RemoveEvacuating:
		return needs{index: true, domain: true, by: true}, true
	case Lose, Return, Discard:
		return needs{index: true, by: true}, true
	case Remove, Restart:
		// The domain is that of the record. Without instance key a Remove means whoever is there.
		return needs{index: true}, true
	}
	return needs{}, false
}

// Validate checks that an event carries what it must, and nothing that cannot be stored. It returns
// nil or an *Invalid. Apply asks it first.
func (ev Event) Validate() error {
	c := newChecker()
	n, known := needsOf(ev.Name)
	if !known {
		c.failWith("event", fmt.Sprintf("must be one of %v", EventNames()), string(ev.Name))
		return c.err()
	}
	c.required("process_guid", string(ev.Key.Process))
	c.name("process_guid", string(ev.Key.Process))
	c.name("domain", string(ev.Key.Domain))
	if n.index && ev.Key.Index < 0 {
		c.failWith("index", "must be at least 0", strconv.Itoa(int(ev.Key.Index)))
	}
	if n.domain {
		c.required("domain", string(ev.Key.Domain))
	}
	if n.by {
		c.required("instance_guid", string(ev.By.Instance))
		c.required("cell_id", string(ev.By.Cell))
	}
	// Widths and characters are checked even where a value is optional: a Remove with a key that no
	// record can hold would be refused anyway, but only after it was compared.
	c.name("instance_guid", string(ev.By.Instance))
	c.name("cell_id", string(ev.By.Cell))
	// The reason of a crash may be empty; that of a failed placement is all that it says.
	if n.reason {
		c.required("error_message", ev.Reason)
	}
	if ev.Explanation != nil {
		c.name("placement_explanation.closest.cell_id", string(ev.Explanation.Closest.Cell))
		c.name("placement_explanation.closest.zone", ev.Explanation.Closest.Zone)
	}
	if n.net {
		c.report(ev)
	}
	return c.err()
}

// report checks what a Start says about the instance. Only the address is required (I4): without it
// nobody could tell where RUNNING is.
func (c checker) report(ev Event) {
	c.required("address", ev.NetInfo.Address)
	c.text("address", ev.NetInfo.Address)
	c.text("instance_address", ev.NetInfo.InstanceAddress)
	c.text("instance_ipv6_address", ev.NetInfo.InstanceIPv6Address)
	c.name("availability_zone", ev.AvailabilityZone)
	for i, hostname := range ev.InternalRoutes {
		if !isStorable(hostname) {
			c.text(fmt.Sprintf("actual_lrp_internal_routes[%d]", i), hostname)
		}
	}
	for name, value := range ev.MetricTags {
		if !isStorable(name) || !isStorable(value) {
			c.metricTagTexts(ev.MetricTags)
			break
		}
	}
}

// metricTagTexts names the tags that cannot be stored, in their order.
func (c checker) metricTagTexts(tags map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		c.text("metric_tags", name)
		c.text("metric_tags", tags[name])
	}
}
