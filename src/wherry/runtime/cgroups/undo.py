"""Taking changed limits back: what a cgroup's files held is read before an update, and written again when it fails."""

import os
from collections.abc import Iterable

from wherry.linux import cgroupfs

# The files an update writes: by name, and by how the name begins and ends.
_LIMITS = frozenset(
    (
        *("cpu.idle", "cpu.shares", "cpu.weight", "cpu.max", "cpu.max.burst", "cpuset.cpus", "cpuset.mems", "pids.max"),
        *("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.swappiness"),
        *("memory.kmem.tcp.limit_in_bytes", "memory.oom_control", "memory.max", "memory.low", "memory.swap.max"),
        *("blkio.weight", "blkio.leaf_weight", "blkio.bfq.weight", "io.max", "io.weight", "io.bfq.weight", "rdma.max"),
        *("net_cls.classid", "net_prio.ifpriomap"),
    )
)
_KINDS = (
    *(("cpu.rt_", "_us"), ("cpu.cfs_", "_us"), ("hugetlb.", ".limit_in_bytes"), ("hugetlb.", ".max")),
    *(("blkio.", "weight_device"), ("blkio.throttle.", "_device")),
)

# Files of `key value` lines, each written by itself: what takes a line back that was not there.
_TABLES = {
    "io.max": "rbps=max wbps=max riops=max wiops=max",
    "io.weight": "default",
    "io.bfq.weight": "default",
    "rdma.max": "hca_handle=max hca_object=max",
    "net_prio.ifpriomap": "0",
}
_PASSES = 3
"""The kernel keeps some limits below others at every moment: what it refuses in one order it takes in another."""


class Undo:
    """What the limits in `directories` are now; `names` are further files an update is going to write."""

    def __init__(self, directories: Iterable[str], names: Iterable[str] = ()) -> None:
        wanted = frozenset(names)
        self._old = {
            f"{directory}/{name}": text
            for directory in directories
            for name in _names(directory)
            if (name in wanted or _is_limit(name)) and (text := _read(f"{directory}/{name}")) is not None
        }

    def restore(self) -> None:
        """Write back what has changed; what the kernel does not take back stays as it is."""
        for _ in range(_PASSES):
            changed = [path for path, old in self._old.items() if _read(path) != old]
            if not changed:
                return
            for path in changed:
                _write_back(path, self._old[path])


def _is_limit(name: str) -> bool:
    return name in _LIMITS or any(name.startswith(first) and name.endswith(last) for first, last in _KINDS)


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _read(path: str) -> str | None:
    """None for what can't be read, as files that can only be written."""
    try:
        return cgroupfs.read_text(path)
    except OSError:
        return None


def _write_back(path: str, old: str) -> None:
    directory, name = os.path.split(path)
    for line in _lines(name, old, _read(path) or ""):
        try:
            cgroupfs.write(directory, name, line)
        except OSError:
            continue


def _lines(name: str, old: str, new: str) -> list[str]:
    """What to write to the file `name` so that it holds `old` instead of `new`."""
    if name == "memory.oom_control":
        return [old.partition("\n")[0].rpartition(" ")[2]]
    if name not in _TABLES and not name.endswith("_device"):
        return [old.strip() or "\n"]
    was, now = (dict(line.split(" ", 1) for line in text.splitlines() if " " in line) for text in (old, new))
    gone = [f"{key} {_TABLES.get(name, '0')}" for key in now if key not in was]
    return gone + [f"{key} {value}" for key, value in was.items() if now.get(key) != value]
