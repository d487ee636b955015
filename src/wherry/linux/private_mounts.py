"""A mount namespace that no process lives in: its file systems are seen through descriptors, by nobody else.

A thread of its own makes the namespace (unshare(2): a thread may have mounts, root and working directory of its own),
fills it, moves its root onto an empty tmpfs and ends. What keeps the namespace is a descriptor: when that is closed, or
the process dies however it dies, the mounts are gone. Nothing shows in the host's mount table at any time.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

from wherry.linux import mounts as m
from wherry.linux.namespaces import CLONE_NEWNS, setns, unshare
from wherry.linux.netns import on_own_thread

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class PrivateMounts(NamedTuple):
    """`root`: a descriptor of the root directory inside; `namespace` keeps the mounts alive."""

    root: int
    namespace: int

    def close(self) -> None:
        """Let go of everything; the mounts go with it."""
        os.close(self.root)
        os.close(self.namespace)


def private_mounts(stage: str, build: Callable[[int], int], of_process: int | None = None) -> PrivateMounts:
    """Run `build(target)` in a thread with a mount namespace of its own: it mounts a root file system and more on the
    directory `target` and returns a descriptor of that root, which becomes the caller's.

    `stage` is any directory of the host; an empty tmpfs is laid over it where nobody sees it. With `of_process`, a
    pidfd, `target` is already the root mount of that process's mount namespace, bare of what is mounted on it. Raises
    what `build` raises, and OSError.
    """
    return on_own_thread(lambda: _make(stage, build, of_process))


def _make(stage: str, build: Callable[[int], int], of_process: int | None) -> PrivateMounts:
    unshare(CLONE_NEWNS)
    namespace = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    held: list[int] = []
    try:
        m.mount("", "/", flags=m.MS_REC | m.MS_PRIVATE)
        return PrivateMounts(_fill(stage, build, of_process, namespace, held), namespace)
    except BaseException:
        os.close(namespace)
        raise
    finally:
        for fd in held:
            os.close(fd)


def _fill(stage: str, build: Callable[[int], int], of_process: int | None, namespace: int, held: list[int]) -> int:
    """Build the tree; every descriptor of ours goes into `held`."""
    borrowed = None
    if of_process is not None:
        borrowed = _root_of(of_process, namespace)
        held.append(borrowed)
    held.append(bottom := m.new_filesystem("tmpfs", [("mode", "0700")], m.ATTR_NOSUID | m.ATTR_NODEV))
    held.append(place := os.open(stage, _DIRECTORY))
    m.move_mount(bottom, place)
    os.mkdir("root", 0o755, dir_fd=bottom)
    held.append(target := os.open("root", _DIRECTORY, dir_fd=bottom))
    if borrowed is not None:
        m.move_mount(borrowed, target)
        target = borrowed
    root = build(target)
    _leave_host(bottom)
    return root


def _root_of(pidfd: int, namespace: int) -> int:
    """A detached copy of the root mount of a process's mount namespace. This thread's root is in there for the time of
    two system calls, with nothing to be looked up by name."""
    setns(pidfd, CLONE_NEWNS)
    try:
        return m.open_tree(m.AT_FDCWD, "/")
    finally:
        setns(namespace, CLONE_NEWNS)


def _leave_host(bottom: int) -> None:
    """Let go of the copies of the host's mounts, which would keep them busy."""
    os.fchdir(bottom)
    try:
        m.pivot_root(".", ".")
    except OSError:
        return  # an initramfs cannot be pivoted away: its copies stay until the namespace goes
    m.umount2(".", m.MNT_DETACH)
