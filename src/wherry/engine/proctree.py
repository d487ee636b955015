"""End a process with everything it started, wherever that went: daemons that left its session and group included.

It works from outside, by /proc and pidfds, on any cgroup version, and asks nothing of the container's monitor. What
makes it whole is that the root of such a tree adopts the orphans among its descendants (PR_SET_CHILD_SUBREAPER, set
by the runtime): as long as it lives, all of them are below it. It is stopped first, so that it reaps nobody.

One descriptor at a time, however many processes there are: those of the daemon are not a container's to use up.
"""

import os
import signal
import time

from wherry.linux.pidfd import pidfd_open, pidfd_send_signal

_LIMIT_S = 10.0
"""How long to look for more: a fork bomb is found a generation at a time, and a dying process may be in the kernel."""
_PAUSE_S = 0.002


def kill_tree(pid: int, parent: int) -> None:
    """Kill process `pid`, if it still is a child of `parent`, and its descendants. Blocks for 10 s at most."""
    root = _open(pid, {parent})
    if root < 0:
        return
    try:
        _send(root, signal.SIGSTOP)
        ended: set[int] = set()
        until = time.monotonic() + _LIMIT_S
        while _kill_below(pid, ended) and time.monotonic() < until:
            time.sleep(_PAUSE_S)
        _send(root, signal.SIGKILL)
    finally:
        os.close(root)


def is_of(pid: int, ancestor: int) -> bool:
    """Whether `pid` is a child of `ancestor`, or of a child of it: what a monitor's helper makes is the helper's until
    that one ends."""
    parent = _stat(pid)[1]
    return parent == ancestor or (parent > 1 and _stat(parent)[1] == ancestor)


def _kill_below(root: int, ended: set[int]) -> bool:
    """Kill what lives below `root`; False when nothing did. What has ended is added to `ended`: the list of a parent
    that is stopped keeps it. While any process dies its children may be between two lists: then look again."""
    tree, waiting, alive = {root}, [root], False
    while waiting:
        for child in _children(waiting.pop()):
            if child in ended:
                continue
            if _has_ended(child):
                ended.add(child)
                continue
            alive = True
            pidfd = _open(child, tree)
            if pidfd >= 0:
                tree.add(child)
                waiting.append(child)
                _send(pidfd, signal.SIGKILL)
                os.close(pidfd)
    return alive


def _open(pid: int, parents: set[int]) -> int:
    """A pidfd, -1 when it is gone: a number may have been given to another process before the descriptor was open,
    the parent tells."""
    try:
        pidfd = pidfd_open(pid)
    except ProcessLookupError:
        return -1
    if _stat(pid)[1] in parents:
        return pidfd
    os.close(pidfd)
    return -1


def _send(pidfd: int, number: int) -> None:
    try:
        pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass


def _has_ended(pid: int) -> bool:
    return _stat(pid)[0] in "ZX"


def _stat(pid: int) -> tuple[str, int]:
    """The state and the parent's number, proc_pid_stat(5); ("X", 0) when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, parent = file.read().rpartition(b") ")[2].split()[:2]
    except OSError:
        return "X", 0
    return state.decode("ascii"), int(parent)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except OSError:
        pass
    return found
