package recipe

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"muster/bbs/lrp"
	"muster/cells"
)

// Names of the labels on a container. Those of the slot are for people, too.
const (
	labelProcess  = "muster.process-guid"
	labelIndex    = "muster.index"
	labelDomain   = "muster.domain"
	labelInstance = "muster.instance-guid"
	labelTask     = "muster.task-guid" // of a task, which has no process and index
	// labelPlan, with a number behind it, holds a piece of the plan's JSON.
	labelPlan = "muster.plan."
)

const (
	// planPiece is the longest piece of a plan, in bytes; a label holds 4,096 with its key.
	planPiece = 4000
	// maxPlanPieces bounds a plan.
	maxPlanPieces = 64
)

// Labels returns the plan as labels of a container.
func (p Plan) Labels() (map[string]string, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("write plan: %w", err)
	}
	if len(text) > planPiece*maxPlanPieces {
		return nil, fmt.Errorf("check_definition, metric_tags and placement_tags together take %d bytes, at most %d fit on a container: shorten them",
			len(text), planPiece*maxPlanPieces)
	}
	labels := map[string]string{labelInstance: string(p.Instance)}
	if p.Task.GUID != "" {
		labels[labelTask], labels[labelDomain] = string(p.Task.GUID), string(p.Task.Domain)
	} else {
		labels[labelProcess], labels[labelIndex] = string(p.Key.Process), strconv.Itoa(int(p.Key.Index))
		labels[labelDomain] = string(p.Key.Domain)
	}
	for i := 0; len(text) > 0; i++ {
		n := min(planPiece, len(text))
		labels[labelPlan+strconv.Itoa(i)] = string(text[:n])
		text = text[n:]
	}
	return labels, nil
}

// ParsePlan reads a plan from the labels of a container.
func ParsePlan(labels map[string]string) (Plan, error) {
	var text strings.Builder
	for i := 0; ; i++ {
		piece, ok := labels[labelPlan+strconv.Itoa(i)]
		if !ok {
			break
		}
		text.WriteString(piece)
	}
	var p Plan
	if err := json.Unmarshal([]byte(text.String()), &p); err != nil {
		return Plan{}, fmt.Errorf("read labels %s*: %w", labelPlan, err)
	}
	if p.Instance = lrp.InstanceGUID(labels[labelInstance]); p.Instance == "" {
		return Plan{}, fmt.Errorf("label %s is empty", labelInstance)
	}
	domain := lrp.Domain(labels[labelDomain])
	if guid := labels[labelTask]; guid != "" {
		p.Task = cells.TaskKey{GUID: cells.TaskGUID(guid), Domain: domain}
		return p, nil
	}
	index, err := strconv.ParseInt(labels[labelIndex], 10, 32)
	if err != nil {
		return Plan{}, fmt.Errorf("read label %s: %w", labelIndex, err)
	}
	p.Key = lrp.Key{Slot: lrp.Slot{Process: lrp.ProcessGUID(labels[labelProcess]), Index: int32(index)}, Domain: domain}
	if p.Key.Process == "" {
		return Plan{}, fmt.Errorf("labels %s and %s are empty", labelProcess, labelTask)
	}
	return p, nil
}
