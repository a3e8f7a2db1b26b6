package wire

import (
	"muster/bbs/lrp"
	bbsv1 "muster/proto/bbs/v1"
)

// The parts of a recipe that are neither actions nor checks.

func encodeDependency(d lrp.CachedDependency) *bbsv1.CachedDependency {
	return &bbsv1.CachedDependency{
		Name: d.Name, From: d.From, To: d.To, CacheKey: d.CacheKey, LogSource: d.LogSource,
		ChecksumAlgorithm: d.ChecksumAlgorithm, ChecksumValue: d.ChecksumValue,
	}
}

func decodeDependency(m *bbsv1.CachedDependency) lrp.CachedDependency {
	return lrp.CachedDependency{
		Name: m.GetName(), From: m.GetFrom(), To: m.GetTo(), CacheKey: m.GetCacheKey(), LogSource: m.GetLogSource(),
		ChecksumAlgorithm: m.GetChecksumAlgorithm(), ChecksumValue: m.GetChecksumValue(),
	}
}

func encodeLayer(l lrp.ImageLayer) *bbsv1.ImageLayer {
	return &bbsv1.ImageLayer{
		Name: l.Name, Url: l.URL, DestinationPath: l.DestinationPath,
		LayerType: bbsv1.ImageLayer_Type(l.Type), MediaType: bbsv1.ImageLayer_MediaType(l.Media),
		DigestAlgorithm: bbsv1.ImageLayer_DigestAlgorithm(l.DigestAlgorithm), DigestValue: l.DigestValue,
	}
}

func decodeLayer(m *bbsv1.ImageLayer) lrp.ImageLayer {
	return lrp.ImageLayer{
		Name: m.GetName(), URL: m.GetUrl(), DestinationPath: m.GetDestinationPath(),
		Type: lrp.LayerType(m.GetLayerType()), Media: lrp.MediaType(m.GetMediaType()),
		DigestAlgorithm: lrp.DigestAlgorithm(m.GetDigestAlgorithm()), DigestValue: m.GetDigestValue(),
	}
}

func encodeMount(v lrp.VolumeMount) *bbsv1.VolumeMount {
	m := &bbsv1.VolumeMount{Driver: v.Driver, ContainerDir: v.ContainerDir, Mode: v.Mode}
	if v.Shared != nil {
		m.Shared = &bbsv1.SharedDevice{VolumeId: v.Shared.VolumeID, MountConfig: v.Shared.MountConfig}
	}
	if v.Dedicated != nil {
		m.Dedicated = &bbsv1.DedicatedDevice{
			MounterId: v.Dedicated.MounterID, MountConfig: v.Dedicated.MountConfig, DeviceConfig: v.Dedicated.DeviceConfig,
		}
	}
	return m
}

func decodeMount(m *bbsv1.VolumeMount) lrp.VolumeMount {
	v := lrp.VolumeMount{Driver: m.GetDriver(), ContainerDir: m.GetContainerDir(), Mode: m.GetMode()}
	if s := m.GetShared(); s != nil {
		v.Shared = &lrp.SharedDevice{VolumeID: s.VolumeId, MountConfig: s.MountConfig}
	}
	if d := m.GetDedicated(); d != nil {
		v.Dedicated = &lrp.DedicatedDevice{MounterID: d.MounterId, MountConfig: d.MountConfig, DeviceConfig: d.DeviceConfig}
	}
	return v
}

func encodeRule(r lrp.EgressRule) *bbsv1.SecurityGroupRule {
	m := &bbsv1.SecurityGroupRule{
		Protocol: r.Protocol, Destinations: r.Destinations, Ports: r.Ports, Log: r.Log, Annotations: r.Annotations,
	}
	if r.PortRange != nil {
		m.PortRange = &bbsv1.PortRange{Start: r.PortRange.Start, End: r.PortRange.End}
	}
	if r.ICMP != nil {
		m.IcmpInfo = &bbsv1.ICMPInfo{Type: r.ICMP.Type, Code: r.ICMP.Code}
	}
	return m
}

func decodeRule(m *bbsv1.SecurityGroupRule) lrp.EgressRule {
	r := lrp.EgressRule{
		Protocol: m.GetProtocol(), Destinations: same(m.GetDestinations()), Ports: same(m.GetPorts()),
		Log: m.GetLog(), Annotations: same(m.GetAnnotations()),
	}
	if p := m.GetPortRange(); p != nil {
		r.PortRange = &lrp.PortRange{Start: p.Start, End: p.End}
	}
	if i := m.GetIcmpInfo(); i != nil {
		r.ICMP = &lrp.ICMP{Type: i.Type, Code: i.Code}
	}
	return r
}

func encodeNetwork(properties map[string]string) *bbsv1.Network {
	if len(properties) == 0 {
		return nil
	}
	return &bbsv1.Network{Properties: properties}
}

func encodeCertificate(c *lrp.CertificateProperties) *bbsv1.CertificateProperties {
	if c == nil {
		return nil
	}
	return &bbsv1.CertificateProperties{OrganizationalUnit: c.OrganizationalUnits}
}

func decodeCertificate(m *bbsv1.CertificateProperties) *lrp.CertificateProperties {
	if m == nil {
		return nil
	}
	return &lrp.CertificateProperties{OrganizationalUnits: same(m.OrganizationalUnit)}
}

func encodeLogRate(bytesPerSecond *int64) *bbsv1.LogRateLimit {
	if bytesPerSecond == nil {
		return nil
	}
	return &bbsv1.LogRateLimit{BytesPerSecond: *bytesPerSecond}
}

func decodeLogRate(m *bbsv1.LogRateLimit) *int64 {
	if m == nil {
		return nil
	}
	return &m.BytesPerSecond
}

func encodeMetricTag(t lrp.MetricTag) *bbsv1.MetricTagValue {
	return &bbsv1.MetricTagValue{Static: t.Static, Dynamic: bbsv1.MetricTagValue_DynamicValue(t.Dynamic)}
}

// decodeMetricTag keeps both members when both are set: validation refuses that.
func decodeMetricTag(m *bbsv1.MetricTagValue) lrp.MetricTag {
	return lrp.MetricTag{Static: m.GetStatic(), Dynamic: lrp.DynamicTag(m.GetDynamic())}
}
