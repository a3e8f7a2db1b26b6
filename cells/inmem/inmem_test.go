package inmem

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"muster/bbs/lrp"
	"muster/cells/engine"
	"muster/cells/step"
)

func spec(id engine.ID) engine.Spec {
	return engine.Spec{ID: id, RootFS: "docker:///app", Program: step.Program{
		Action: &lrp.Action{Run: &lrp.RunAction{Path: "/app"}}, Graceful: time.Hour,
	}}
}

// In a synctest bubble a day of containers takes no time, and nothing is left running at its end.
func TestVirtualTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		host := NewHost(map[string]Image{"*": {Programs: map[string]Program{"*": After(24*time.Hour, 9)}, Takes: time.Hour}})
		e := host.Engine()
		began := time.Now()
		if _, err := e.Create(t.Context(), spec("a")); err != nil {
			t.Fatal(err)
		}
		if err := e.Start(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		exit, err := e.Wait(t.Context(), "a")
		if err != nil || exit.Code != 9 || exit.At.Sub(began) != 25*time.Hour {
			t.Errorf("exit %+v after %v, %v", exit, exit.At.Sub(began), err)
		}
	})
}

func TestCreateGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := NewHost(map[string]Image{"*": {Programs: map[string]Program{"*": Forever()}, Takes: time.Hour}}).Engine()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := e.Create(ctx, spec("a")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if all, _ := e.List(t.Context()); len(all) != 0 {
			t.Errorf("left: %+v", all)
		}
	})
}

func TestScriptedFaults(t *testing.T) {
	t.Parallel()
	host := NewHost(map[string]Image{"docker:///app": {Programs: map[string]Program{"/app": UntilSignal(0)}}})
	e := host.Engine()
	full := fmt.Errorf("disk: %w", engine.ErrNoSpace)
	host.SetImage("docker:///full", Image{Err: full})
	refused := spec("full")
	refused.RootFS = "docker:///full"
	if _, err := e.Create(t.Context(), refused); !errors.Is(err, engine.ErrNoSpace) {
		t.Errorf("got %v", err)
	}
	down := errors.New("down")
	host.SetPingError(down)
	if err := e.Ping(t.Context()); !errors.Is(err, down) {
		t.Errorf("got %v", err)
	}
	if err := host.Leave("half", map[string]string{"a": "b"}); err != nil {
		t.Fatal(err)
	}
	if all, _ := e.List(t.Context()); len(all) != 1 || all[0].Status != engine.Partial || all[0].Labels["a"] != "b" {
		t.Errorf("listed: %+v", all)
	}
	if err := e.Destroy(t.Context(), "half"); err != nil {
		t.Error(err)
	}
}

func TestLostContainer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		host := NewHost(map[string]Image{"*": {Programs: map[string]Program{"*": Forever()}}})
		e := host.Engine()
		if _, err := e.Create(t.Context(), spec("a")); err != nil {
			t.Fatal(err)
		}
		if err := e.Start(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // until its process runs
		if err := e.Kill(t.Context(), "a", syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if all, _ := e.List(t.Context()); len(all) != 1 || all[0].Status != engine.Running {
			t.Errorf("SIGTERM ended it: %+v", all)
		}
		if !host.Lose("a") || host.Lose("a") {
			t.Error("a container is lost once")
		}
		if _, err := e.Wait(t.Context(), "a"); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
}
