"""Settings of the calling process: prctl(2), personality(2), ioprio_set(2), sched_setattr(2), close_range(2)."""

import struct
from collections.abc import Iterable

from wherry.linux.syscalls import NR, syscall

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38

_IOPRIO_WHO_PROCESS = 1
_IOPRIO_CLASS_SHIFT = 13
_LAST_FD = 0xFFFFFFFF


def set_dumpable(dumpable: bool) -> None:
    """Whether others of the same user may trace us and open what is under our /proc/PID (fd, exe, root, mem)."""
    syscall(NR.prctl, _PR_SET_DUMPABLE, int(dumpable))


def set_keepcaps(keep: bool) -> None:
    """Whether the permitted capabilities survive the change from uid 0 to another."""
    syscall(NR.prctl, _PR_SET_KEEPCAPS, int(keep))


def set_no_new_privs() -> None:
    """From now on execve gives no privileges; irrevocable, inherited."""
    syscall(NR.prctl, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def set_parent_death_signal(signal: int) -> None:
    """The signal we get when the thread that forked us ends; 0 for none."""
    syscall(NR.prctl, _PR_SET_PDEATHSIG, signal)


def set_child_subreaper(enable: bool) -> None:
    """Whether orphaned descendants become our children rather than init's."""
    syscall(NR.prctl, _PR_SET_CHILD_SUBREAPER, int(enable))


def set_name(name: bytes) -> None:
    """The thread's name in /proc/PID/comm; cut to 15 bytes."""
    syscall(NR.prctl, _PR_SET_NAME, name[:15])


def personality(persona: int) -> None:
    """Set the execution domain, personality(2)."""
    syscall(NR.personality, persona)


def set_io_priority(io_class: int, level: int) -> None:
    """Set our I/O scheduling class (1 real-time, 2 best effort, 3 idle) and level (0 to 7)."""
    syscall(NR.ioprio_set, _IOPRIO_WHO_PROCESS, 0, io_class << _IOPRIO_CLASS_SHIFT | level)


def set_scheduler(
    policy: int, flags: int, nice: int, priority: int, runtime_ns: int, deadline_ns: int, period_ns: int
) -> None:
    """sched_setattr(2) for the calling thread."""
    attributes = struct.pack("=IIQiIQQQ", 48, policy, flags, nice, priority, runtime_ns, deadline_ns, period_ns)
    syscall(NR.sched_setattr, 0, attributes, 0)


def close_all_but(keep: Iterable[int]) -> None:
    """Close every descriptor from 3 on that is not in `keep` (close_range(2), Linux 5.9)."""
    first = 3
    for fd in sorted({fd for fd in keep if fd >= 3}):
        if fd > first:
            syscall(NR.close_range, first, fd - 1, 0)
        first = fd + 1
    syscall(NR.close_range, first, _LAST_FD, 0)
