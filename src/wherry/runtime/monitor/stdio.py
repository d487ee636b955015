"""The pipes between a process of the container and its monitor."""

import fcntl
import os
from typing import NamedTuple

from wherry.runtime.setup import Stdio

_WIDE = 1 << 20  # bytes; the most an unprivileged process may ask for (/proc/sys/fs/pipe-max-size)


class Pipes(NamedTuple):
    """`child` are the process's ends; of ours, `stdin` is written, `stdout` and `stderr` are read; -1: none."""

    child: Stdio
    stdin: int
    stdout: int
    stderr: int

    def close_child(self) -> None:
        for fd in set(self.child):
            os.close(fd)

    def close_ours(self) -> None:
        for fd in (self.stdin, self.stdout, self.stderr):
            if fd >= 0:
                os.close(fd)


def open_pipes(*, tty: bool, stdin: bool) -> Pipes:
    """Pipes for one process; without `stdin` it reads /dev/null. With a terminal there are none, and /dev/null until
    the terminal takes its place. Raises OSError."""
    if tty:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        return Pipes(Stdio(null, null, null), -1, -1, -1)
    opened: list[int] = []
    try:
        if stdin:
            opened += os.pipe2(os.O_CLOEXEC)
        else:
            opened += (os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), -1)
        opened += os.pipe2(os.O_CLOEXEC)
        opened += os.pipe2(os.O_CLOEXEC)
    except OSError:
        for fd in opened:
            if fd >= 0:
                os.close(fd)
        raise
    in_read, in_write, out_read, out_write, err_read, err_write = opened
    for fd in (in_write, out_read, err_read):
        if fd >= 0:
            os.set_blocking(fd, False)
    return Pipes(Stdio(in_read, out_write, err_write), in_write, out_read, err_read)


def widen(fd: int) -> bool:
    """Let the pipe hold more (F_SETPIPE_SZ, fcntl(2)); false where the kernel does not permit it: the user's share is
    used up."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _WIDE)
    except OSError:
        return False
    return True
