// Package fetch moves files over HTTP between containers and the servers that keep them: it downloads
// archives as plain tar files (Archive) and as directories that containers share (Directory), keeps both
// in a bounded cache on disk, and uploads files (Upload).
//
// # What is kept
//
// A download with a cache key is kept if the answer has an ETag or a Last-Modified. Every further use asks
// the server whether it still is as it was; a server that does not answer fails the use. What is kept is
// found by the cache key together with the scheme, host and path of the URL, so that no server can hand
// out or replace what another one gave. With a checksum, only content that was found to have it is used.
//
// Requests for the same at the same time share one download, which ends when all of them gave up. When the
// content changes on the server, the old one stays for those who use it.
//
// # On disk
//
//	Dir/entries/KEY/     content.tar or tree, and meta.json, which is complete when the directory is there
//	Dir/tmp/             what is under way or goes away; emptied by Open
//
// What is in entries was renamed to there in one step. An archive is flushed to the disk before that; a tree
// is not, and counts only until the machine restarts, which its users do not survive either. All bytes of
// both directories are within the bound of the cache. Who adopts containers says which trees they use with
// Keep, and then that all was said with Settle; before that no tree is evicted.
package fetch
