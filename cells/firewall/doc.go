// Package firewall decides which packets may leave a container. It compiles what a recipe says (egress
// rules) and what the operator of a cell says (Config) into ordered rules that a kernel can be given as
// they are; cells/firewall/nft does.
//
// A new connection of a container is asked about in this order, and the first rule that matches decides:
//
//  1. a family of which the container has no address: rejected
//  2. the container itself, by a port of the cell: accepted
//  3. a resolver of the cell, port 53 of TCP and UDP: accepted
//  4. what the operator denies (Config.Deny): rejected; no rule of a recipe opens it
//  5. the cell itself: rejected, unless Config.AllowHost leaves it to the rules
//  6. the rules of the recipe, the last one first: accepted
//  7. what the operator allows (Config.Allow): accepted
//  8. anything else: rejected
//
// Addresses are those that a packet has once the ports of the cell are mapped: to reach another container by
// a port of the cell takes a rule for the address of that container.
//
// Packets of a connection that is open, in whichever direction it was opened, and ICMP errors about it
// always pass. So other rules for a container change nothing about connections that are open.
//
// Invariants, cited by the tests:
//
//	F1  Set.Rules decides each packet as the recipe's rules do when they are read one by one.
//	F2  The destinations of a Rule are of one family, in order, and do not touch; nor do its ports.
//	F3  A Set says nothing about a family of which the container has no address.
package firewall
