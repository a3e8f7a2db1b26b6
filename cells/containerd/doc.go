// Package containerd is the engine that runs containers with containerd, runc and CNI.
//
// A cell has one containerd namespace and one state directory; two engines never share either. What
// belongs to a container, in the order in which it comes to be (Destroy goes the other way round):
//
//	StateDir/containers/ID   directory: made first, removed last, so that everything is found again
//	    spec.json            what was asked of the network, written before the network is touched
//	    network.json         what the network gave: present when it is complete
//	    started              present from just before the init is started
//	    guest                what the init is given, mounted read-only: itself, inbox, and program.json, which
//	                         is written last and makes the container complete
//	    log, events          what the init wrote; the shim appends, no caller has to live for it
//	    notes                lines of the cell, in the form of the log
//	    hosts, hostname, resolv.conf
//	StateDir/netns/ID        the network namespace, a bind mount
//	CNI                      veth, address (leases in StateDir/ipam)
//	tables NAMESPACE         of nftables: what it may reach, see cells/firewall/nft; there before anything of it
//	                         runs, and until its processes have ended
//	table NAMESPACE-ports    of nftables: port mappings, see cells/portmap
//	containerd               container record, then snapshot, then task; the record keeps the
//	                         snapshot from being collected, so a container needs no lease
//	runcState/NAMESPACE/ID   what runc knows of the task; also left by a start that was cut off,
//	                         with processes of which containerd knows nothing any more
//
// Images, preloaded root file systems too, are fetched under a lease and then kept by an image record. Create does what does not
// depend on each other at once: the network is attached while image, snapshot and task are made, and the
// task is made (shim and runc included) before Start is asked for, so that Start only releases it.
//
// An engine keeps nothing but caches in memory. A second engine on the same directory and
// namespace, in a later life of the caller, finds everything.
package containerd
