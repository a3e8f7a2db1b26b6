package http1

// Key names a header field the router has business with.
type Key uint8

// The keys. Other is every field that is only passed on.
const (
	Other Key = iota
	Host
	ContentLength
	TransferEncoding
	Connection
	ProxyConnection
	KeepAlive
	ProxyAuthenticate
	ProxyAuthorization
	TE
	Trailer
	Upgrade
	Expect
	IdempotencyKey
	Referer
	UserAgent
	XForwardedFor
	XForwardedProto
	XForwardedClientCert
	XRequestStart
	XVcapRequestID
	XCFApplicationID
	XCFInstanceID
	XCFInstanceIndex
	XCFRouterError
	B3
)

// KeyOf returns the key of a field name, in any case.
func KeyOf(name []byte) Key {
	switch len(name) {
	case 2:
		return pick2(name, "te", TE, "b3", B3)
	case 4:
		return pick(name, "host", Host)
	case 6:
		return pick(name, "expect", Expect)
	case 7:
		if k := pick2(name, "trailer", Trailer, "upgrade", Upgrade); k != Other {
			return k
		}
		return pick(name, "referer", Referer)
	case 10:
		if k := pick2(name, "connection", Connection, "keep-alive", KeepAlive); k != Other {
			return k
		}
		return pick(name, "user-agent", UserAgent)
	case 11:
		return pick(name, "x-b3-spanid", B3)
	case 12:
		return pick(name, "x-b3-traceid", B3)
	case 14:
		return pick(name, "content-length", ContentLength)
	case 15:
		return length15(name)
	case 16:
		return pick2(name, "proxy-connection", ProxyConnection, "x-cf-routererror", XCFRouterError)
	case 17:
		return length17(name)
	case 18:
		if k := pick2(name, "x-cf-applicationid", XCFApplicationID, "x-cf-instanceindex", XCFInstanceIndex); k != Other {
			return k
		}
		return pick(name, "proxy-authenticate", ProxyAuthenticate)
	case 19:
		return pick(name, "proxy-authorization", ProxyAuthorization)
	case 23:
		return pick(name, "x-forwarded-client-cert", XForwardedClientCert)
	}
	return Other
}

func length15(name []byte) Key {
	if k := pick2(name, "x-forwarded-for", XForwardedFor, "x-request-start", XRequestStart); k != Other {
		return k
	}
	return pick2(name, "x-cf-instanceid", XCFInstanceID, "idempotency-key", IdempotencyKey)
}

func length17(name []byte) Key {
	if k := pick2(name, "transfer-encoding", TransferEncoding, "x-forwarded-proto", XForwardedProto); k != Other {
		return k
	}
	return pick2(name, "x-vcap-request-id", XVcapRequestID, "x-idempotency-key", IdempotencyKey)
}

func pick(name []byte, lower string, k Key) Key {
	if fold(name, lower) {
		return k
	}
	return Other
}

func pick2(name []byte, a string, ka Key, b string, kb Key) Key {
	if fold(name, a) {
		return ka
	}
	return pick(name, b, kb)
}

// protected fields stay even when Connection names them: the framing, and what tells a backend who
// the client is. Otherwise a client could have them removed.
func protected(k Key) bool {
	switch k {
	case Host, ContentLength, TransferEncoding, XForwardedFor, XForwardedProto, XForwardedClientCert,
		XRequestStart, XVcapRequestID, XCFApplicationID, XCFInstanceID, XCFInstanceIndex, B3:
		return true
	}
	return false
}

// perConnection fields are never passed on as they are.
func perConnection(k Key) bool {
	switch k {
	case Connection, ProxyConnection, KeepAlive, ProxyAuthenticate, ProxyAuthorization, TE, TransferEncoding, Upgrade:
		return true
	}
	return false
}
