// Package nft gives the compiled rules of package firewall to the kernel, by nftables and without any
// program. It has two tables of a cell's own, both named after it, and touches no others:
//
//	table inet muster-PREFIX
//	    chain forward, input   packets from the cell's bridge: open connections pass; then first;
//	                           then the chain of the container whose address the packet is from
//	    map   from4, from6     address of a container → its chain
//	    chain first            the policy in front of all containers' rules
//	    chain c-ID             the rules of one container, then last
//	    chain last             the policy behind them; at its end everything is rejected
//	table bridge muster-PREFIX
//	    chain prerouting       frames from a container's device with another sender than its own are dropped
//
// So a packet costs the same with one container as with thousands, and one of an open connection
// sees three rules. What comes from the bridge and belongs to no container is rejected.
//
// Each change is one transaction of both tables: the kernel makes all of it or nothing, and no packet
// sees half. There is nothing on disk: after a restart the kernel tells what there is.
//
// Containers do not see each other's frames: their ports of the bridge are isolated, and the cell
// answers ARP for their neighbours. So packets between them pass through chain forward like all others.
// Over IPv6 they do not reach each other.
//
// Rejected packets are answered with "administratively prohibited": programs see at once that it is
// not the other side that refused.
package nft
