"""End a process with everything it started, wherever that went: daemons that left its session and group included.

It works from outside, by /proc and pidfds, on any cgroup version, and asks nothing of the container's monitor. What
makes it whole is that the root of such a tree adopts the orphans among its descendants (PR_SET_CHILD_SUBREAPER, set
by the runtime): as long as it lives, all of them are below it.
"""

import os
import signal

from wherry.linux.pidfd import pidfd_open, pidfd_send_signal

_ROUNDS = 1000
"""How many times the tree is looked at: a generation that was being forked shows up in the next round."""


def kill_tree(pid: int, parent: int) -> None:
    """Kill process `pid`, if it still is a child of `parent`, and its descendants. Each is stopped first: what is
    stopped forks no more."""
    held: dict[int, int] = {}
    try:
        if not _hold(held, pid, {parent}):
            return
        for _ in range(_ROUNDS):
            if not _stop_new(held):
                break
        for pidfd in held.values():
            _send(pidfd, signal.SIGKILL)
    finally:
        for pidfd in held.values():
            os.close(pidfd)


def _stop_new(held: dict[int, int]) -> bool:
    """Hold and stop the children that are not held yet; False when there are none."""
    new = [child for pid in tuple(held) for child in _children(pid) if child not in held]
    return any(_hold(held, child, set(held)) for child in new)


def _hold(held: dict[int, int], pid: int, parents: set[int]) -> bool:
    """A number may have been given to another process before the descriptor was open: the parent tells."""
    try:
        pidfd = pidfd_open(pid)
    except ProcessLookupError:
        return False
    if _parent(pid) not in parents:
        os.close(pidfd)
        return False
    held[pid] = pidfd
    _send(pidfd, signal.SIGSTOP)
    return True


def _send(pidfd: int, number: int) -> None:
    try:
        pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass


def _parent(pid: int) -> int:
    """The parent's number; 0 when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except OSError:
        pass
    return found
