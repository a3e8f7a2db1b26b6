// Package nft gives the compiled rules of package firewall to the kernel, by nftables and without any
// program. It has two tables of a cell's own, both of one name, and touches no others:
//
//	table inet
//	    chain forward, input   packets from the cell's bridge: open connections pass; then first; then the
//	                           chain of the container by its source address; then last
//	    map   from4, from6     address of a container → its chain
//	    chain s-DIGEST         the rules of all containers that have the same
//	    chain c-ID             the rules of one container, when some of them log
//	    chain first, last      the policy in front of and behind all containers' rules
//	    chain deny             what nothing accepted ends here
//	    set   self4, self6     each container's address twice: who is a container, and who sends to itself
//	    set   dead4, dead6     addresses of removed containers whose connections are not forgotten yet
//	table bridge
//	    chain prerouting       frames from a container's device with another sender than its own are dropped
//	    set   ports            devices of containers
//	    set   known4, known6   device, MAC and address that belong together; neighbours: without address
//
// So a packet costs the same with one container as with thousands, and one of an open connection
// sees two rules. What comes from the bridge and belongs to no container is rejected. What the tables
// accept, others may still drop; answers from a port that is mapped belong to open connections.
//
// Containers share chains because the kernel walks through all chains of a table, and all sets of single
// rules, at each change of a rule. Most apps of a cell have the same rules, and then a change is one of
// elements only.
//
// Each change is one transaction of both tables: the kernel makes all of it or nothing, and no packet
// sees half. There is nothing on disk: after a restart the kernel tells what there is. When somebody
// removed the tables, the next call makes them again. Containers then reach nothing until Apply is called
// for them, and List does not name them.
//
// Containers do not see each other's frames: their ports of the bridge are isolated, and the cell
// answers ARP for their neighbours. So packets between them pass through chain forward like all others.
// Over IPv6 they do not reach each other.
//
// Rejected packets are answered, so that programs do not wait: TCP by a reset, because the kernel
// sends few ICMP errors a second, the rest with "administratively prohibited".
package nft
