"""Changes of files as events (inotify(7))."""

import os
import struct
from typing import NamedTuple

from wherry.linux.syscalls import NR, syscall

IN_MODIFY = 0x2
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x1000000

_IN_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_HEADER = struct.Struct("iIII")
_BUFFER = 65536


class Event(NamedTuple):
    """One change: `watch` is the number `add` returned (-1 when the queue overflowed), `name` the entry of a watched
    directory."""

    watch: int
    mask: int
    name: bytes


class Inotify:
    """An inotify instance; `fd` is non-blocking and becomes readable when events wait."""

    def __init__(self) -> None:
        self.fd = syscall(NR.inotify_init1, _IN_NONBLOCK_CLOEXEC)

    def add(self, path: str, mask: int) -> int:
        """Watch `path`; the same inode always gives the same watch, whose mask is replaced. Raises OSError."""
        return syscall(NR.inotify_add_watch, self.fd, os.fsencode(path), mask)

    def remove(self, watch: int) -> None:
        """End a watch; one the kernel has ended by itself is no error."""
        try:
            syscall(NR.inotify_rm_watch, self.fd, watch)
        except OSError:
            pass

    def read(self) -> list[Event]:
        """The events that wait; empty when none do."""
        try:
            data = os.read(self.fd, _BUFFER)
        except BlockingIOError:
            return []
        events = []
        position = 0
        while position < len(data):
            watch, mask, _, length = _HEADER.unpack_from(data, position)
            position += _HEADER.size
            events.append(Event(watch, mask, data[position : position + length].rstrip(b"\0")))
            position += length
        return events

    def close(self) -> None:
        os.close(self.fd)
