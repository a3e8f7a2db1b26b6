// Package volume keeps volumes on the cell's own disk, and gives them to containers. A volume is a directory
// that outlives all containers; several may have it at once, and nobody but the operator deletes it.
//
// Below the directory of the driver:
//
//	volumes/NAME            a volume, with the owner and mode that its first mount asked for
//	mounts/CONTAINER/NAME   an empty file: the container has the volume
//
// That is all there is to know. Nothing is kept in memory, so a restart has nothing to find out, and a
// reference that a crash left behind names the container it is of (see Driver.Containers). Volumes appear,
// and disappear, whole: names that begin with a dot are of those that are not ready yet or half deleted.
package volume
