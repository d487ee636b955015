"""One run of a container's health check: an exec whose output is kept, and which ends in time, whole.

Words and codes are Docker's (moby daemon/health.go).
"""

import asyncio
import socket
from typing import TYPE_CHECKING, NamedTuple

from wherry.engine import exec
from wherry.engine.containers import Entry
from wherry.engine.model import ExecConfig, ExecRecord
from wherry.engine.proctree import kill_tree
from wherry.errors import WherryError
from wherry.runtime.client import Attachment

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

OUTPUT_LIMIT = 4096
START_S = 30.0
"""How long the start of a probe may take: that is the engine's time, not the probe's."""
_TURN_S = 2.0
"""How long a start may keep others from starting."""
_OUTPUT_S = 3.0
"""How long the output of an ended probe may take, which what it left behind can hold open."""
FAILED = -1
"""The exit code of a probe that had none."""


class Outcome(NamedTuple):
    """How a probe ended, and the first of its output."""

    exit_code: int
    output: str


class Probe:
    """A probe of the container `entry`. `run` it once; a cancelled one is killed."""

    def __init__(self, engine: "Engine", entry: Entry, command: list[str], timeout_s: float) -> None:
        self._engine = engine
        self._entry = entry
        self._config = ExecConfig(Cmd=command, AttachStdout=True, AttachStderr=True)
        self._timeout_s = timeout_s
        self._output = _Output()
        self.starting: asyncio.Future[None] | None = None
        """The start that is under way; it may outlast `run` when the monitor does not answer."""

    async def run(self) -> Outcome:
        """Run it to its end, at most for its time."""
        record = exec.prepare(self._engine, self._entry, self._config)
        ended = self._engine.execs.end_of(record.id)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        reading = asyncio.ensure_future(self._output.read(ours))
        try:
            if not await self._start(record, theirs):
                return Outcome(FAILED, f"timed out starting health check for container {self._entry.id}")
            return await self._finish(ended, reading)
        except WherryError as error:
            return Outcome(FAILED, str(error))
        finally:
            self._end_process(record)
            reading.cancel()
            ours.close()

    async def _start(self, record: ExecRecord, theirs: socket.socket) -> bool:
        """Whether it started in time. Raises the refusal of the runtime."""
        attachment = Attachment(theirs.fileno(), stdin=False, stdout=True, stderr=True, mux=False)
        work = exec.run(self._engine, self._entry, record, [attachment], probe=True)
        self.starting = starting = asyncio.ensure_future(work)
        starting.add_done_callback(lambda done: _started(done, theirs))
        async with self._engine.probing:
            done, _ = await asyncio.wait({starting}, timeout=_TURN_S)
        if not done:
            done, _ = await asyncio.wait({starting}, timeout=START_S - _TURN_S)
        if done:
            starting.result()
        return bool(done)

    async def _finish(self, ended: "asyncio.Future[int]", reading: "asyncio.Future[None]") -> Outcome:
        done, _ = await asyncio.wait({ended}, timeout=self._timeout_s)
        if done:
            await asyncio.wait({reading}, timeout=_OUTPUT_S)
            return Outcome(ended.result(), self._output.text())
        text = f"Health check exceeded timeout ({go_duration(self._timeout_s)})"
        return Outcome(FAILED, f"{text}: {self._output.text()}" if self._output.text() else text)

    def _end_process(self, record: ExecRecord) -> None:
        """Kill what still runs of it, or will run once a start that hangs comes through."""
        starting = self.starting
        if starting is not None and not starting.done():
            starting.add_done_callback(lambda _: self._kill(record))
        else:
            self._kill(record)

    def _kill(self, record: ExecRecord) -> None:
        monitor = self._entry.monitor
        if record.running and record.pid and monitor is not None:
            self._engine.background(self._engine.run_blocking(kill_tree, record.pid, monitor.monitor_pid))


def _started(starting: "asyncio.Future[None]", theirs: socket.socket) -> None:
    """The monitor has its copy of the socket, or needs none. A failure nobody waits for any more is no news."""
    theirs.close()
    if not starting.cancelled():
        starting.exception()


class _Output:
    """The first bytes of what a probe writes; the rest is read and dropped."""

    def __init__(self) -> None:
        self._data = b""
        self._truncated = False

    async def read(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await loop.sock_recv(sock, 65536):
                room = OUTPUT_LIMIT - len(self._data)
                self._truncated = self._truncated or len(data) > room
                self._data += data[:room]
        except OSError:
            pass  # the monitor is gone; its end is told elsewhere

    def text(self) -> str:
        return self._data.decode("utf-8", "replace") + "..." * self._truncated


def go_duration(seconds: float) -> str:
    """`seconds` as Go prints a time.Duration: "1s", "1m30s", "500ms"."""
    if seconds < 1:
        return f"{seconds * 1000:.6g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:.9f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
