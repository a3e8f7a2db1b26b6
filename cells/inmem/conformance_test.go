package inmem

import (
	"sync/atomic"
	"testing"

	"muster/cells/engine"
	"muster/cells/engine/enginetest"
	"muster/cells/engine/enginetest/probe"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	enginetest.Run(t, func(*testing.T) enginetest.Harness {
		const program = "/bin/probe"
		run := func(p Proc) int {
			return probe.Run(probe.Process{Args: p.Args, Signals: p.Signals, Killed: p.Killed, Stdout: p.Stdout, Stderr: p.Stderr, ReadFile: p.ReadFile, Use: p.Use,
				WriteFile: p.WriteFile,
			})
		}
		host := NewHost(map[string]Image{
			"oci-archive:///app.tar": {Programs: map[string]Program{program: run, "probe": run}, Users: []string{"app"}},
		})
		var port atomic.Uint32
		return enginetest.Harness{
			Open:   func(*testing.T) engine.Engine { return host.Engine() },
			Images: enginetest.Images{App: "oci-archive:///app.tar", Program: program, Missing: "oci-archive:///missing.tar"},
			Port:   func() uint16 { return uint16(60000 + port.Add(1)) },
			Traces: func(t *testing.T) []string {
				all, err := host.Engine().List(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				traces := []string{}
				for _, c := range all {
					traces = append(traces, string(c.ID))
				}
				return traces
			},
		}
	})
}
