// Package portmap maps ports of the machine to ports of a cell's containers, by one table of nftables for the
// cell:
//
//	table ip NAME {
//		map ports { type inet_service : ipv4_addr . inet_service }   # host port → address . port
//		chain prerouting   fib daddr type local dnat to tcp dport map @ports
//		chain output       the same, for processes of the machine
//		chain postrouting  ct status dnat masquerade, for connections from 127.0.0.0/8 to the subnet, and from
//		                   the subnet to itself: their answers would not come back otherwise
//	}
//
// A container with so many ports costs one transaction, whatever else is mapped, and a packet one look into
// the map. Each element bears the ID of its container as its comment. What is mapped is kept by the kernel alone: a Mapper in a
// later life of the cell finds it.
package portmap
