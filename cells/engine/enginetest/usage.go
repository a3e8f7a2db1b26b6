package enginetest

import "muster/cells/engine"

// usage measures containers before, while and after they run, also for a later life of the caller.
func (s *suite) usage() {
	const megabytes, bytes = 8, 8 << 20
	idle := s.create(s.spec("run"))
	busy := s.start("hold", "8", "/held")
	s.ready(busy.ID)
	for _, e := range []engine.Engine{s.engine, s.Open(s.T)} {
		all := s.used(e, busy.ID, idle.ID, "nobody")
		if _, ok := all["nobody"]; ok {
			s.Errorf("a container that is not there uses %+v", all["nobody"])
		}
		u, ok := all[busy.ID]
		if !ok || u.CPU <= 0 || u.MemoryBytes < bytes || u.Pids < 1 || u.LogBytes < int64(len("ready")) {
			s.Errorf("a process that holds %d MiB uses %+v (told: %v)", megabytes, u, ok)
		}
		if !u.DiskAt.IsZero() && u.DiskBytes < bytes {
			s.Errorf("%d MiB were written, %d bytes are said to be used", megabytes, u.DiskBytes)
		}
		if waits, ok := all[idle.ID]; ok && waits.MemoryBytes >= bytes {
			s.Errorf("a container that was not started uses %+v", waits)
		}
	}
	s.destroyNow(busy.ID)
	if left := s.used(s.engine, busy.ID); len(left) > 0 {
		s.Errorf("a container that is gone uses %+v", left)
	}
	s.destroyNow(idle.ID)
	if none := s.used(s.engine); len(none) > 0 {
		s.Errorf("nobody was asked for, told of: %+v", none)
	}
}

func (s *suite) used(e engine.Engine, ids ...engine.ID) map[engine.ID]engine.Usage {
	s.Helper()
	all, err := e.Usage(s.ctx(), ids...)
	s.must(err)
	return all
}
