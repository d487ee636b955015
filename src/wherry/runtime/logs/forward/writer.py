"""The monitor's side of a forwarded log."""

import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wherry.runtime.logs.base import STDERR, STDOUT, Cleared, Writer
from wherry.runtime.logs.forward.base import HEADER
from wherry.runtime.logs.lines import Lines

if TYPE_CHECKING:
    from wherry.runtime.monitor.poller import Poller

_LAST_WORDS_S = 2.0  # for the forwarder to take what waits when the container has ended
_AGAIN_S = 1.0  # between two forwarders, should they fail


class Forwarded:
    """A writer (`wherry.runtime.logs.base.Writer`) that passes output on to a forwarder, made at the first output, and
    keeps it in `cache`. `limit`: how many bytes may wait before output is dropped (counted in `lost`); None: none is,
    and `blocked` says that too much waits."""

    def __init__(self, config: dict[str, Any], limit: int | None, cache: Writer, fork: Callable[[], int]) -> None:
        self._config = config
        self._limit = limit
        self._cache = cache
        self._fork = fork
        self._lines = {STDOUT: Lines(), STDERR: Lines()}
        self._waiting: deque[bytes | memoryview] = deque()
        self._size = 0
        self._torn = False  # the forwarder has a part of the first record
        self._fd = -1
        self._child = 0
        self._next_start = 0.0
        self._again = False
        self._poller: Poller | None = None
        self._on_ready: Callable[[], None] = lambda: None
        self.lost = 0

    @property
    def blocked(self) -> bool:
        return self._limit is None and bool(self._waiting)

    def attend(self, poller: "Poller", on_ready: Callable[[], None]) -> None:
        self._poller, self._on_ready = poller, on_ready
        self._cache.attend(poller, on_ready)

    def write(self, stream: int, data: bytes, time_ns: int) -> None:
        self._cache.write(stream, data, time_ns)
        for block in self._lines[stream].feed(data):
            self._put(stream, block, time_ns)
        self._push()

    def flush(self) -> None:
        self._cache.flush()
        for stream, lines in self._lines.items():
            for block in lines.end():
                self._put(stream, block, time.time_ns())
        self._push()

    def clear(self, then: Cleared) -> None:
        self._cache.clear(then)

    def close(self) -> None:
        self.flush()
        self._cache.close()
        self._hand_over_within(_LAST_WORDS_S)
        self._hang_up()
        if self._child:
            os.kill(self._child, signal.SIGTERM)

    def _hand_over_within(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._waiting and self._fd >= 0 and (left := until - time.monotonic()) > 0:
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            poll.poll(left * 1000)
            self._push()

    def owns(self, pid: int) -> bool:
        return pid == self._child != 0 or self._cache.owns(pid)

    def reaped(self, pid: int, status: int) -> bool:
        if pid != self._child or not pid:
            return self._cache.reaped(pid, status)
        self._child = 0
        self._hang_up()
        self._push()
        return True

    def _put(self, stream: int, block: bytes, time_ns: int) -> None:
        record = HEADER.pack(len(block), stream, time_ns) + block
        if self._limit is not None and self._size + len(record) > self._limit:
            self.lost += 1
            return
        self._waiting.append(record)
        self._size += len(record)

    def _push(self) -> None:
        """Hand over what the pipe takes."""
        if self._waiting and self._fd < 0:
            self._start()
        while self._waiting and self._fd >= 0:
            first = self._waiting[0]
            try:
                written = os.write(self._fd, first)
            except BlockingIOError:
                break
            except OSError:
                self._hang_up()
                break
            self._size -= written
            self._torn = written < len(first)
            if self._torn:
                self._waiting[0] = memoryview(first)[written:]
            else:
                self._waiting.popleft()
        self._watch()

    def _watch(self) -> None:
        if self._poller is None:
            return
        if self._fd >= 0:
            self._poller.change(self._fd, select.POLLOUT if self._waiting else None)
        elif self._waiting and not self._again:
            self._again = True
            self._poller.after(_AGAIN_S, self._start_again)

    def _start_again(self) -> None:
        self._again = False
        self._ready()

    def _ready(self, mask: int = 0) -> None:
        was = self.blocked
        self._push()
        if was and not self.blocked:
            self._on_ready()

    def _start(self) -> None:
        if self._child or time.monotonic() < self._next_start:
            return
        self._next_start = time.monotonic() + _AGAIN_S
        reader, writer = os.pipe2(os.O_CLOEXEC)
        # Told to end before it can be told: the signal waits until it has its handler.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
        child = -1
        try:
            child = self._fork()
        except OSError:
            os.close(reader)
            os.close(writer)
            return
        finally:
            if child:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._child = child
        if not self._child:
            from wherry.runtime.logs.forward import process

            process.run(reader, self._config)
        os.close(reader)
        os.set_blocking(writer, False)
        self._fd = writer
        if self._poller:
            self._poller.watch(writer, None, self._ready)

    def _hang_up(self) -> None:
        """End the pipe. A record of which the forwarder had a part is lost with it."""
        if self._fd < 0:
            return
        if self._poller:
            self._poller.forget(self._fd)
        os.close(self._fd)
        self._fd = -1
        if self._torn:
            self._size -= len(self._waiting.popleft())
            self._torn = False
            self.lost += 1
