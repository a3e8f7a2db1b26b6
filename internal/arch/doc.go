// Package arch holds no code: its tests keep the architecture true. They ask the go command for
// imports, and the parser for what it cannot know: which package may import what and why, that cores
// are pure, that every package and exported name is documented, and how long files may get.
package arch
