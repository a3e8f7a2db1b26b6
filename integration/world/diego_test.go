package world

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"

	"muster/integration/diego"
	"muster/internal/identity"
)

// diegoPort is where --port-base puts the door for Diego's clients.
const diegoPort = portBase + 17

// diegoClient returns a client that speaks to the BBS as to a Diego.
func (s *stack) diegoClient(t *testing.T) *diego.Client {
	t.Helper()
	config, err := identity.FilesOf(filepath.Join(s.dir, "certs"), identity.ID{Role: identity.Client}).ClientByName()
	if err != nil {
		t.Fatal(err)
	}
	c := diego.New(fmt.Sprintf("127.0.0.1:%d", diegoPort), config)
	t.Cleanup(c.HTTP.CloseIdleConnections)
	return c
}

// testDiego runs an application the way Cloud Controller does: what it asks for through Diego's routes reaches
// containers and router, and a stream tells of it.
func (s *stack) testDiego(t *testing.T) {
	const trace = "5e6f4a7b-8c9d-4e1f-a2b3-c4d5e6f70819"
	c := s.diegoClient(t).WithTrace(trace)
	do := func(path string, body diego.Message) diego.Message {
		t.Helper()
		res, err := c.Do(t.Context(), path, body)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		return res
	}
	m := diego.Message{}
	routes := func(host string) diego.Message {
		return m.Message(1, m.Text(1, "cf-router").Text(2, fmt.Sprintf(`[{"hostnames":[%q],"port":8080,"route_service_url":null,"isolation_segment":"","protocol":"http1"}]`, host)))
	}
	update := func(change diego.Message) diego.Message { return m.Text(1, "door").Message(2, change) }
	stream, err := c.Stream(t.Context(), http.MethodPost, "/v1/events/lrp_instances.r1", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()

	// It reads before it desires, and finds nothing.
	if _, err := c.Do(t.Context(), "/v1/desired_lrps/get_by_process_guid.r2", m.Text(1, "door")); err == nil {
		t.Error("it is there before it was desired")
	}
	program := m.Text(1, "/bin/hello").Message(4, m.Text(1, "PORT").Text(2, "8080")).Text(6, "app").Text(7, "APP/PROC/WEB")
	check := m.Message(1, m.Message(2, m.Number(1, 8080).Number(2, 1000).Text(3, "/healthz")))
	do("/v1/desired_lrp/desire.r2", m.Message(1, m.Text(1, "door").Text(2, "cf-apps").Text(3, "oci-archive://"+s.imageOf(t, "web")).Number(4, 1).
		Message(7, m.Message(3, program)).Number(10, 64).Number(11, 64).Numbers(14, 8080).Message(15, routes("door.localhost")).
		Text(16, "CELL").Text(17, "door").Text(18, "door").Text(19, "1.0").Number(27, 60_000).Message(33, check).
		EntryMessage(35, "source_id", m.Text(1, "door"))))
	answers(t, "door.localhost", http.StatusOK)
	cell := ""
	for cell == "" {
		ev, err := stream.Next()
		if err != nil {
			t.Fatalf("the stream ends before it runs: %v", err)
		}
		if ev.Name == "actual_lrp_instance_changed" && ev.Data.TextAt(1, 1) == "door" && ev.Data.TextAt(4, 6) == "RUNNING" {
			cell = ev.Data.TextAt(2, 2)
		}
	}
	s.logsTell(t, trace, "bbs", "auctioneer", cell)

	do("/v1/desired_lrp/update", update(m.Present(1, 2).Element(3, "2.0")))
	eventually(t, "two instances answer", func(context.Context) error {
		if seen := who(t, "door.localhost", 4); len(seen) != 2 {
			return fmt.Errorf("answers from %v", seen)
		}
		return nil
	})
	list := do("/v1/actual_lrps/list", m.Text(3, "door")).All(2)
	if len(list) != 2 || list[0].TextAt(6) != "RUNNING" || list[1].TextAt(6) != "RUNNING" || list[0].TextAt(2, 2) == list[1].TextAt(2, 2) {
		t.Errorf("the instances are %q", list)
	}

	do("/v1/desired_lrp/update", update(m.Message(2, routes("moved.localhost"))))
	answers(t, "moved.localhost", http.StatusOK)
	answers(t, "door.localhost", http.StatusNotFound)

	do("/v1/desired_lrp/remove", m.Text(1, "door"))
	answers(t, "moved.localhost", http.StatusNotFound)
	eventually(t, "the containers are gone", func(context.Context) error {
		for _, i := range list {
			left, err := filepath.Glob(filepath.Join(s.dir, "cells", "*", "containers", i.TextAt(2, 1)))
			if err != nil || len(left) > 0 {
				return fmt.Errorf("there is %v (%v)", left, err)
			}
		}
		return nil
	})

	// A task is there, and waits for a cell that runs it.
	do("/v1/tasks/desire.r2", m.Message(1, m.Text(1, "oci-archive://"+s.imageOf(t, "web")).Message(3, m.Message(3, program)).Number(4, 64).Number(5, 64)).
		Text(2, "door-task").Text(3, "cf-tasks"))
	if task := do("/v1/tasks/get_by_task_guid.r2", m.Text(1, "door-task")).At(2); task.NumberAt(7) != 1 {
		t.Errorf("the task is %q, want it PENDING", task)
	}
	do("/v1/tasks/cancel", m.Text(1, "door-task"))
	do("/v1/tasks/resolving", m.Text(1, "door-task"))
	do("/v1/tasks/delete", m.Text(1, "door-task"))
}
