package containerd

import (
	"strings"
	"testing"
)

func TestConfigurationTellsAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	bad := Config{
		Address: "x", Namespace: "a b", StateDir: "relative", ImageDir: "relative", CgroupParent: "/", Bridge: strings.Repeat("b", 16),
		Subnet: "10.0.0.1/24", DNS: []string{"ns.example"}, CNIBinDir: "/nowhere", LogLimitBytes: 1,
	}
	err := bad.Validate()
	if err == nil {
		t.Fatal("valid")
	}
	for _, field := range []string{
		"address", "namespace", "state_dir", "image_dir", "snapshotter", "runtime", "cgroup_parent", "bridge", "subnet", "dns", "cni_bin_dir", "log_limit_bytes",
	} {
		if !strings.Contains(err.Error(), field+" is ") {
			t.Errorf("%s is not named in: %v", field, err)
		}
	}
	good := Defaults()
	good.Namespace, good.StateDir, good.CgroupParent, good.Bridge, good.Subnet = "muster-cell-1", "/var/lib/x", "/muster/cell-1", "muster1", "10.254.1.0/24"
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}
