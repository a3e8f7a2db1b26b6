package door

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Lists of the server that do not fit into a message over gRPC are asked for in pages. Clients here know
// none, and their responses may be of any length, so the door asks, and joins the pages: of two encoded
// messages, one behind the other, a list is both lists.

const (
	// pageRecords is how many records are asked for at a time; the server's own limits make it fewer.
	pageRecords = 10_000
	// maxListBytes is the largest list that is answered: about a million records, and more than clients can
	// bear. Up: more memory for one call; down: installations of that size get no list.
	maxListBytes = 1 << 30
)

// tooLarge tells whether a call failed for the size of its answer, and there are pages of it.
func tooLarge(err error, request proto.Message) bool {
	return status.Code(err) == codes.ResourceExhausted && request != nil && pageFields(request).size != nil
}

// fields are the fields of a message that ask for pages; nil: it has none.
type fields struct{ size, token protoreflect.FieldDescriptor }

func pageFields(request proto.Message) fields {
	all := request.ProtoReflect().Descriptor().Fields()
	return fields{all.ByName("page_size"), all.ByName("page_token")}
}

// inPages asks for a list page by page and answers all of them.
func (c *callRoute) inPages(ctx context.Context, buf *buffer, list proto.Message) ([]byte, error) {
	out, token := buf.out[:0], ""
	var whole proto.Message // of a route of another form, whose parts may not begin and end with a page
	for {
		request := proto.Clone(list)
		f := pageFields(request)
		request.ProtoReflect().Set(f.size, protoreflect.ValueOfInt32(pageRecords))
		request.ProtoReflect().Set(f.token, protoreflect.ValueOfString(token))
		page, err := c.call(ctx, func(m proto.Message) error { proto.Merge(m, request); return nil })
		if err != nil {
			return nil, err
		}
		next := page.ProtoReflect().Descriptor().Fields().ByName("next_page_token")
		token = page.ProtoReflect().Get(next).String()
		page.ProtoReflect().Clear(next)
		size := 0
		switch {
		case c.form.answer == nil:
			if out, err = (proto.MarshalOptions{}).MarshalAppend(out, page); err != nil {
				return nil, err
			}
			size = len(out)
		case whole == nil:
			whole, size = page, proto.Size(page)
		default:
			proto.Merge(whole, page)
			size = proto.Size(whole)
		}
		switch {
		case size > maxListBytes:
			return nil, status.Errorf(codes.ResourceExhausted, "the list is larger than %d bytes: ask for less", maxListBytes)
		case token != "":
			continue
		case whole == nil:
			return out, nil
		}
		if whole, err = c.form.answer(list, whole); err != nil {
			return nil, err
		}
		return proto.MarshalOptions{}.MarshalAppend(out, whole)
	}
}
