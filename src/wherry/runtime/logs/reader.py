"""Reading a container's log while it grows and rotates: `docker logs`.

`Cursor` is the blocking part: positions, filters, framing, one batch at a time. `read` is the asynchronous one:
batches are made in a worker thread, and a follower sleeps on inotify in between.
"""

import asyncio
import itertools
import json
import operator
import os
import urllib.parse
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from wherry.runtime.logs.base import STDERR, STDOUT, Format, Messages
from wherry.runtime.logs.chain import Chain, File, plain
from wherry.runtime.logs.drivers import open_format
from wherry.runtime.logs.stamp import Clock
from wherry.runtime.logs.watch import Watch, Watcher

_BATCH = 1 << 19
_PATIENCE_S = 0.25  # between looks at a log whose directory cannot be watched, or whose container may have ended


class Query(NamedTuple):
    """What to show. `tail`: how many messages from the end, None for all; `since_ns`, `until_ns`: since the epoch,
    inclusive, None for no bound; `framed`: with stdcopy headers; `joined`: many messages a frame, else each its own."""

    follow: bool = False
    tail: int | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    stdout: bool = True
    stderr: bool = True
    timestamps: bool = False
    details: bool = False
    framed: bool = True
    joined: bool = False


class Cursor:
    """A place in the log. `step()` gives the next batch of output, b"" when a batch had nothing to show, None at the
    present end; `finished` is set once `until_ns` has been passed."""

    def __init__(self, path: str, log_format: Format, query: Query) -> None:
        self._chain = Chain(path)
        self._format = log_format
        self._render = Renderer(query)
        self.query = query
        self._joined = (query.joined or not query.framed) and not query.timestamps and not query.details
        self._files = self._chain.open_all()
        self._position = 0
        self._skip = 0
        self._held = b""
        self._current: File | None = None
        self.finished = False
        if query.tail is not None:
            self._seek_tail(query.tail)
        else:
            self._skip_older_files()

    def step(self) -> bytes | None:
        if self._current is None and not self._open_next():
            return None
        assert self._current
        data = os.pread(self._current.fd, _BATCH, self._position)
        if data:
            return self._take(data)
        if os.fstat(self._current.fd).st_size < self._position:  # cleared, or truncated by somebody else
            self._position, self._skip, self._held = 0, 0, b""
            return b""
        if self._leave_file():
            return b""
        return None

    def close(self) -> None:
        for file in (*self._files, *([self._current] if self._current else [])):
            file.close()
        self._files, self._current = [], None

    def _take(self, data: bytes) -> bytes:
        self._position += len(data)
        data = self._held + data if self._held else data
        messages, used = self._format.decode(data, joined=self._joined and not self._skip)
        self._held = data[used:]
        if self._skip:
            skip = min(self._skip, len(messages.payloads))
            self._skip -= skip
            messages = messages.part(skip)
        output, self.finished = self._render(messages)
        return output

    def _open_next(self) -> bool:
        """Begin the next file of the chain; false when there is none (yet)."""
        if not self._files:
            self._files = self._chain.open_all()
        if not self._files:
            return False
        self._current = plain(self._files.pop(0))
        self._held = b""
        return True

    def _leave_file(self) -> bool:
        """At the end of a file: go to its successor. False when it is the one being written."""
        assert self._current
        if not self._files:
            if not self.query.follow:
                return False
            if self._chain.is_current(self._current):
                return False
            # It was rotated away; what was written between our last read and that is still to be read.
            if os.fstat(self._current.fd).st_size > self._position:
                return True
            following = self._chain.successor(self._current)
            if following is None:
                return False
            self._files.append(following)
        self._current.close()
        self._position = self._skip = 0
        return self._open_next()

    def _seek_tail(self, count: int) -> None:
        """Stand before the last `count` messages: files are looked at from the youngest, only as far as needed."""
        keep: list[File] = []
        for file in reversed(self._files):
            file = plain(file)
            keep.insert(0, file)
            offset, skip, found = self._format.tail(file.fd, self._format.sound_length(file.fd), count)
            count -= found
            if count <= 0:
                self._prime(file, offset)
                self._position, self._skip = offset, skip
                break
        for file in self._files[: len(self._files) - len(keep)]:
            file.close()
        self._files = keep

    def _prime(self, file: File, offset: int) -> None:
        """Let the format see the start of a file that is read from its middle: it may say what all records share."""
        if offset and self.query.details:
            self._format.decode(os.pread(file.fd, min(_BATCH, offset), 0))

    def _skip_older_files(self) -> None:
        """Files last changed before `since` hold nothing of interest."""
        if self.query.since_ns is None:
            return
        while len(self._files) > 1:
            oldest = self._files[0]
            if (oldest.changed_ns or os.fstat(oldest.fd).st_mtime_ns) >= self.query.since_ns:
                break
            self._files.pop(0).close()


_HEADERS = {
    stream: [bytes((stream, 0, 0, 0)) + length.to_bytes(4, "big") for length in range(1024)]
    for stream in (STDOUT, STDERR)
}


_stream_of = operator.itemgetter(0)


def frame(stream: int, payload: bytes) -> bytes:
    """One stdcopy frame: stream, three zeros, length (big endian), payload."""
    return bytes((stream, 0, 0, 0)) + len(payload).to_bytes(4, "big") + payload


class Renderer:
    """Messages → what the client gets."""

    def __init__(self, query: Query) -> None:
        clock = Clock()
        self.query = query
        self._since = None if query.since_ns is None else clock.fixed(query.since_ns)
        self._until = None if query.until_ns is None else clock.fixed(query.until_ns)
        self._details: dict[bytes, bytes] = {}

    def __call__(self, messages: Messages) -> tuple[bytes, bool]:
        """(output, whether `until` has been passed)"""
        finished = False
        if self._since is not None or self._until is not None:
            messages, finished = self._between(messages)
        if not (self.query.stdout and self.query.stderr):
            messages = self._of_streams(messages)
        payloads = messages.payloads
        if self.query.details:
            payloads = [self._detail(a) + p for a, p in zip(messages.attributes, payloads, strict=True)]
        if self.query.timestamps:
            payloads = [t + b" " + p for t, p in zip(messages.times, payloads, strict=True)]
        if not self.query.framed:
            return b"".join(payloads), finished
        frames = _joined_frames if self.query.joined else _frames
        return frames(messages.streams, payloads), finished

    def _between(self, messages: Messages) -> tuple[Messages, bool]:
        times = messages.times
        if self._until is not None:
            late = next((i for i, t in enumerate(times) if t > self._until), None)
            if late is not None:
                return self._after_since(messages.part(0, late)), True
        return self._after_since(messages), False

    def _after_since(self, messages: Messages) -> Messages:
        if self._since is None or (messages.times and min(messages.times) >= self._since):
            return messages
        since = self._since
        return messages.select([t >= since for t in messages.times])

    def _of_streams(self, messages: Messages) -> Messages:
        wanted = STDOUT if self.query.stdout else STDERR if self.query.stderr else 0
        return messages.select([s == wanted for s in messages.streams])

    def _detail(self, attributes: bytes) -> bytes:
        """`k=v,k=v `, URL-escaped, sorted (moby: daemon/internal/httputils/logstream)."""
        if attributes not in self._details:
            pairs = sorted(json.loads(attributes).items()) if attributes else []
            quote = urllib.parse.quote_plus
            text = ",".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in pairs)
            self._details[attributes] = text.encode() + b" "
        return self._details[attributes]


def _frames(streams: list[int], payloads: list[bytes]) -> bytes:
    first = streams[0] if streams else STDOUT
    if streams.count(first) == len(streams) and (not payloads or max(map(len, payloads)) < 1024):
        headers = _HEADERS[first]
        return b"".join([headers[len(p)] + p for p in payloads])
    return b"".join([frame(s, p) for s, p in zip(streams, payloads, strict=True)])


def _joined_frames(streams: list[int], payloads: list[bytes]) -> bytes:
    """A frame for each run of one stream."""
    runs = itertools.groupby(zip(streams, payloads, strict=True), _stream_of)
    return b"".join([frame(stream, b"".join([payload for _, payload in run])) for stream, run in runs])


async def read(
    path: str,
    driver: str,
    *,
    follow: bool = False,
    tail: int | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
    stdout: bool = True,
    stderr: bool = True,
    timestamps: bool = False,
    details: bool = False,
    tty: bool = False,
    joined: bool = False,
    running: Callable[[], bool] | None = None,
    stopped: asyncio.Event | None = None,
) -> AsyncIterator[bytes]:
    """Yield the log's output in large batches: stdcopy frames, or the plain output of a terminal (`tty`).

    The other arguments are those of `Query`. A follower ends when the container runs no more and everything has been
    read: when `stopped` is set, which wakes it at once, or when `running()`, asked after each change of the log and a
    few times a second, is false. Raises ValueError when the driver cannot be read, OSError when the files cannot.
    """
    query = Query(follow, tail, since_ns, until_ns, stdout, stderr, timestamps, details, not tty, joined)
    log_format = open_format(driver)
    watcher = Watcher.of_loop().watch(os.path.dirname(path)) if follow else None
    try:
        cursor = await asyncio.to_thread(Cursor, path, log_format, query)
        try:
            async for batch in _batches(cursor, watcher, running, stopped):
                yield batch
        finally:
            cursor.close()
    finally:
        if watcher:
            watcher.close()


async def _batches(
    cursor: Cursor, watch: Watch | None, running: Callable[[], bool] | None, stopped: asyncio.Event | None
) -> AsyncIterator[bytes]:
    """While a batch is being sent, the next is made: two of them are in memory at most."""

    def begin() -> "tuple[bool, asyncio.Task[bytes | None]]":
        # Asked before the read, so that what was written until the end is still read.
        alive = cursor.query.follow and not (stopped and stopped.is_set()) and (running is None or running())
        if watch:
            watch.changed.clear()
        return alive, asyncio.create_task(asyncio.to_thread(cursor.step))

    alive, step = begin()
    try:
        while True:
            batch = await asyncio.shield(step)
            ended = cursor.finished or (batch is None and not alive)
            if batch is None and not ended:
                await _change(watch, running, stopped)
            if not ended:
                alive, step = begin()
            if batch:
                yield batch
            if ended:
                return
    finally:
        await asyncio.wait([step])  # it uses the cursor, which is closed next


async def _change(watch: Watch | None, running: Callable[[], bool] | None, stopped: asyncio.Event | None) -> None:
    """Wait until the log may have grown or its container ended."""
    events = [event for event in (watch.changed if watch else None, stopped) if event]
    waiters = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        if waiters:
            timeout = None if watch and stopped and not running else _PATIENCE_S
            await asyncio.wait(waiters, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(_PATIENCE_S)
    finally:
        for waiter in waiters:
            waiter.cancel()
