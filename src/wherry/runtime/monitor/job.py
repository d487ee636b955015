"""A process of the container with its streams: the container's own, or an exec.

process ──stdout, stderr──▶ read ──▶ log
                                 ├─▶ client, client, …
process ◀──────stdin────────── what clients type, in the order it came
"""

import fcntl
import os
import struct
import termios
import time
from collections.abc import Callable
from typing import Any

from wherry.linux import malloc
from wherry.runtime.lifecycle import Process
from wherry.runtime.logs.base import STDERR, STDOUT, Writer
from wherry.runtime.monitor.client import Client
from wherry.runtime.monitor.poller import POLLIN, POLLOUT, Poller
from wherry.runtime.monitor.stdio import Pipes, widen

_READ = 1 << 16  # what a pipe holds
_READ_WIDE = 1 << 17
_GATHER_S = 0.001
_QUIET_S = 1.0
_PATIENCE_S = 2.0  # for output still held open by others after the process ended (moby: daemon/monitor.go)
_TERMINAL_RETRY_S = 0.1

OnDetached = Callable[["Job", str], None]


class Job:
    """`exec_id` is empty for the container's own process. `stdin_once`: the process's stdin ends with the first
    client's. `on_detached(job, attachment id)` tells that a client typed its detach keys."""

    def __init__(
        self,
        poller: Poller,
        exec_id: str,
        process: Process,
        pipes: Pipes,
        *,
        log: Writer | None = None,
        stdin_once: bool,
        on_detached: OnDetached,
    ) -> None:
        self.exec_id = exec_id
        self.pid = process.pid
        self.pidfd = process.pidfd
        self.console = process.console
        self.ended = False
        self._poller = poller
        self._log = log
        self._stdin_once = stdin_once
        self._on_detached = on_detached
        self._on_drained: Callable[[], None] | None = None
        self._clients: list[Client] = []
        self._typed: list[bytes] = []
        self._closing_stdin = False
        self._sources = {pipes.stdout: STDOUT, pipes.stderr: STDERR}
        self._stdin = pipes.stdin
        if log:
            log.attend(poller, self._update_sources)
        self._grown: set[int] = set()
        self._wide: set[int] = set()  # those of them that could be
        self._busy = False  # with the output of a wide pipe, since someone looked last
        self._awaits_quiet = False
        if self.console >= 0:
            os.set_blocking(self.console, False)
            self._sources = {self.console: STDOUT}
            self._stdin = self.console
        for fd in self._sources:
            poller.watch(fd, POLLIN, self._reader(fd))
        if self._stdin >= 0 and self.console < 0:
            poller.watch(self._stdin, None, self._stdin_ready)

    # ------------------------------------------------------------ clients

    def attach(self, fd: int, wishes: dict[str, Any]) -> None:
        """Attach the client at socket `fd`, which is ours from now on. Raises ValueError for nonsense in `wishes`,
        OSError when `fd` is no socket; `fd` is closed then."""
        try:
            client = Client(self._poller, self, fd, wishes)
        except BaseException:
            os.close(fd)
            raise
        self._clients.append(client)
        client.begin()

    @property
    def has_typing_client(self) -> bool:
        return any(client.typing for client in self._clients)

    def clients(self) -> tuple[Client, ...]:
        """Those attached now."""
        return tuple(self._clients)

    def end_clients(self) -> None:
        """No more output comes: let them go once they have what waits for them."""
        for client in tuple(self._clients):
            client.end()

    def client_gone(self, client: Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
        self._update_sources()

    def client_drained(self) -> None:
        self._update_sources()

    def client_detached(self, client: Client) -> None:
        self._on_detached(self, client.id)

    # ------------------------------------------------------------ output

    def _reader(self, fd: int) -> Callable[[int], None]:
        return lambda _: self._readable(fd)

    def _readable(self, fd: int) -> None:
        data = self._read(fd)
        if data:
            if len(data) == _READ and fd not in self._grown:
                self._grow(fd)
            self._deliver(self._sources[fd], data)
            if fd in self._wide:
                self._pace(fd, len(data))
        elif data is not None:
            self._end_of_output(fd)

    def _read(self, fd: int) -> bytes | None:
        """What the process wrote; b"" at the end, None when there is nothing now."""
        try:
            return os.read(fd, _READ_WIDE if fd in self._wide else _READ)
        except BlockingIOError:
            return None
        except OSError:  # EIO: nobody has the terminal open
            return b""

    def _grow(self, fd: int) -> None:
        """A pipe that was found full gets larger: fewer turns for the same data. An idle one costs nothing more."""
        self._grown.add(fd)
        if fd != self.console and widen(fd):
            self._wide.add(fd)

    def _pace(self, fd: int, size: int) -> None:
        """After `size` bytes of a stream that was busy once: what goes into the log costs less in large pieces, so let
        some gather in the wide pipe. When no more comes, the buffers go back to the kernel."""
        if self._log and size < _READ:
            self._poller.change(fd, None)
            self._poller.after(_GATHER_S, lambda: self._retry(fd))
        self._busy = True
        if not self._awaits_quiet:
            self._awaits_quiet = True
            self._poller.after(_QUIET_S, self._look_for_quiet)

    def _look_for_quiet(self) -> None:
        if self._busy:
            self._busy = False
            self._poller.after(_QUIET_S, self._look_for_quiet)
        else:
            self._awaits_quiet = False
            malloc.trim()

    def _deliver(self, stream: int, data: bytes) -> None:
        if self._log:
            self._log.write(stream, data, time.time_ns())
        blocked = self._log is not None and self._log.blocked
        for client in tuple(self._clients):
            client.push(stream, data)
            blocked = blocked or client.blocked
        if blocked:
            self._update_sources()

    def _update_sources(self) -> None:
        """Read on only while the log and every client keep up."""
        mask = None if self._blocked else POLLIN
        for fd in self._sources:
            self._poller.change(fd, mask)

    @property
    def _blocked(self) -> bool:
        return (self._log is not None and self._log.blocked) or any(client.blocked for client in self._clients)

    def _end_of_output(self, fd: int) -> None:
        if fd == self.console and not self.ended:
            # A terminal can be closed by all and opened again; a hang-up would be reported all the time.
            self._poller.change(fd, None)
            self._poller.after(_TERMINAL_RETRY_S, lambda: self._retry(fd))
            return
        self._close_source(fd)
        if self.ended and not self._sources:
            self._drained()

    def _retry(self, fd: int) -> None:
        if fd in self._sources:
            self._update_sources()

    def _close_source(self, fd: int) -> None:
        self._poller.forget(fd)
        del self._sources[fd]
        if fd != self.console:
            os.close(fd)

    def read_now(self) -> None:
        """Deliver what the process has written up to now, if those who get it keep up."""
        for fd, stream in tuple(self._sources.items()):
            if not self._blocked:
                self._read_left(fd, stream)

    # ------------------------------------------------------------ the end

    def process_ended(self, on_drained: Callable[[], None]) -> None:
        """The process was reaped: read what is left of its output, then call `on_drained`."""
        self.ended = True
        self._on_drained = on_drained
        self.close_stdin()
        for fd, stream in tuple(self._sources.items()):
            if self._read_left(fd, stream):
                self._close_source(fd)
        if not self._sources:
            self._drained()
        else:
            self._update_sources()
            self._poller.after(_PATIENCE_S, self._give_up_output)

    def _read_left(self, fd: int, stream: int) -> bool:
        """Deliver what the process left, whether clients keep up or not, and no more: others may hold the pipe and
        write for ever. True at the end of the output."""
        (left,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))
        while left >= 0 and (data := self._read(fd)):
            self._deliver(stream, data)
            left -= len(data)
        return left >= 0 and data is not None

    def _give_up_output(self) -> None:
        if self._sources:
            for fd in tuple(self._sources):
                self._close_source(fd)
            self._drained()

    def _drained(self) -> None:
        if self.console >= 0:
            os.close(self.console)
            self.console = -1
        os.close(self.pidfd)
        self.pidfd = -1
        if self._on_drained:
            self._on_drained()

    def close(self) -> None:
        """Close all descriptors."""
        for fd in (*self._sources, self.pidfd, self._stdin):
            if fd >= 0:
                os.close(fd)

    # ------------------------------------------------------------ input

    @property
    def stdin_full(self) -> bool:
        """Whether what clients typed waits for the process to read it: then no more is taken from them."""
        return bool(self._typed)

    def type(self, data: bytes) -> None:
        """Give `data` to the process's stdin; dropped when that is closed."""
        if self._stdin >= 0 and not self._closing_stdin:
            self._typed.append(data)
            self._write_stdin()

    def input_ended(self) -> bool:
        """A client's input ended: true when the process's stdin ends with it."""
        if not self._stdin_once or self.console >= 0:
            return False
        self.close_stdin()
        return True

    def close_stdin(self) -> None:
        """Close the process's stdin once it has what was typed so far; a terminal's only when the process ended."""
        if self.console >= 0 and not self.ended:
            return
        self._closing_stdin = True
        self._write_stdin()

    def _stdin_ready(self, mask: int) -> None:
        self._write_stdin()

    def _write_stdin(self) -> None:
        while self._typed and self._stdin >= 0:
            try:
                written = os.write(self._stdin, self._typed[0])
            except BlockingIOError:
                self._await_stdin()
                return
            except OSError:
                self._typed.clear()
                self._closing_stdin = True
                break
            if written == len(self._typed[0]):
                self._typed.pop(0)
            else:
                self._typed[0] = self._typed[0][written:]
        self._stdin_drained()

    def _await_stdin(self) -> None:
        if self.ended:
            self._typed.clear()
        elif self.console >= 0:
            self._poller.after(_TERMINAL_RETRY_S / 10, self._write_stdin)
        else:
            if self._stdin not in self._grown:
                self._grow(self._stdin)
            self._poller.change(self._stdin, POLLOUT)

    def _stdin_drained(self) -> None:
        if self.console >= 0:
            if self.ended:
                self._stdin = -1
        elif self._stdin >= 0:
            self._poller.change(self._stdin, None)
            if self._closing_stdin:
                self._poller.forget(self._stdin)
                os.close(self._stdin)
                self._stdin = -1
        for client in tuple(self._clients):
            client.update()
