"""Waking the followers of logs: one inotify instance for the whole daemon, since a user may have only 128."""

import asyncio
import weakref

from wherry.linux.inotify import (
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_IGNORED,
    IN_MODIFY,
    IN_MOVED_TO,
    IN_ONLYDIR,
    IN_Q_OVERFLOW,
    Inotify,
)

_MASK = IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_CLOSE_WRITE | IN_ONLYDIR


class Watch:
    """The interest of one follower in one directory; `changed` is set whenever something in it changed."""

    def __init__(self, watcher: "Watcher", number: int) -> None:
        self.changed = asyncio.Event()
        self._watcher = watcher
        self._number = number

    def close(self) -> None:
        self._watcher.forget(self._number, self)


class Watcher:
    """The followers of one event loop. It closes itself with its last watch."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._inotify: Inotify | None = None
        self._watches: dict[int, set[Watch]] = {}

    @classmethod
    def of_loop(cls) -> "Watcher":
        """The instance of the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in _instances:
            _instances[loop] = cls(loop)
        return _instances[loop]

    def watch(self, directory: str) -> Watch | None:
        """Watch a directory; None when the kernel refuses (limit reached, directory gone): then the caller polls."""
        try:
            if self._inotify is None:
                self._inotify = Inotify()
                self._loop.add_reader(self._inotify.fd, self._readable)
            number = self._inotify.add(directory or ".", _MASK)
        except OSError:
            self._close_if_unused()
            return None
        watch = Watch(self, number)
        self._watches.setdefault(number, set()).add(watch)
        return watch

    def forget(self, number: int, watch: Watch) -> None:
        watches = self._watches.get(number, set())
        watches.discard(watch)
        if not watches and self._watches.pop(number, None) is not None and self._inotify:
            self._inotify.remove(number)
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._inotify and not self._watches:
            self._loop.remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None

    def _readable(self) -> None:
        assert self._inotify
        for event in self._inotify.read():
            if event.mask & IN_Q_OVERFLOW:
                for watches in self._watches.values():
                    _wake(watches)
            _wake(self._watches.get(event.watch, set()))
            if event.mask & IN_IGNORED:  # the directory is gone; its followers go on by their own patience
                self._watches.pop(event.watch, None)


def _wake(watches: set[Watch]) -> None:
    for watch in watches:
        watch.changed.set()


_instances: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Watcher] = weakref.WeakKeyDictionary()
