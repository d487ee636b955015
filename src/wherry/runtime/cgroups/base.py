"""What a container's cgroup can do, whichever version the host mounts."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from wherry.linux import cgroupfs
from wherry.runtime.cgroups.undo import Undo


class Cgroup:
    """A cgroup in every hierarchy of the host. The drivers are `v1.LegacyCgroup` and `v2.UnifiedCgroup`.

    `resources` is `linux.resources` of the OCI runtime specification 1.2, as decoded from JSON. Only what it names is
    written. Methods raise OSError (with file and value in the text) or ValueError (the request makes no sense or this
    host cannot do it).
    """

    path: str
    """relative to the root of the hierarchies, e.g. "/wherry/<id>" """

    def create(self, resources: dict[str, Any]) -> list[str]:
        """Make the directories, apply `resources`; device rules are always applied (deny all unless allowed, plus what
        every container may use). Returns warnings. On failure everything made is removed again."""
        raise NotImplementedError

    def attach(self, pid: int) -> None:
        """Move process `pid` (0: the calling process) into the cgroup, in all hierarchies."""
        raise NotImplementedError

    def clone_fd(self) -> int:
        """A descriptor for clone3(CLONE_INTO_CGROUP): the child is born in the unified hierarchy's cgroup, which saves
        the 5 ms that moving a process costs an idle kernel. -1 on a host with v1 controllers, where `attach(0)` is
        quick. The caller closes it, and does not call `attach` for that child."""
        raise NotImplementedError

    def update(self, resources: dict[str, Any]) -> list[str]:
        """Change limits of the running container: only what is named. Returns warnings. When one is refused, none has
        changed."""
        before = Undo(self.limit_directories(), resources.get("unified") or ())
        try:
            return self._update(resources)
        except BaseException:
            before.restore()
            raise

    def limit_directories(self) -> list[str]:
        """Where the limits are."""
        raise NotImplementedError

    def _update(self, resources: dict[str, Any]) -> list[str]:
        raise NotImplementedError

    def freeze(self) -> None:
        """Stop all processes; returns when all are. Raises TimeoutError when they do not stop within 10 s."""
        raise NotImplementedError

    def thaw(self) -> None:
        """Undo `freeze`; no error when nothing is frozen."""
        raise NotImplementedError

    def frozen(self) -> bool:
        """Whether the cgroup itself was asked to freeze; False when it does not exist."""
        raise NotImplementedError

    def exists(self) -> bool:
        """Whether `create` was called and `remove` was not."""
        raise NotImplementedError

    def pids(self) -> list[int]:
        """Processes in this cgroup and below, in this process's pid namespace."""
        raise NotImplementedError

    def kill(self) -> None:
        """SIGKILL every process in this cgroup and below, also while they fork and while frozen."""
        raise NotImplementedError

    def stats(self) -> dict[str, Any]:
        """Usage now, in the shape of the `data` of runc's `events --stats`: cpu (ns), memory (bytes), pids, blkio,
        hugetlb. What the host does not account is left out."""
        raise NotImplementedError

    def oom_events(self) -> tuple[int, Callable[[], int]]:
        """(fd, count): `fd` becomes readable when memory ran out in the cgroup (read and discard up to 4096 bytes,
        close it at the end); `count()` is how many processes the OOM killer took so far, 0 when the cgroup is gone.
        Raises FileNotFoundError when the host has no memory controller, OSError."""
        raise NotImplementedError

    def remove(self) -> None:
        """Remove the cgroup and all below it. No error when it is gone; retries EBUSY for 2 s, then raises it."""
        raise NotImplementedError


def kill_all(directory: str, *, patience_s: float = 10.0) -> None:
    """SIGKILL the processes of a cgroup `directory` and below, again and again until none is left (they may fork
    meanwhile). Zombies leave when their parent reaps them, which may be the caller: they do not count."""
    deadline = time.monotonic() + patience_s
    while living := [pid for pid in cgroupfs.processes(directory) if pid and kill_one(pid)]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {living} of {directory} did not end within {patience_s} s of SIGKILL")
        time.sleep(0.001)


def kill_one(pid: int) -> bool:
    """Kill; False when the process is gone or a zombie."""
    try:
        os.kill(pid, signal.SIGKILL)
        state = cgroupfs.read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state not in "ZX"


def wait_until(done: Callable[[], bool], what: str, *, patience_s: float = 10.0) -> None:
    """Poll `done` with growing pauses; TimeoutError(what) after `patience_s`."""
    deadline = time.monotonic() + patience_s
    pause_s = 0.0002
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} within {patience_s} s")
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.02)
