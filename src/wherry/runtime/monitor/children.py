"""Children of the monitor: noticing their end, and forking one that is none of the container's."""

import os
import signal
from collections.abc import Callable
from typing import Any

from wherry.linux import namespaces as ns
from wherry.linux import prctl
from wherry.runtime.monitor.poller import POLLIN, Poller


def wake_on_child(poller: Poller, reap: Callable[[], None]) -> None:
    """Call `reap` from the loop after children ended, and make orphans of our descendants our children."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _nothing)
    prctl.set_child_subreaper(True)

    def readable(_: int) -> None:
        os.read(reader, 4096)
        reap()

    poller.watch(reader, POLLIN, readable)


def _nothing(number: int, frame: object) -> None:
    """A handler in Python, so that the wakeup descriptor is written."""


def pid_namespace_is_shared(config: dict[str, Any]) -> bool:
    """Whether processes outlive the container's init: its PID namespace is not its own."""
    namespaces = (config.get("linux") or {}).get("namespaces") or []
    return not any(n.get("type") == "pid" and not n.get("path") for n in namespaces)


def fork_beside() -> int:
    """os.fork, but the child is in our own PID namespace, not in the container's, where our children are born
    otherwise: there it could be signalled, and traced by a container with CAP_SYS_PTRACE."""
    if os.stat("/proc/self/ns/pid").st_ino == os.stat("/proc/self/ns/pid_for_children").st_ino:
        return os.fork()
    ours, children = _open("/proc/self/ns/pid"), _open("/proc/self/ns/pid_for_children")
    try:
        ns.setns(ours, ns.CLONE_NEWPID)
        try:
            return os.fork()
        finally:
            ns.setns(children, ns.CLONE_NEWPID)
    finally:
        os.close(ours)
        os.close(children)


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
