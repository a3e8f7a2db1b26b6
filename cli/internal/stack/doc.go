// Package stack is the whole of Muster on one machine: it brings everything up, shows how it is,
// and takes all of it away again.
//
// Up and Down are level-triggered like the rest of Muster: they look at what is there and do what is
// missing, so both can be killed at any point and repeated. What runs is not remembered in files
// that could be stale: every process that Up starts carries in its environment which stack and
// which part of it it is, with which program and configuration (see find). What cannot be seen from
// the outside, such as the ports chosen and what the host was like before, is in stack.json.
//
//	stack.json   ports, names, what the host was like before
//	lock         held by the one Up or Down at work
//	certs/       the CA and a certificate for each role
//	config/      the configuration of each daemon, written from its own Config type
//	log/         what each daemon says
//	images/      images on disk that applications run, by digest
//	postgres/    the private PostgreSQL cluster
//	consul/      what the private Consul keeps, with --lease consul
//	containerd/  the private containerd, unless the machine has one
//	cells/       what each cell keeps
package stack
