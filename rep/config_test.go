package rep_test

import (
	"strings"
	"testing"

	"muster/cells/inmem"
	"muster/rep"
)

// TestValidateReportsEverything breaks many fields at once: each is named with its value.
func TestValidateReportsEverything(t *testing.T) {
	t.Parallel()
	cfg := rep.Defaults()
	cfg.Engine = inmem.NewHost(nil).Engine()
	cfg.CellID, cfg.ExternalAddress, cfg.MemoryMB, cfg.DiskMB, cfg.PortRange = "-x", "a b", "lots", "-1", "70-60"
	cfg.MaxContainers, cfg.PresenceTTL, cfg.CellIndex, cfg.ListenAddress, cfg.RepURL = 0, cfg.HeartbeatInterval, -1, "nowhere", "http://x"
	cfg.RootFSSchemes, cfg.LogLevel = nil, "loud"
	err := cfg.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`cell_id is "-x"`, `external_address is "a b"`, `memory_mb is "lots"`, `disk_mb is "-1"`, `port_range is "70-60"`,
		`max_containers is "0"`, `presence_ttl is 1s: want 2s to 1m0s`, `cell_index is "-1"`, `listen_address is "nowhere"`,
		`rep_url is "http://x"`, `rootfs_schemes is ""`, `log_level "loud"`, "tls.ca_file is empty",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing %s in\n%v", want, err)
		}
	}
}
