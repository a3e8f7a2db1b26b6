package lrp

import "fmt"

// Distinct names for distinct strings, so that swapped arguments do not compile.
type (
	// ProcessGUID identifies a DesiredLRP: letters, digits, - and _.
	ProcessGUID string
	// Domain says who desires a process.
	Domain string
	// InstanceGUID identifies one attempt to fill a slot.
	InstanceGUID string
	// CellID identifies a cell.
	CellID string
)

// Slot is one of the instances that a process wants: what the rules decide about.
type Slot struct {
	Process ProcessGUID
	Index   int32 // 0 or larger
}

// String returns the slot as GUID/index.
func (s Slot) String() string { return fmt.Sprintf("%s/%d", s.Process, s.Index) }

// Key identifies an ActualLRP: the slot and, because Diego's clients send it along, the domain.
type Key struct {
	Slot
	Domain Domain
}

// InstanceKey identifies an instance. The zero value means that there is none.
type InstanceKey struct {
	Instance InstanceGUID
	Cell     CellID
}

// IsZero tells whether there is no instance.
func (k InstanceKey) IsZero() bool { return k == InstanceKey{} }

// String returns the key as instance@cell.
func (k InstanceKey) String() string {
	if k.IsZero() {
		return "nobody"
	}
	return fmt.Sprintf("%s@%s", k.Instance, k.Cell)
}

// ModificationTag orders the versions of one record.
type ModificationTag struct {
	Epoch string // random for each creation of the record
	Index uint32 // grows by one with each change
}

// SucceededBy tells whether b is a later version than t: when either epoch is empty, when the
// epochs differ, or when b's index is larger.
func (t ModificationTag) SucceededBy(b ModificationTag) bool {
	return t.Epoch == "" || b.Epoch == "" || t.Epoch != b.Epoch || b.Index > t.Index
}

// Next returns the tag of the next version.
func (t ModificationTag) Next() ModificationTag {
	return ModificationTag{Epoch: t.Epoch, Index: t.Index + 1}
}
