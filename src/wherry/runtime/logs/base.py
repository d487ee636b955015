"""What a log driver is to the monitor that writes and to the daemon that reads."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from wherry.runtime.monitor.poller import Poller

STDOUT = 1
STDERR = 2


Cleared = Callable[[OSError | None], None]


class Writer(Protocol):
    """The log of one container run."""

    def write(self, stream: int, data: bytes, time_ns: int) -> None:
        """Record output of stream 1 or 2 as it was read, at the time it was read. Never raises for a full disk."""

    @property
    def blocked(self) -> bool:
        """Whether the container shall write no more for now."""

    def attend(self, poller: "Poller", on_ready: Callable[[], None]) -> None:
        """Take part in the monitor's loop; call `on_ready` when `blocked` has ended."""

    def flush(self) -> None:
        """Record unfinished lines as well: no more output comes."""

    def close(self) -> None:
        """Flush, and end the use of the file."""

    def owns(self, pid: int) -> bool:
        """Whether child `pid` is the log's own."""

    def reaped(self, pid: int, status: int) -> bool:
        """Tell that child `pid` ended with wait status `status`; true when it was the log's own."""

    def clear(self, then: "Cleared") -> None:
        """Drop what has been recorded, and call `then` once it is gone, with what went wrong or None. What is written
        after `then` was called is recorded as ever; a line that has begun is recorded when it ends."""


class Unblocked:
    """Part of a writer that takes whatever comes."""

    blocked = False

    def attend(self, poller: "Poller", on_ready: Callable[[], None]) -> None:
        pass


class Messages(NamedTuple):
    """Decoded records, column by column: equal lengths, oldest first."""

    streams: list[int]
    times: list[bytes]  # `stamp.fixed` form
    payloads: list[bytes]
    attributes: list[bytes]  # JSON objects, or empty

    def part(self, start: int, end: int | None = None) -> "Messages":
        """Those from number `start` up to before number `end`."""
        cut = slice(start, end)
        return Messages(self.streams[cut], self.times[cut], self.payloads[cut], self.attributes[cut])

    def select(self, wanted: list[bool]) -> "Messages":
        """Those whose place in `wanted` is true."""
        keep = [i for i, w in enumerate(wanted) if w]
        return Messages(
            [self.streams[i] for i in keep],
            [self.times[i] for i in keep],
            [self.payloads[i] for i in keep],
            [self.attributes[i] for i in keep],
        )


class Format(Protocol):
    """How a driver's files are read. Positions are byte offsets in one file."""

    def decode(self, data: bytes, *, joined: bool = False) -> tuple[Messages, int]:
        """The whole records at the start of `data`, and how many bytes they take. Damaged records are skipped.
        `joined`: messages that share all but their payload may come as one."""

    def tail(self, fd: int, size: int, count: int) -> tuple[int, int, int]:
        """Where the last `count` messages of a file's first `size` bytes begin: (offset of a record, messages to skip
        from there, messages found, at most `count`)."""

    def sound_length(self, fd: int) -> int:
        """The length of the file without a record torn at its end."""
