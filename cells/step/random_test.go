package step_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"muster/bbs/lrp"
	"muster/cells/step"
)

const killWait = time.Second // of package step

// tree draws an action.
func tree(t *rapid.T, depth int) *lrp.Action {
	kinds := []string{"run", "run", "run", "serial", "parallel", "codependent", "try", "timeout", "emit"}
	if depth == 0 {
		kinds = kinds[:1]
	}
	inner := func() *lrp.Action { return tree(t, depth-1) }
	several := func() (all []*lrp.Action) {
		for range rapid.IntRange(1, 3).Draw(t, "members") {
			all = append(all, inner())
		}
		return all
	}
	switch rapid.SampledFrom(kinds).Draw(t, "kind") {
	case "serial":
		return serial(several()...)
	case "parallel":
		return parallel(several()...)
	case "codependent":
		return codependent(several()...)
	case "try":
		return try(inner())
	case "timeout":
		return timeout(time.Duration(rapid.IntRange(1, 20).Draw(t, "timeout"))*time.Second, inner())
	case "emit":
		return emit(inner())
	}
	return run(rapid.SampledFrom([]string{
		fmt.Sprintf("/for %ds %d", rapid.IntRange(0, 9).Draw(t, "seconds"), rapid.IntRange(0, 2).Draw(t, "status")),
		"/for 3s 0", "/for 200h 0", "/stubborn", "/polite 2s 0", "/missing",
	}).Draw(t, "process"))
}

// model says how an action without codependents, timeouts and endless processes ends when it is let be.
func model(a *lrp.Action) (took time.Duration, texts []string) {
	switch {
	case a.Run != nil:
		if a.Run.Path == "/missing" {
			return 0, []string{`program "/missing" is not in the image`}
		}
		if a.Run.Args[1] != "0" {
			texts = []string{"LOG: Exited with status " + a.Run.Args[1]}
		}
		return duration(a.Run.Args[0]), texts
	case a.Serial != nil:
		for _, inner := range a.Serial.Actions {
			t, texts := model(inner)
			if took += t; texts != nil {
				return took, texts
			}
		}
	case a.Parallel != nil:
		for _, inner := range a.Parallel.Actions {
			t, more := model(inner)
			took, texts = max(took, t), append(texts, more...)
		}
	case a.Try != nil:
		took, _ = model(a.Try.Action)
	case a.EmitProgress != nil:
		return model(a.EmitProgress.Action)
	}
	return took, texts
}

// TestRandomTrees plays random trees to their end, or to their interrupt.
func TestRandomTrees(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		a := tree(rt, 3)
		interrupt := time.Duration(rapid.IntRange(1, 100_000).Draw(rt, "interrupt after ms")) * time.Millisecond
		modelled := true
		step.Visit(a, func(a *lrp.Action) {
			if a.Codependent != nil || a.Timeout != nil || a.Run != nil && a.Run.Path != "/missing" && (a.Run.Path != "/for" || a.Run.Args[0] == "200h") {
				modelled = false
			}
		})
		synctest.Test(t, func(t *testing.T) {
			const graceful = 7 * time.Second
			got := play(t, step.Program{Action: a, Graceful: graceful, LogBytes: -1}, interrupt, nil)
			if got.Took > interrupt+graceful+killWait {
				t.Errorf("it ends %v after the interrupt", got.Took-interrupt)
			}
			if got.Events != "be" && got.Events != "bre" {
				t.Errorf("events %q", got.Events)
			}
			for _, hidden := range []string{"cancelled", "exceeded graceful shutdown interval"} {
				if strings.Contains(got.Result.Reason, hidden) && got.Result.Reason != hidden {
					t.Errorf("reason %q", got.Result.Reason)
				}
			}
			if a.Try != nil && got.Result.Failed || a.Codependent != nil && !got.Result.Failed {
				t.Errorf("result %+v", got.Result)
			}
			if !modelled {
				return
			}
			took, texts := model(a)
			if took >= interrupt {
				return // it is interrupted, or just about
			}
			if want := strings.Join(texts, "; "); got.Took != took || got.Result.Reason != want {
				t.Errorf("it ends after %v with %q, want %v and %q", got.Took, got.Result.Reason, took, want)
			}
		})
		if t.Failed() {
			rt.Fatalf("failed with interrupt %v", interrupt)
		}
	})
}
