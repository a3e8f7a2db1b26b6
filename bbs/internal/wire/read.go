package wire

import (
	"unicode/utf8"

	bbsv1 "muster/proto/bbs/v1"
)

// ReadStart reads the request that comes most often, and is the largest of those that do, as
// proto.Unmarshal would: at a fraction of its price, because all texts are parts of one. It returns
// false, and leaves the message half filled, when there is anything unusual about the bytes;
// proto.Unmarshal knows what that means.
func ReadStart(bytes string, m *bbsv1.StartActualLRPRequest) bool {
	r := reader{rest: bytes}
	for r.more() {
		switch r.byte() {
		case textTag(1):
			r.once(m.ActualLrpKey != nil)
			m.ActualLrpKey = r.key()
		case textTag(2):
			r.once(m.ActualLrpInstanceKey != nil)
			m.ActualLrpInstanceKey = r.instanceKey()
		case textTag(3):
			r.once(m.ActualLrpNetInfo != nil)
			m.ActualLrpNetInfo = r.netInfo()
		case textTag(4):
			m.ActualLrpInternalRoutes = append(m.ActualLrpInternalRoutes, r.route())
		case textTag(5):
			if m.MetricTags == nil {
				m.MetricTags = make(map[string]string, usualTags)
			}
			name, value := r.tag()
			m.MetricTags[name] = value
		case numberTag(6):
			routable := r.number() != 0
			m.Routable = &routable
		case textTag(7):
			m.AvailabilityZone = r.text()
		default:
			r.bad = true
		}
	}
	return !r.bad
}

// usualTags is how many metric tags an instance has, about.
const usualTags = 12

// textTag and numberTag are what precedes the value of a field with a number up to 15.
func textTag(field byte) byte   { return field<<3 | 2 }
func numberTag(field byte) byte { return field << 3 }

// reader takes a message apart. What is bad stays so, and ends it.
type reader struct {
	rest string
	bad  bool
}

func (r *reader) more() bool { return r.rest != "" && !r.bad }

// once is told whether a field that can be there once was there before.
func (r *reader) once(before bool) { r.bad = r.bad || before }

func (r *reader) byte() byte {
	if r.rest == "" {
		r.bad = true
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *reader) number() (n uint64) {
	for shift := 0; shift < 64; shift += 7 {
		b := r.byte()
		n |= uint64(b&0x7f) << shift
		switch {
		case shift == 63 && b > 1: // more than 64 bits
		case b < 0x80:
			return n
		}
	}
	r.bad = true
	return 0
}

// part returns the bytes of a text or of a message.
func (r *reader) part() string {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.bad = true
	}
	if r.bad {
		return ""
	}
	p := r.rest[:n]
	r.rest = r.rest[n:]
	return p
}

func (r *reader) text() string {
	s := r.part()
	r.bad = r.bad || !utf8.ValidString(s)
	return s
}

// message returns a reader of a message that is a field of this one; join it when it is read.
func (r *reader) message() reader { return reader{rest: r.part()} }

func (r *reader) join(in reader) { r.bad = r.bad || in.bad }

func (r *reader) key() *bbsv1.ActualLRPKey {
	m := &bbsv1.ActualLRPKey{}
	in := r.message()
	for in.more() {
		switch in.byte() {
		case textTag(1):
			m.ProcessGuid = in.text()
		case numberTag(2):
			m.Index = int32(in.number())
		case textTag(3):
			m.Domain = in.text()
		default:
			in.bad = true
		}
	}
	r.join(in)
	return m
}

func (r *reader) instanceKey() *bbsv1.ActualLRPInstanceKey {
	m := &bbsv1.ActualLRPInstanceKey{}
	in := r.message()
	for in.more() {
		switch in.byte() {
		case textTag(1):
			m.InstanceGuid = in.text()
		case textTag(2):
			m.CellId = in.text()
		default:
			in.bad = true
		}
	}
	r.join(in)
	return m
}

func (r *reader) netInfo() *bbsv1.ActualLRPNetInfo {
	m := &bbsv1.ActualLRPNetInfo{}
	in := r.message()
	for in.more() {
		switch in.byte() {
		case textTag(1):
			m.Address = in.text()
		case textTag(2):
			m.Ports = append(m.Ports, in.ports())
		case textTag(3):
			m.InstanceAddress = in.text()
		case numberTag(4):
			m.PreferredAddress = bbsv1.ActualLRPNetInfo_PreferredAddress(in.number())
		case textTag(5):
			m.InstanceIpv6Address = in.text()
		default:
			in.bad = true
		}
	}
	r.join(in)
	return m
}

func (r *reader) ports() *bbsv1.PortMapping {
	m := &bbsv1.PortMapping{}
	in := r.message()
	for in.more() {
		switch in.byte() {
		case numberTag(1):
			m.ContainerPort = uint32(in.number())
		case numberTag(2):
			m.HostPort = uint32(in.number())
		case numberTag(3):
			m.ContainerTlsProxyPort = uint32(in.number())
		case numberTag(4):
			m.HostTlsProxyPort = uint32(in.number())
		default:
			in.bad = true
		}
	}
	r.join(in)
	return m
}

func (r *reader) route() *bbsv1.ActualLRPInternalRoute {
	m := &bbsv1.ActualLRPInternalRoute{}
	in := r.message()
	for in.more() {
		in.bad = in.byte() != textTag(1)
		m.Hostname = in.text()
	}
	r.join(in)
	return m
}

// tag is an entry of a map of texts.
func (r *reader) tag() (name, value string) {
	in := r.message()
	for in.more() {
		switch in.byte() {
		case textTag(1):
			name = in.text()
		case textTag(2):
			value = in.text()
		default:
			in.bad = true
		}
	}
	r.join(in)
	return name, value
}
