"""The forwarder: a child of the monitor that reads records from a pipe and hands them to the log server, or writes
them to files the monitor must not wait for."""

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from wherry.linux import prctl
from wherry.runtime.logs.base import Writer
from wherry.runtime.logs.forward.base import HEADER, Message, Partial, Target

_READ = 1 << 16
_DRAIN_S = 5  # to deliver what is left once the monitor has gone


def open_target(config: dict[str, Any]) -> Target:
    """The connection that `config` asks for, not made yet; "driver" names the kind."""
    driver = config["driver"]
    if driver == "syslog":
        from wherry.runtime.logs.forward.syslog import Syslog

        return Syslog(config)
    if driver == "gelf":
        from wherry.runtime.logs.forward.gelf import Gelf

        return Gelf(config)
    if driver == "fluentd":
        from wherry.runtime.logs.forward.fluentd import Fluentd

        return Fluentd(config)
    from wherry.runtime.logs.forward.journald import Journald

    return Journald(config)


def run(pipe: int, config: dict[str, Any]) -> NoReturn:
    """In the child: forward until the pipe ends, and a little longer."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_DRAIN_S))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        prctl.set_parent_death_signal(signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
        prctl.close_all_but((pipe,))
        prctl.set_name(b"wherry-log")
        if config["driver"] in ("json-file", "local"):
            keep(pipe, config)
        else:
            forward(pipe, open_target(config))
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    finally:
        os._exit(code)


def forward(pipe: int, target: Target) -> None:
    """Read records until the pipe ends."""
    try:
        target.connect()
    except OSError:
        pass  # it was there when the container started: `send` tries again
    splitter = Splitter()
    poll = select.poll()
    poll.register(pipe, select.POLLIN)

    def await_more() -> None:
        while (patience := target.patience_s) is not None and not poll.poll(patience * 1000):
            target.send(iter(()))

    for stream, time_ns, data in records(pipe, await_more):
        target.send(splitter.messages(stream, time_ns, data))
    target.close()


def keep(pipe: int, config: dict[str, Any]) -> None:
    """Write records to the files of `config` (`drivers.open_writer`) until the pipe ends."""
    from wherry.runtime.logs.drivers import open_writer

    log = open_writer({**config, "limit": None})
    for stream, time_ns, data in records(pipe):
        log.write(stream, data, time_ns)
        _reap(log)
    log.close()


def _reap(log: Writer) -> None:
    """Collect what compresses old files."""
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            log.reaped(*ended)
    except ChildProcessError:
        pass


def records(pipe: int, await_more: Callable[[], None] = lambda: None) -> Iterator[tuple[int, int, bytes]]:
    """(stream, time in ns, data) as the monitor puts them into the pipe, until it ends; `await_more` is called before
    each read."""
    held = b""
    while True:
        await_more()
        data = os.read(pipe, _READ)
        if not data:
            return
        held = held + data if held else data
        position = 0
        while (end := _record_end(held, position)) is not None:
            _, stream, time_ns = HEADER.unpack_from(held, position)
            yield stream, time_ns, held[position + HEADER.size : end]
            position = end
        held = held[position:]


def _record_end(data: bytes, position: int) -> int | None:
    if len(data) - position < HEADER.size:
        return None
    end: int = position + HEADER.size + HEADER.unpack_from(data, position)[0]
    return end if end <= len(data) else None


class Splitter:
    """Blocks of lines and pieces of lines → messages."""

    def __init__(self) -> None:
        self._open: dict[int, Partial] = {}

    def messages(self, stream: int, time_ns: int, data: bytes) -> Iterator[Message]:
        """`data` is whole lines, the first of which may end a line begun in pieces, or one piece."""
        if not data.endswith(b"\n"):
            yield Message(stream, time_ns, data, self._next(stream, last=False))
            return
        for line in data[:-1].split(b"\n"):
            partial = self._next(stream, last=True) if stream in self._open else None
            yield Message(stream, time_ns, line, partial)

    def _next(self, stream: int, *, last: bool) -> Partial:
        before = self._open.pop(stream, None)
        if before is None:
            before = Partial(os.urandom(32).hex(), 0, False)
        now = Partial(before.id, before.ordinal + 1, last)
        if not last:
            self._open[stream] = now
        return now
