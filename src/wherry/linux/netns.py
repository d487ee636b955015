"""Network namespaces: made, pinned by a bind mount so that they live without a process, entered, let go.

Only the calling thread changes namespace in unshare(2) and setns(2); whoever enters one does it on a thread of its own
that ends afterwards, so that no thread of the program is ever left in the wrong place. Within such a thread new sockets
and /proc/sys/net belong to the namespace entered.
"""

import errno
import fcntl
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from wherry.linux.syscalls import NR, syscall

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_MS_BIND, _MNT_DETACH = 0x1000, 0x2
_SELF = "/proc/thread-self/ns/net"


def on_own_thread(function: Callable[[], T]) -> T:
    """Run `function` on a thread made for it; return its result or raise what it raised."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome[:] = [True, function()]
        except BaseException as error:
            outcome[:] = [False, error]

    thread = threading.Thread(target=run, name="netns")
    thread.start()
    thread.join()
    succeeded, value = outcome
    if succeeded:
        result: T = value
        return result
    raise value


def make(inside: Callable[[], object]) -> int:
    """Make a network namespace, run `inside` in it, and return a descriptor: the namespace is there until that is
    closed. Raises OSError."""

    def work() -> int:
        syscall(NR.unshare, _CLONE_NEWNET)
        inside()
        return open_current()

    return on_own_thread(work)


def create(pin: str, inside: Callable[[], T], ready: int | None = None) -> T:
    """Make a network namespace (or take the one that is `ready`, a descriptor of `make`), pin it at the new file `pin`,
    run `inside` in it and return its result. When `inside` raises, the pin is gone again. Raises OSError (EEXIST: the
    pin is there)."""

    def work() -> T:
        if ready is None:
            syscall(NR.unshare, _CLONE_NEWNET)
        else:
            syscall(NR.setns, ready, _CLONE_NEWNET)
        _bind(_SELF, pin)
        try:
            return inside()
        except BaseException:
            delete(pin)
            raise

    return on_own_thread(work)


def keep(pin: str, fd: int) -> None:
    """Pin the namespace `fd` of `make` at the new file `pin`. Raises OSError."""
    _bind(f"/proc/self/fd/{fd}", pin)


def _bind(source: str, pin: str) -> None:
    os.close(os.open(pin, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    try:
        syscall(NR.mount, source.encode(), os.fsencode(pin), None, _MS_BIND, None)
    except BaseException:
        delete(pin)
        raise


def run_in(path: str, function: Callable[[], T]) -> T:
    """Run `function` in the network namespace `path` (a pin or /proc/PID/ns/net) and return its result."""

    def enter() -> T:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscall(NR.setns, fd, _CLONE_NEWNET)
        finally:
            os.close(fd)
        return function()

    return on_own_thread(enter)


def open_current() -> int:
    """A file descriptor of the calling thread's network namespace."""
    return os.open(_SELF, os.O_RDONLY | os.O_CLOEXEC)


def lock() -> int:
    """Take the lock of the calling thread's network namespace, which all processes in it share, and return the file
    descriptor that holds it until closed (flock(2) on the namespace's own inode)."""
    fd = open_current()
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except BaseException:
        os.close(fd)
        raise
    return fd


def delete(pin: str) -> None:
    """Let go of the namespace pinned at `pin`; it ends with its last process. Nothing to do is fine.

    The file is unlinked as well: that also detaches copies of the mount in other mount namespaces (mount(2)).
    """
    try:
        syscall(NR.umount2, os.fsencode(pin), _MNT_DETACH)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    try:
        os.unlink(pin)
    except FileNotFoundError:
        pass


def is_pinned(pin: str) -> bool:
    """Whether `pin` is a namespace, not the bare file that an interrupted `create` leaves."""
    try:
        return os.stat(pin).st_dev != os.stat(os.path.dirname(pin)).st_dev
    except FileNotFoundError:
        return False
