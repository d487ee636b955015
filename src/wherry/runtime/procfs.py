"""Proc file systems of a PID namespace that we are not in.

A procfs shows the PID namespace of the process that opened its context (fsopen(2)), so one has to be born there, where
a tracer may see it. It is made for that:

    caller           keeper: our PID namespace                opener: the other one
    fork ──────────▶ enters the cgroup; other namespaces
                     new and empty; one capability, a filter
                     fork ──────────────────────────────────▶ fsopen, sends the contexts, exits
    ◀── contexts ─── lets it go on where it was stopped

Whoever takes the opener over has the interpreter's memory, an empty root, no descriptor but the connection, and a
filter that lets CAP_SYS_ADMIN do nothing but open contexts, which the caller does not take for procfs unless they are
(`operations.Filesystem`). What it may use up is the container's, by its cgroup.
"""

import os
import signal
import time
from _socket import socket
from collections.abc import Callable
from typing import NoReturn

from wherry.failpoint import hit
from wherry.linux import caps, fdpass, openat, prctl, seccomp
from wherry.linux import mounts as m
from wherry.linux import namespaces as ns
from wherry.linux.syscalls import NR
from wherry.runtime import rootfs
from wherry.runtime.child import end_child
from wherry.runtime.failure import StartError

_ALONE = ns.CLONE_NEWNS | ns.CLONE_NEWNET | ns.CLONE_NEWIPC | ns.CLONE_NEWUTS
_NUDGE_S = 0.05
# The interpreter's own needs, and those of what is done below.
_CALLS = (
    *(NR.brk, NR.mmap, NR.munmap, NR.mremap, NR.mprotect, NR.madvise, NR.futex, NR.rt_sigprocmask, NR.rt_sigaction),
    *(NR.rt_sigreturn, NR.rt_sigtimedwait, NR.getpid, NR.close, NR.exit_group, NR.wait4, NR.kill, NR.sendmsg),
    *(NR.clock_nanosleep, NR.fsopen),
)
_FORK = (NR.clone, signal.SIGCHLD.value)  # and its first argument


def contexts(namespace: int, count: int, prepare: Callable[[], None], patience_s: float) -> list[int]:
    """`count` contexts (fsopen(2)) for procfs of the PID namespace `namespace`, a descriptor. `prepare` is called in
    the process that then does what is left to do: it enters the container's cgroup. Raises StartError, OSError."""
    if not count:
        return []
    ours, theirs = fdpass.pair()
    pid = os.fork()
    if not pid:
        _keep(theirs, namespace, count, prepare, patience_s)
    theirs.close()
    try:
        said, fds = fdpass.receive(ours, 64)
    finally:
        ours.close()
        end_child(pid)
    if len(fds) != count:
        fdpass.close_all(fds)
        raise StartError("Internal", f"no procfs of the PID namespace to join: {said.decode('ascii', 'replace')}")
    return fds


# ---------------------------------------------------------------- the keeper


def _keep(link: socket, namespace: int, count: int, prepare: Callable[[], None], patience_s: float) -> NoReturn:
    """Have the opener born and see that it ends."""
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))
        prctl.set_dumpable(False)
        prepare()
        prctl.close_all_but((link.fileno(), namespace))
        for number in (0, 1, 2):
            os.close(number)
        _leave_host()
        ns.setns(namespace, ns.CLONE_NEWPID)
        os.close(namespace)
        admin = caps.mask(("CAP_SYS_ADMIN",))
        caps.capset(admin, admin, 0)
        seccomp.load_filter(seccomp.allow_only(_CALLS, (_FORK,)))
        opener = ns.fork()
        if not opener:
            hit("runtime-procfs")
            fdpass.send(link, b"procfs", [m.fsopen("proc") for _ in range(count)])
            os._exit(0)
        if not _await(opener, patience_s):
            fdpass.send(link, b"the process that opens it was held up")
    except StartError as error:
        fdpass.send(link, error.message.encode("ascii", "replace")[:64])
    except OSError as error:
        fdpass.send(link, (error.strerror or "").encode("ascii", "replace")[:64])
    finally:
        os._exit(1)


def _leave_host() -> None:
    """Go where nothing of the host is to be found: new namespaces, an empty root."""
    ns.unshare(_ALONE)
    m.mount("", "/", flags=m.MS_REC | m.MS_PRIVATE)
    empty = rootfs.empty_directory()
    place = os.open("/proc", openat.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    m.move_mount(empty, place)
    os.close(place)
    os.fchdir(empty)
    os.close(empty)
    rootfs.pivot()


def _await(pid: int, patience_s: float) -> bool:
    """Wait for our child; a container may stop it, since SIGSTOP cannot be blocked."""
    deadline = time.monotonic() + patience_s
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return False
        os.kill(pid, signal.SIGCONT)
        signal.sigtimedwait((signal.SIGCHLD,), _NUDGE_S)
    return True
