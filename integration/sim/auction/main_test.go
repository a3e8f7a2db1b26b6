package main

import (
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"muster/auctioneer/auction"
)

// Every scenario ends with a report and a picture that is XML, and says the same again.
func TestScenarios(t *testing.T) {
	t.Parallel()
	o := options{scenario: "all", weights: auction.Weights{Starting: 0.25}, seed: 1, dir: t.TempDir()}
	var first, second strings.Builder
	if err := run(o, &first); err != nil {
		t.Fatal(err)
	}
	if err := run(o, &second); err != nil {
		t.Fatal(err)
	}
	if first.String() != second.String() {
		t.Error("two runs say different things")
	}
	for name := range scenarios {
		text, err := os.ReadFile(filepath.Join(o.dir, name+".svg"))
		if err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(strings.NewReader(string(text)))
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	for _, want := range []string{"placed     51, refused 31", "then moved 38", "31: insufficient resources: memory"} {
		if !strings.Contains(first.String(), want) {
			t.Errorf("no %q in the reports", want)
		}
	}
}

func TestRefusesWhatIsNoScenario(t *testing.T) {
	t.Parallel()
	if err := run(options{scenario: "warm-start", dir: t.TempDir()}, io.Discard); err == nil || !strings.Contains(err.Error(), "cold-start") {
		t.Errorf("%v", err)
	}
	if err := run(options{scenario: "zones", weights: auction.Weights{Starting: -1}, dir: t.TempDir()}, io.Discard); err == nil {
		t.Error("a negative weight is accepted")
	}
}
