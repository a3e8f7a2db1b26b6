package server

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"muster/bbs/internal/store"
	"muster/bbs/lrp"
	"muster/internal/identity"
	bbsv1 "muster/proto/bbs/v1"
)

// protoFile reads a .proto file of the API.
func protoFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("../../../proto/bbs/v1/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// commentAbove returns the comment above what a pattern finds in a text; empty if it finds nothing.
func commentAbove(text, pattern string) string {
	m := regexp.MustCompile(`(?m)((?:^ *//.*\n)+)^ *` + pattern).FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	return regexp.MustCompile(`\s*\n? *// ?`).ReplaceAllString(m[1], " ")
}

// grouped writes a number as the comments do.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// The bounds that comments of the API give are those that are enforced.
func TestBoundsInComments(t *testing.T) {
	t.Parallel()
	for _, of := range []struct {
		file, message string
		fields        []string
		bounds        []int
	}{
		{"desired_lrp.proto", "DesiredLRP", []string{"process_guid", "domain", "log_guid"}, []int{lrp.MaxNameLength}},
		{"desired_lrp.proto", "DesiredLRP", []string{"root_fs"}, []int{lrp.MaxRootFSLength}},
		{"desired_lrp.proto", "DesiredLRP", []string{"instances"}, []int{lrp.MaxInstances}},
		{"desired_lrp.proto", "DesiredLRP", []string{"annotation"}, []int{lrp.MaxAnnotationBytes}},
		{"desired_lrp.proto", "DesiredLRP", []string{"routes"}, []int{lrp.MaxRoutesBytes}},
		{"desired_lrp.proto", "DesiredLRP", []string{"ports"}, []int{1, 1<<16 - 1}},
		{"desired_lrp.proto", "DesiredLRP", []string{"volume_mounted_files"}, []int{lrp.MaxMountedFilesBytes >> 20}},
		{"desired_lrp.proto", "DesiredLRPUpdate", []string{"instances"}, []int{lrp.MaxInstances}},
		{"desired_lrp.proto", "DesiredLRPUpdate", []string{"annotation"}, []int{lrp.MaxAnnotationBytes}},
		{"desired_lrp.proto", "DesiredLRPUpdate", []string{"routes"}, []int{lrp.MaxRoutesBytes}},
		{"desired_lrp.proto", "DesiredLRPsRequest", []string{"process_guids"}, []int{maxGUIDs}},
		{"desired_lrp.proto", "DesiredLRPsRequest", []string{"app_guids"}, []int{maxPrefixes}},
		{"desired_lrp.proto", "DesiredLRPsRequest", []string{"page_size"}, []int{maxWholePage}},
		{"desired_lrp.proto", "DesireLRPRequest", []string{"request_id"}, []int{store.MaxRequestIDBytes}},
		{"actual_lrp.proto", "ActualLRPKey", []string{"process_guid", "domain"}, []int{lrp.MaxNameLength}},
		{"actual_lrp.proto", "ActualLRPInstanceKey", []string{"instance_guid", "cell_id"}, []int{lrp.MaxNameLength}},
		{"actual_lrp.proto", "CrashActualLRPRequest", []string{"error_message"}, []int{lrp.MaxReasonBytes}},
		{"actual_lrp.proto", "FailActualLRPRequest", []string{"error_message"}, []int{lrp.MaxReasonBytes}},
		{"actual_lrp.proto", "ActualLRPsRequest", []string{"page_size"}, []int{maxPage}},
		{"actual_lrp.proto", "ActualLRPsByProcessGuidsRequest", []string{"process_guids"}, []int{maxGUIDs}},
		{"evacuation.proto", "EvacuateCrashedActualLRPRequest", []string{"error_message"}, []int{lrp.MaxReasonBytes}},
		{"evacuation.proto", "EvacuateRunningActualLRPRequest", []string{"availability_zone"}, []int{lrp.MaxNameLength}},
		{"task.proto", "TaskDefinition", []string{"root_fs"}, []int{lrp.MaxRootFSLength}},
		{"task.proto", "TaskDefinition", []string{"annotation"}, []int{lrp.MaxAnnotationBytes}},
		{"task.proto", "DesireTaskRequest", []string{"task_guid", "domain", "request_id"}, []int{lrp.MaxNameLength}},
		{"task.proto", "FailTaskRequest", []string{"failure_reason"}, []int{lrp.MaxReasonBytes}},
		{"task.proto", "RejectTaskRequest", []string{"rejection_reason"}, []int{lrp.MaxReasonBytes}},
		{"task.proto", "TasksRequest", []string{"page_size"}, []int{maxWholePage}},
		{"domain.proto", "UpsertDomainRequest", []string{"domain"}, []int{lrp.MaxNameLength}},
		{"bulk.proto", "BatchDesireLRPsRequest", []string{"desired_lrps"}, []int{maxBatch}},
		{"cell.proto", "HeartbeatRequest", []string{"ttl_ms"}, []int{int(minHeartbeatTTL.Milliseconds()), int(maxHeartbeatTTL.Milliseconds())}},
		{"actions.proto", "Action", nil, []int{lrp.MaxActionDepth}},
		{"service.proto", "", nil, []int{lrp.MaxFieldErrors, maxTraceBytes, int(defaultDeadline.Seconds())}},
	} {
		text := protoFile(t, of.file)
		comments := map[string]string{}
		switch {
		case of.message == "":
			comments["the service"] = commentAbove(text, "service ")
		case of.fields == nil:
			comments[of.message] = commentAbove(text, "message "+of.message+" ")
		}
		body := text[max(0, strings.Index(text, "message "+of.message+" {")):]
		for _, field := range of.fields {
			comments[of.message+"."+field] = commentAbove(body, `[\w<>, .]+ `+field+" = ")
		}
		for what, comment := range comments {
			for _, bound := range of.bounds {
				if !regexp.MustCompile(`\b` + grouped(bound) + `\b`).MatchString(comment) {
					t.Errorf("the comment of %s does not say %s:%s", what, grouped(bound), comment)
				}
			}
		}
	}
}

// callers writes a right as the comments of the calls do.
func callers(r right) string {
	if r.AnyCell && len(r.Roles) == len(identity.Roles) {
		return "everybody"
	}
	var parts []string
	for _, role := range []identity.Role{identity.Client, identity.Operator, identity.Auctioneer, identity.RouteEmitter} {
		if slices.Contains(r.Roles, role) {
			parts = append(parts, string(role))
		}
	}
	groups := []string{strings.Join(parts, ", ")}
	switch {
	case r.AnyCell:
		groups = append(groups, "any cell")
	case r.Cell != nil:
		groups = append(groups, "a cell about itself")
	}
	return strings.TrimPrefix(strings.Join(groups, "; "), "; ")
}

// The comment of each call names those who may make it, and its errors.
func TestCallersInComments(t *testing.T) {
	t.Parallel()
	text := protoFile(t, "service.proto")
	table := rights()
	desc := bbsv1.File_bbs_v1_service_proto.Services().ByName("BBSService").Methods()
	for i := range desc.Len() {
		name := string(desc.Get(i).Name())
		comment := commentAbove(text, `rpc `+name+`\(`)
		want := "Callers: " + callers(table["/"+bbsv1.BBSService_ServiceDesc.ServiceName+"/"+name]) + "."
		if !strings.Contains(comment, want) || !strings.Contains(comment, "Errors: ") {
			t.Errorf("the comment of %s lacks %q, or its errors:%s", name, want, comment)
		}
	}
}
