package server

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/internal/store"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
	"muster/bbs/task"
	"muster/internal/identity"
	bbsv1 "muster/proto/bbs/v1"
)

// DesireTask creates a task.
func (s *Server) DesireTask(ctx context.Context, r *bbsv1.DesireTaskRequest) (*bbsv1.TaskLifecycleResponse, error) {
	if r.GetTaskDefinition() == nil {
		return nil, missing("task_definition", "say what to run")
	}
	t := wire.DecodeDesireTask(r)
	if err := t.Validate(); err != nil {
		return nil, err
	}
	if err := s.store().DesireTask(ctx, t, creation(ctx, r)); err != nil {
		return nil, err
	}
	return &bbsv1.TaskLifecycleResponse{}, nil
}

// Tasks lists tasks, as far as the caller may see them.
func (s *Server) Tasks(ctx context.Context, r *bbsv1.TasksRequest) (*bbsv1.TasksResponse, error) {
	id, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	f := store.TaskFilter{Domain: lrp.Domain(r.GetDomain()), Cell: lrp.CellID(r.GetCellId())}
	a, err := list(ctx, r, listing[task.Task, *bbsv1.Task]{
		most: maxWholePage, key: func(t task.Task) string { return string(t.GUID) },
		read:   func(p store.Page) ([]task.Task, store.Mark, error) { return s.store().Tasks(ctx, f, p) },
		encode: func(t task.Task) *bbsv1.Task { return wire.EncodeTask(shown(id, t)) },
	})
	if err != nil {
		return nil, err
	}
	return &bbsv1.TasksResponse{Tasks: a.records, Revision: a.revision, NextPageToken: a.next}, nil
}

// TaskByGuid returns one task, as far as the caller may see it.
func (s *Server) TaskByGuid(ctx context.Context, r *bbsv1.TaskByGuidRequest) (*bbsv1.TaskResponse, error) {
	guid := task.GUID(r.GetTaskGuid())
	if guid == "" {
		return nil, missing("task_guid", "name the task")
	}
	id, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	t, err := s.store().Task(ctx, guid)
	switch {
	case err != nil:
		return nil, err
	case id.Role == identity.Rep && !mayReadTask(id, t):
		return nil, status.Errorf(codes.PermissionDenied, "task %s is not for cell %q", guid, id.Cell)
	case t == nil:
		return nil, &task.Refusal{GUID: guid, Event: eventGet, Why: task.NotFound}
	}
	return &bbsv1.TaskResponse{Task: wire.EncodeTask(shown(id, *t))}, nil
}

// shown returns what a caller may see of a task: the auctioneer what it places by, everybody but
// cells no image password.
func shown(id identity.ID, t task.Task) task.Task {
	switch id.Role {
	case identity.Rep:
	case identity.Auctioneer:
		t = t.Summary()
	default:
		t.Definition.ImagePassword = ""
	}
	return t
}

// applyTask reports an event; the store validates it.
func (s *Server) applyTask(ctx context.Context, ev task.Event) (*bbsv1.TaskLifecycleResponse, error) {
	if _, err := s.store().ApplyTask(ctx, ev, call(ctx)); err != nil {
		return nil, err
	}
	return &bbsv1.TaskLifecycleResponse{}, nil
}

// StartTask tells a cell whether it is the one to run a task.
func (s *Server) StartTask(ctx context.Context, r *bbsv1.StartTaskRequest) (*bbsv1.StartTaskResponse, error) {
	should, err := s.store().ApplyTask(ctx, wire.DecodeStartTask(r), call(ctx))
	if err != nil {
		return nil, err
	}
	return &bbsv1.StartTaskResponse{ShouldStart: should}, nil
}

// CompleteTask reports a task that ended.
func (s *Server) CompleteTask(ctx context.Context, r *bbsv1.CompleteTaskRequest) (*bbsv1.TaskLifecycleResponse, error) {
	return s.applyTask(ctx, wire.DecodeCompleteTask(r))
}

// CancelTask ends a task that nobody wants any more.
func (s *Server) CancelTask(ctx context.Context, r *bbsv1.TaskGuidRequest) (*bbsv1.TaskLifecycleResponse, error) {
	return s.applyTask(ctx, wire.DecodeTaskGUID(task.Cancel)(r))
}

// FailTask ends a task that cannot be run.
func (s *Server) FailTask(ctx context.Context, r *bbsv1.FailTaskRequest) (*bbsv1.TaskLifecycleResponse, error) {
	return s.applyTask(ctx, wire.DecodeFailTask(r))
}

// RejectTask reports a task that could not be placed. Which cell says so is in its certificate: the
// request does not tell.
func (s *Server) RejectTask(ctx context.Context, r *bbsv1.RejectTaskRequest) (*bbsv1.TaskLifecycleResponse, error) {
	id, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	ev := wire.DecodeRejectTask(r)
	if id.Role == identity.Rep {
		ev.Cell = lrp.CellID(id.Cell)
	}
	return s.applyTask(ctx, ev)
}

// ResolvingTask takes a completed task to tell its owner.
func (s *Server) ResolvingTask(ctx context.Context, r *bbsv1.TaskGuidRequest) (*bbsv1.TaskLifecycleResponse, error) {
	return s.applyTask(ctx, wire.DecodeTaskGUID(task.Resolve)(r))
}

// DeleteTask removes a task that has been resolved.
func (s *Server) DeleteTask(ctx context.Context, r *bbsv1.TaskGuidRequest) (*bbsv1.TaskLifecycleResponse, error) {
	return s.applyTask(ctx, wire.DecodeTaskGUID(task.Delete)(r))
}
