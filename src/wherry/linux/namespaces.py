"""Namespaces: unshare(2), setns(2), the CLONE_ flags, and clone(2) where fork(2) does not do. See namespaces(7)."""

import os
import signal

from wherry.linux.syscalls import NR, syscall

CLONE_PARENT = 0x00008000
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# OCI's name of a namespace type → (flag, file under /proc/PID/ns)
TYPES: dict[str, tuple[int, str]] = {
    "user": (CLONE_NEWUSER, "user"),
    "mount": (CLONE_NEWNS, "mnt"),
    "pid": (CLONE_NEWPID, "pid"),
    "network": (CLONE_NEWNET, "net"),
    "ipc": (CLONE_NEWIPC, "ipc"),
    "uts": (CLONE_NEWUTS, "uts"),
    "cgroup": (CLONE_NEWCGROUP, "cgroup"),
    "time": (CLONE_NEWTIME, "time"),
}


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` for new ones (PID and time: only for children)."""
    syscall(NR.unshare, flags)


def setns(fd: int, flags: int) -> None:
    """Join the namespace `fd` is, or, when it is a pidfd (Linux 5.8), all of the process's that `flags` name."""
    syscall(NR.setns, fd, flags)


def fork() -> int:
    """fork(2) as the bare system call. Only for a single-threaded process: the interpreter's and libc's own after-fork
    work is not done."""
    return syscall(NR.clone, signal.SIGCHLD.value, 0, 0, 0, 0)


def fork_sibling() -> int:
    """`fork`, but the child's parent is the caller's parent, who will reap it (CLONE_PARENT)."""
    return syscall(NR.clone, CLONE_PARENT | signal.SIGCHLD.value, 0, 0, 0, 0)


def sethostname(name: str) -> None:
    """Set the host name of the UTS namespace; at most 64 bytes."""
    data = os.fsencode(name)
    syscall(NR.sethostname, data, len(data))


def setdomainname(name: str) -> None:
    """Set the NIS domain name of the UTS namespace; at most 64 bytes."""
    data = os.fsencode(name)
    syscall(NR.setdomainname, data, len(data))
