"""A host without cgroups: containers run, unlimited, and what needs a cgroup is refused."""

import os
from collections.abc import Callable
from typing import Any

from wherry.linux import cgroupfs
from wherry.runtime.cgroups.base import Cgroup, kill_one, wait_until

_NONE = "no writable cgroup hierarchy is mounted on this host"
_LIMITS = ("memory", "cpu", "pids", "blockIO", "hugepageLimits", "network", "rdma", "unified")


class NoCgroup(Cgroup):
    """Nothing, in place of the cgroup "<parent>/<id>". Its processes are found by the files of the container `id` that
    are mounted in their mount namespace."""

    def __init__(self, path: str) -> None:
        self.path = path

    def create(self, resources: dict[str, Any]) -> list[str]:
        """Raises ValueError when `resources` asks for a limit. Device rules cannot be had either: the engine takes
        CAP_MKNOD away instead."""
        self.update(resources)
        return []

    def attach(self, pid: int) -> None:
        """Nowhere to go."""

    def clone_fd(self) -> int:
        return -1

    def update(self, resources: dict[str, Any]) -> list[str]:
        wanted = [name for name in _LIMITS if _sets_something(resources.get(name))]
        if wanted:
            raise ValueError(f"cannot set limits of {', '.join(wanted)}: {_NONE}")
        return []

    def freeze(self) -> None:
        raise ValueError(f"cannot freeze: {_NONE}")

    def thaw(self) -> None:
        """Nothing was frozen."""

    def frozen(self) -> bool:
        return False

    def exists(self) -> bool:
        return False

    def pids(self) -> list[int]:
        mark = f"/{self.path.rpartition('/')[2]}/"
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and mark in _mounts_of(name)]

    def kill(self) -> None:
        wait_until(
            lambda: not [pid for pid in self.pids() if kill_one(pid)], f"the processes of {self.path} did not end"
        )

    def stats(self) -> dict[str, Any]:
        return {}

    def oom_events(self) -> tuple[int, Callable[[], int]]:
        raise FileNotFoundError(2, _NONE)

    def remove(self) -> None:
        """Nothing was made."""


def _sets_something(value: Any) -> bool:
    """Whether an OCI limit, or any within it, has a value; 0, empty and absent are none."""
    if isinstance(value, dict):
        return any(_sets_something(item) for item in value.values())
    return bool(value)


def _mounts_of(pid: str) -> str:
    try:
        return cgroupfs.read_text(f"/proc/{pid}/mountinfo")
    except OSError:
        return ""
