package containerd

import (
	"fmt"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// watcher wakes those who wait for a file to grow or to go.
type watcher struct {
	notify *fsnotify.Watcher

	mu      sync.Mutex
	waiting map[string][]chan struct{} // by path
}

func newWatcher() (*watcher, error) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch files: %w: raise fs.inotify.max_user_instances", err)
	}
	w := &watcher{notify: notify, waiting: map[string][]chan struct{}{}}
	go w.run()
	return w, nil
}

// run hands on what happened, until close.
func (w *watcher) run() {
	for {
		select {
		case ev, ok := <-w.notify.Events:
			if !ok {
				return
			}
			w.wake(ev.Name)
		case _, ok := <-w.notify.Errors: // something was missed
			if !ok {
				return
			}
			w.wakeAll()
		}
	}
}

func (w *watcher) close() error { return w.notify.Close() }

// follow returns what is sent to when a file has changed since the last time, and what ends that. What
// changed before is not told: look once after it. The error is fs.ErrNotExist for a file that is gone.
func (w *watcher) follow(path string) (<-chan struct{}, func(), error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.notify.Add(path); err != nil {
		return nil, nil, err
	}
	changed := make(chan struct{}, 1)
	w.waiting[path] = append(w.waiting[path], changed)
	return changed, func() { w.unfollow(path, changed) }, nil
}

func (w *watcher) unfollow(path string, changed chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var left []chan struct{}
	for _, other := range w.waiting[path] {
		if other != changed {
			left = append(left, other)
		}
	}
	if w.waiting[path] = left; left == nil {
		delete(w.waiting, path)
		_ = w.notify.Remove(path) // gone with the file, maybe
	}
}

func (w *watcher) wake(path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, changed := range w.waiting[path] {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}

func (w *watcher) wakeAll() {
	w.mu.Lock()
	var paths []string
	for path := range w.waiting {
		paths = append(paths, path)
	}
	w.mu.Unlock()
	for _, path := range paths {
		w.wake(path)
	}
}
