package lrp

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Invalid is the answer to a request that breaks rules which need nothing but the request to check.
// It names every broken rule, not just the first, up to MaxFieldErrors. Like Refusal it is data.
type Invalid struct {
	Fields []FieldError // at least one
}

// MaxFieldErrors bounds how many fields an error names, because a request can hold any number of bad
// ones, and errors travel in trailers, which are small. Whoever corrects so many will ask again.
const MaxFieldErrors = 32

// FieldError says what is wrong with one field.
type FieldError struct {
	Field   string // as Diego names it in its own errors: clients look for it
	Problem string // the rule that is broken, with its bound, and what to do about it
	Value   string // what was given, cut if long; empty where that says nothing or is a secret
	In      string // where the field is, as a path of proto names: action.serial_action.actions[2]; empty: at the top
}

// Error lists all fields, in Diego's form and with our details.
func (e *Invalid) Error() string {
	texts := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		texts[i] = f.String()
	}
	return strings.Join(texts, ", ")
}

// String returns the error as text: "Invalid field: NAME: problem, got VALUE (in PLACE)".
func (f FieldError) String() string {
	s := fmt.Sprintf("Invalid field: %s: %s", f.Field, f.Problem)
	if f.Value != "" {
		s += ", got " + strconv.Quote(f.Value)
	}
	if f.In != "" {
		s += " (in " + f.In + ")"
	}
	return s
}

// Path returns where the field is and its name, for details of errors.
func (f FieldError) Path() string {
	if f.In == "" {
		return f.Field
	}
	return f.In + "." + f.Field
}

// maxShownBytes is how much of a bad value an error repeats.
const maxShownBytes = 64

// checker collects what is wrong with the parts of one request.
type checker struct {
	in    string // where the fields are that are checked now
	found *[]FieldError
}

// newChecker returns a checker for the fields at the top of a request.
func newChecker() checker { return checker{found: new([]FieldError)} }

// err returns everything that was found, or nil.
func (c checker) err() error {
	if len(*c.found) == 0 {
		return nil
	}
	return &Invalid{Fields: *c.found}
}

// within returns a checker for the fields of a part.
func (c checker) within(part string) checker {
	if c.in != "" {
		part = c.in + "." + part
	}
	return checker{in: part, found: c.found}
}

// each returns a checker for the fields of an element of a list.
func (c checker) each(list string, i int) checker { return c.within(fmt.Sprintf("%s[%d]", list, i)) }

// fail notes that a field breaks a rule.
func (c checker) fail(field, problem string) { c.failWith(field, problem, "") }

// failWith notes that a field breaks a rule, and the value it has.
func (c checker) failWith(field, problem, value string) {
	if len(*c.found) == MaxFieldErrors {
		return
	}
	if len(value) > maxShownBytes {
		value = strings.ToValidUTF8(value[:maxShownBytes], "") + "…"
	}
	*c.found = append(*c.found, FieldError{Field: field, Problem: problem, Value: value, In: c.in})
}

// required checks a text that must be there. No value is shown: it is empty.
func (c checker) required(field, value string) {
	if value == "" {
		c.fail(field, "must not be empty")
	}
}

// notNegative checks an amount. None is an amount; what it means is up to the cell.
func (c checker) notNegative(field string, value int32) {
	if value < 0 {
		c.failWith(field, "must be at least 0", strconv.Itoa(int(value)))
	}
}

// port checks the number of a TCP port that somebody is to reach.
func (c checker) port(field string, port uint32) {
	if port < 1 || port > maxPort {
		c.failWith(field, fmt.Sprintf("port must be 1 to %d", maxPort), strconv.Itoa(int(port)))
	}
}

// atMostBytes checks a size in bytes.
func (c checker) atMostBytes(field string, size, limit int) {
	if size > limit {
		c.failWith(field, fmt.Sprintf("must be at most %d bytes, drop %d", limit, size-limit), fmt.Sprintf("%d bytes", size))
	}
}

// text checks that PostgreSQL can store a value in a text column: an error there would come too
// late, and would hit everybody whose writes share the transaction.
func (c checker) text(field, value string) {
	switch {
	case isStorable(value):
	case !utf8.ValidString(value):
		c.failWith(field, "must be valid UTF-8", strings.ToValidUTF8(value, "\uFFFD"))
	default:
		c.failWith(field, "must not contain a NUL character", value)
	}
}

// isStorable tells whether text has nothing to say about a value.
func isStorable(value string) bool {
	return utf8.ValidString(value) && strings.IndexByte(value, 0) < 0
}

// name checks a value that is stored in a column of bounded width.
func (c checker) name(field, value string) { c.nameUpTo(field, value, MaxNameLength) }

// nameUpTo counts characters, not bytes, because the column does.
func (c checker) nameUpTo(field, value string, limit int) {
	if n := utf8.RuneCountInString(value); n > limit {
		c.failWith(field, fmt.Sprintf("must be at most %d characters, is %d", limit, n), value)
	}
	c.text(field, value)
}
