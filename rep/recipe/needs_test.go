package recipe

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/bbs/lrp"
	"muster/bbs/task"
)

// TestImageLayers folds layers: shared ones come before the cached dependencies, others are downloaded before setup.
func TestImageLayers(t *testing.T) {
	t.Parallel()
	layers := []lrp.ImageLayer{
		{Name: "droplet", URL: "http://a/d", DestinationPath: "/home/vcap", Type: lrp.LayerExclusive, Media: lrp.MediaTGZ, DigestAlgorithm: lrp.DigestSHA512, DigestValue: "abc"},
		{Name: "lifecycle", URL: "http://a/l", DestinationPath: "/tmp/lifecycle/", Type: lrp.LayerShared, Media: lrp.MediaTAR, DigestAlgorithm: lrp.DigestSHA256, DigestValue: "def"},
		{URL: "http://a/z", DestinationPath: "/z", Type: lrp.LayerShared, Media: lrp.MediaZIP},
	}
	downloads := &lrp.Action{Parallel: &lrp.ParallelAction{Actions: []*lrp.Action{{Download: &lrp.DownloadAction{
		Artifact: "droplet", From: "http://a/d", To: "/home/vcap", CacheKey: "sha512:abc", User: "vcap", ChecksumAlgorithm: "sha512", ChecksumValue: "abc",
	}}}}}
	d := desired()
	d.RunInfo.ImageLayers, d.RunInfo.LegacyDownloadUser = layers, "vcap"
	d.RunInfo.CachedDependencies = []lrp.CachedDependency{{Name: "jdk", From: "http://a/jdk", To: "/jdk"}}
	if diff := cmp.Diff(downloads, actionsOf(d).Setup); diff != "" {
		t.Error(diff)
	}
	d.RunInfo.Setup = &lrp.Action{Run: &lrp.RunAction{Path: "/setup"}}
	both := &lrp.Action{Serial: &lrp.SerialAction{Actions: []*lrp.Action{downloads, d.RunInfo.Setup}}}
	if diff := cmp.Diff(both, actionsOf(d).Setup); diff != "" {
		t.Error(diff)
	}
	needs, err := NeedsOf(d)
	if diff := cmp.Diff(Needs{Dependencies: []lrp.CachedDependency{
		{Name: "lifecycle", From: "http://a/l", To: "/tmp/lifecycle", CacheKey: "sha256:def", ChecksumAlgorithm: "sha256", ChecksumValue: "def"},
		{From: "http://a/z", To: "/z", CacheKey: "http://a/z"},
		{Name: "jdk", From: "http://a/jdk", To: "/jdk", CacheKey: "http://a/jdk"},
	}}, needs); err != nil || diff != "" {
		t.Errorf("%v: %s", err, diff)
	}
	job := task.Definition{Action: d.RunInfo.Action, ImageLayers: layers, LegacyDownloadUser: "vcap"}
	spec, _, err := BuildTask(job, Subject{Instance: "guid"}, cell())
	if diff := cmp.Diff(downloads, spec.Program.Setup); err != nil || diff != "" || len(TaskTransfers(job)) != 1 {
		t.Errorf("%v: %s; transfers %v", err, diff, TaskTransfers(job))
	}
}

// TestBadPlaces refuses what cannot be mounted, naming the field.
func TestBadPlaces(t *testing.T) {
	t.Parallel()
	file := func(names ...string) (all []lrp.File) {
		for _, name := range names {
			all = append(all, lrp.File{Path: name})
		}
		return all
	}
	for want, change := range map[string]func(*lrp.RunInfo){
		`cached_dependencies[0].to "lib"`:                   func(r *lrp.RunInfo) { r.CachedDependencies = []lrp.CachedDependency{{To: "lib"}} },
		`volume_mounts[0].container_dir "/data/../proc/x"`:  func(r *lrp.RunInfo) { r.VolumeMounts = []lrp.VolumeMount{{ContainerDir: "/data/../proc/x"}} },
		`image_layers[0].destination_path "/"`:              func(r *lrp.RunInfo) { r.ImageLayers = []lrp.ImageLayer{{Type: lrp.LayerShared, DestinationPath: "/"}} },
		`trusted_system_certificates_path "/etc"`:           func(r *lrp.RunInfo) { r.TrustedSystemCertificatesPath = "/etc" },
		`volume_mounts[1].container_dir "/a/": that is the`: func(r *lrp.RunInfo) { r.VolumeMounts = []lrp.VolumeMount{{ContainerDir: "/a"}, {ContainerDir: "/a/"}} },
		`volume_mounted_files "/etc/cf-service-bindings"`: func(r *lrp.RunInfo) {
			r.VolumeMountedFiles, r.TrustedSystemCertificatesPath = file("a"), FilesDir
		},
		`volume_mounted_files[1].path "../x"`:             func(r *lrp.RunInfo) { r.VolumeMountedFiles = file("ok", "../x") },
		`volume_mounted_files[0].path "a/../../x"`:        func(r *lrp.RunInfo) { r.VolumeMountedFiles = file("a/../../x") },
		`volume_mounted_files[0].path ""`:                 func(r *lrp.RunInfo) { r.VolumeMountedFiles = file("") },
		`volume_mounted_files[0].path "a//b"`:             func(r *lrp.RunInfo) { r.VolumeMountedFiles = file("a//b") },
		`volume_mounted_files[1].path "/a": that is also`: func(r *lrp.RunInfo) { r.VolumeMountedFiles = file("a", "/a") },
		`volume_mounted_files[1].path "a/b": it is below`: func(r *lrp.RunInfo) { r.VolumeMountedFiles = file("a", "a/b") },
		`volume_mounted_files[1].path "a": that is also`:  func(r *lrp.RunInfo) { r.VolumeMountedFiles = file("a/b", "a") },
		`volume_mounted_files: 4097 of them`:              func(r *lrp.RunInfo) { r.VolumeMountedFiles = many(MaxFiles + 1) },
		`volume_mounted_files: 1048577 bytes in all`: func(r *lrp.RunInfo) {
			r.VolumeMountedFiles = []lrp.File{{Path: "a", Content: strings.Repeat("x", lrp.MaxMountedFilesBytes+1)}}
		},
		`volume_mounted_files[0] of the run action of "/app".p`: func(r *lrp.RunInfo) { r.VolumeMountedFiles = file("a"); r.Action.Run.VolumeMountedFiles = file("..") },
	} {
		d := desired()
		change(&d.RunInfo)
		if _, err := NeedsOf(d); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("want %s, got %v", want, err)
		}
	}
}

func many(n int) (all []lrp.File) {
	for i := range n {
		all = append(all, lrp.File{Path: strings.Repeat("x", i/200+1) + strings.Repeat("y", i%200+1)})
	}
	return all
}

// TestFilesOfActions adds the files of actions to those of the container.
func TestFilesOfActions(t *testing.T) {
	t.Parallel()
	d := desired()
	d.RunInfo.Action.Run.VolumeMountedFiles = []lrp.File{{Path: "/db/user", Content: "me"}, {Path: "own", Content: "1"}}
	if n, err := NeedsOf(d); err != nil || n.Files != nil {
		t.Errorf("nothing is mounted for an action alone: %+v, %v", n, err)
	}
	d.RunInfo.VolumeMountedFiles = []lrp.File{{Path: "db/user", Content: "me"}}
	n, err := NeedsOf(d)
	if diff := cmp.Diff([]lrp.File{{Path: "db/user", Content: "me"}, {Path: "own", Content: "1"}}, n.Files); err != nil || diff != "" {
		t.Errorf("%v: %s", err, diff)
	}
}
