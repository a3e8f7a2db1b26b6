package wire

import (
	"muster/bbs/lrp"
	bbsv1 "muster/proto/bbs/v1"
)

// EncodeDesired makes the message of a whole DesiredLRP. RunInfo.CreatedAt is not part of it.
func EncodeDesired(d lrp.Desired) *bbsv1.DesiredLRP {
	r := d.RunInfo
	return &bbsv1.DesiredLRP{
		ProcessGuid: string(d.Process), Domain: string(d.Domain), LogGuid: d.LogGUID,
		Instances: d.Instances, Annotation: d.Annotation, Routes: encodeRoutes(d.Routes),
		MetricTags: values(d.MetricTags, encodeMetricTag),
		RootFs:     d.RootFS, MemoryMb: d.MemoryMB, DiskMb: d.DiskMB, MaxPids: d.MaxPids,
		PlacementTags: d.PlacementTags, UpdateStrategy: bbsv1.DesiredLRP_UpdateStrategy(d.Strategy),
		ModificationTag: encodeTag(d.Tag),

		EnvironmentVariables: list(r.Env, encodeEnv),
		Setup:                EncodeAction(r.Setup), Action: EncodeAction(r.Action), Monitor: EncodeAction(r.Monitor),
		CheckDefinition: encodeCheckDefinition(r.Check), Sidecars: list(r.Sidecars, encodeSidecar),
		StartTimeoutMs: r.StartTimeoutMS, CpuWeight: r.CPUWeight, Privileged: r.Privileged, Ports: r.Ports,
		EgressRules: list(r.EgressRules, encodeRule), LogSource: r.LogSource, MetricsGuid: r.MetricsGUID,
		LogRateLimit:       encodeLogRate(r.LogRateLimit),
		CachedDependencies: list(r.CachedDependencies, encodeDependency),
		ImageLayers:        list(r.ImageLayers, encodeLayer), LegacyDownloadUser: r.LegacyDownloadUser,
		TrustedSystemCertificatesPath: r.TrustedSystemCertificatesPath,
		VolumeMounts:                  list(r.VolumeMounts, encodeMount),
		VolumeMountedFiles:            list(r.VolumeMountedFiles, encodeFile),
		Network:                       encodeNetwork(r.Network), CertificateProperties: encodeCertificate(r.Certificate),
		ImageUsername: r.ImageUsername, ImagePassword: r.ImagePassword,
	}
}

// DecodeDesired reads a whole DesiredLRP.
func DecodeDesired(m *bbsv1.DesiredLRP) lrp.Desired {
	if m == nil {
		m = &bbsv1.DesiredLRP{}
	}
	return lrp.Desired{
		Process: lrp.ProcessGUID(m.ProcessGuid), Domain: lrp.Domain(m.Domain), LogGUID: m.LogGuid,
		Instances: m.Instances, Annotation: m.Annotation, Routes: decodeRoutes(m.Routes),
		MetricTags: values(m.MetricTags, decodeMetricTag),
		RootFS:     m.RootFs, MemoryMB: m.MemoryMb, DiskMB: m.DiskMb, MaxPids: m.MaxPids,
		PlacementTags: same(m.PlacementTags), Strategy: lrp.UpdateStrategy(m.UpdateStrategy),
		Tag: decodeTag(m.ModificationTag),
		RunInfo: lrp.RunInfo{
			Env:   list(m.EnvironmentVariables, decodeEnv),
			Setup: DecodeAction(m.Setup), Action: DecodeAction(m.Action), Monitor: DecodeAction(m.Monitor),
			Check: decodeCheckDefinition(m.CheckDefinition), Sidecars: list(m.Sidecars, decodeSidecar),
			StartTimeoutMS: m.StartTimeoutMs, CPUWeight: m.CpuWeight, Privileged: m.Privileged, Ports: same(m.Ports),
			EgressRules: list(m.EgressRules, decodeRule), LogSource: m.LogSource, MetricsGUID: m.MetricsGuid,
			LogRateLimit:       decodeLogRate(m.LogRateLimit),
			CachedDependencies: list(m.CachedDependencies, decodeDependency),
			ImageLayers:        list(m.ImageLayers, decodeLayer), LegacyDownloadUser: m.LegacyDownloadUser,
			TrustedSystemCertificatesPath: m.TrustedSystemCertificatesPath,
			VolumeMounts:                  list(m.VolumeMounts, decodeMount),
			VolumeMountedFiles:            list(m.VolumeMountedFiles, decodeFile),
			Network:                       sameMap(m.Network.GetProperties()), Certificate: decodeCertificate(m.CertificateProperties),
			ImageUsername: m.ImageUsername, ImagePassword: m.ImagePassword,
		},
	}
}

// EncodeRunInfo makes the message that the store keeps of a recipe. Its key stays empty: the row
// that holds it has its own.
func EncodeRunInfo(r lrp.RunInfo) *bbsv1.DesiredLRPRunInfo {
	return &bbsv1.DesiredLRPRunInfo{
		DesiredLrpKey:        &bbsv1.DesiredLRPKey{},
		CreatedAt:            encodeTime(r.CreatedAt),
		EnvironmentVariables: list(r.Env, encodeEnv),
		Setup:                EncodeAction(r.Setup), Action: EncodeAction(r.Action), Monitor: EncodeAction(r.Monitor),
		CheckDefinition: encodeCheckDefinition(r.Check), Sidecars: list(r.Sidecars, encodeSidecar),
		StartTimeoutMs: r.StartTimeoutMS, CpuWeight: r.CPUWeight, Privileged: r.Privileged, Ports: r.Ports,
		EgressRules: list(r.EgressRules, encodeRule), LogSource: r.LogSource, MetricsGuid: r.MetricsGUID,
		LogRateLimit:       encodeLogRate(r.LogRateLimit),
		CachedDependencies: list(r.CachedDependencies, encodeDependency),
		ImageLayers:        list(r.ImageLayers, encodeLayer), LegacyDownloadUser: r.LegacyDownloadUser,
		TrustedSystemCertificatesPath: r.TrustedSystemCertificatesPath,
		VolumeMounts:                  list(r.VolumeMounts, encodeMount),
		VolumeMountedFiles:            list(r.VolumeMountedFiles, encodeFile),
		Network:                       encodeNetwork(r.Network), CertificateProperties: encodeCertificate(r.Certificate),
		ImageUsername: r.ImageUsername, ImagePassword: r.ImagePassword,
	}
}

// DecodeRunInfo reads a stored recipe.
func DecodeRunInfo(m *bbsv1.DesiredLRPRunInfo) lrp.RunInfo {
	if m == nil {
		m = &bbsv1.DesiredLRPRunInfo{}
	}
	return lrp.RunInfo{
		CreatedAt: decodeTime(m.CreatedAt),
		Env:       list(m.EnvironmentVariables, decodeEnv),
		Setup:     DecodeAction(m.Setup), Action: DecodeAction(m.Action), Monitor: DecodeAction(m.Monitor),
		Check: decodeCheckDefinition(m.CheckDefinition), Sidecars: list(m.Sidecars, decodeSidecar),
		StartTimeoutMS: m.StartTimeoutMs, CPUWeight: m.CpuWeight, Privileged: m.Privileged, Ports: same(m.Ports),
		EgressRules: list(m.EgressRules, decodeRule), LogSource: m.LogSource, MetricsGUID: m.MetricsGuid,
		LogRateLimit:       decodeLogRate(m.LogRateLimit),
		CachedDependencies: list(m.CachedDependencies, decodeDependency),
		ImageLayers:        list(m.ImageLayers, decodeLayer), LegacyDownloadUser: m.LegacyDownloadUser,
		TrustedSystemCertificatesPath: m.TrustedSystemCertificatesPath,
		VolumeMounts:                  list(m.VolumeMounts, decodeMount),
		VolumeMountedFiles:            list(m.VolumeMountedFiles, decodeFile),
		Network:                       sameMap(m.Network.GetProperties()), Certificate: decodeCertificate(m.CertificateProperties),
		ImageUsername: m.ImageUsername, ImagePassword: m.ImagePassword,
	}
}

// EncodeSchedulingInfo makes the message of a DesiredLRP without its recipe. The message has no
// metric tags: where they matter, send EncodeSummary.
func EncodeSchedulingInfo(s lrp.SchedulingInfo) *bbsv1.DesiredLRPSchedulingInfo {
	return &bbsv1.DesiredLRPSchedulingInfo{
		DesiredLrpKey: &bbsv1.DesiredLRPKey{ProcessGuid: string(s.Process), Domain: string(s.Domain), LogGuid: s.LogGUID},
		Annotation:    s.Annotation, Instances: s.Instances,
		DesiredLrpResource: &bbsv1.DesiredLRPResource{
			MemoryMb: s.MemoryMB, DiskMb: s.DiskMB, RootFs: s.RootFS, MaxPids: s.MaxPids,
		},
		Routes: &bbsv1.ProtoRoutes{Routes: s.Routes}, ModificationTag: encodeTag(s.Tag),
		VolumePlacement: &bbsv1.VolumePlacement{DriverNames: s.VolumeDrivers}, PlacementTags: s.PlacementTags,
	}
}

// DecodeSchedulingInfo reads a DesiredLRP without its recipe and metric tags.
func DecodeSchedulingInfo(m *bbsv1.DesiredLRPSchedulingInfo) lrp.SchedulingInfo {
	key, resource := m.GetDesiredLrpKey(), m.GetDesiredLrpResource()
	return lrp.SchedulingInfo{
		Process: lrp.ProcessGUID(key.GetProcessGuid()), Domain: lrp.Domain(key.GetDomain()), LogGUID: key.GetLogGuid(),
		Instances: m.GetInstances(), Annotation: m.GetAnnotation(), Routes: decodeRoutes(m.GetRoutes()),
		RootFS: resource.GetRootFs(), MemoryMB: resource.GetMemoryMb(), DiskMB: resource.GetDiskMb(),
		MaxPids: resource.GetMaxPids(), PlacementTags: same(m.GetPlacementTags()),
		VolumeDrivers: same(m.GetVolumePlacement().GetDriverNames()), Tag: decodeTag(m.GetModificationTag()),
	}
}

// EncodeSummary makes a DesiredLRP message that lacks the recipe: what events carry, and what lists
// of routes answer. Volume drivers travel as mounts that name nothing else, since the message has
// no other place for them and placement needs them.
func EncodeSummary(s lrp.SchedulingInfo) *bbsv1.DesiredLRP {
	return &bbsv1.DesiredLRP{
		ProcessGuid: string(s.Process), Domain: string(s.Domain), LogGuid: s.LogGUID,
		Instances: s.Instances, Annotation: s.Annotation, Routes: encodeRoutes(s.Routes),
		MetricTags: values(s.MetricTags, encodeMetricTag),
		RootFs:     s.RootFS, MemoryMb: s.MemoryMB, DiskMb: s.DiskMB, MaxPids: s.MaxPids,
		PlacementTags: s.PlacementTags, ModificationTag: encodeTag(s.Tag),
		VolumeMounts: list(s.VolumeDrivers, func(driver string) *bbsv1.VolumeMount {
			return &bbsv1.VolumeMount{Driver: driver}
		}),
	}
}

// DecodeSummary reads a DesiredLRP message and leaves out its recipe, if it has one.
func DecodeSummary(m *bbsv1.DesiredLRP) lrp.SchedulingInfo { return DecodeDesired(m).SchedulingInfo() }

// EncodeUpdate makes the message of an update.
func EncodeUpdate(u lrp.Update) *bbsv1.DesiredLRPUpdate {
	m := &bbsv1.DesiredLRPUpdate{
		Instances: u.Instances, Annotation: u.Annotation, MetricTags: values(u.MetricTags, encodeMetricTag),
		ImageUsername: u.ImageUsername, ImagePassword: u.ImagePassword,
	}
	if u.Routes != nil { // present and empty means no routes
		m.Routes = &bbsv1.ProtoRoutes{Routes: u.Routes}
	}
	return m
}

// DecodeUpdate reads an update. Routes that are present and empty are an empty map: none.
func DecodeUpdate(m *bbsv1.DesiredLRPUpdate) lrp.Update {
	if m == nil {
		return lrp.Update{}
	}
	u := lrp.Update{
		Instances: m.Instances, Annotation: m.Annotation, MetricTags: values(m.MetricTags, decodeMetricTag),
		ImageUsername: m.ImageUsername, ImagePassword: m.ImagePassword,
	}
	if m.Routes != nil {
		u.Routes = m.Routes.Routes
		if u.Routes == nil {
			u.Routes = map[string][]byte{}
		}
	}
	return u
}

// encodeRoutes leaves the message out when there are no routes, as Diego does.
func encodeRoutes(routes map[string][]byte) *bbsv1.ProtoRoutes {
	if len(routes) == 0 {
		return nil
	}
	return &bbsv1.ProtoRoutes{Routes: routes}
}

func decodeRoutes(m *bbsv1.ProtoRoutes) map[string][]byte { return sameMap(m.GetRoutes()) }
