"""What is particular to directories of a unified (v2) hierarchy: enabling controllers, converting v1's numbers.

See Documentation/admin-guide/cgroup-v2.rst.
"""

import errno
import math
from typing import Any

from wherry.linux import cgroupfs


def controllers(directory: str) -> frozenset[str]:
    """The controllers that `directory` may use; none when it does not exist."""
    try:
        return frozenset(cgroupfs.read_text(f"{directory}/cgroup.controllers").split())
    except OSError:
        return frozenset()


def make(directory: str, path: str, wanted: set[str] | frozenset[str]) -> list[str]:
    """Make the cgroup `directory`, which ends in `path`, with `wanted` enabled in every parent. Returns the
    directories that are new."""
    current = directory[: -len(path)]
    made = []
    for part in path.split("/")[1:]:
        _enable(current, wanted)
        current += f"/{part}"
        if cgroupfs.make(current):
            made.append(current)
    return made


def _enable(directory: str, wanted: set[str] | frozenset[str]) -> None:
    missing = wanted - set(cgroupfs.read_text(f"{directory}/cgroup.subtree_control").split())
    if not missing:
        return
    line = " ".join(f"+{name}" for name in sorted(missing))
    try:
        cgroupfs.write(directory, "cgroup.subtree_control", line)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        _evacuate(directory)
        cgroupfs.write(directory, "cgroup.subtree_control", line)


def _evacuate(directory: str) -> None:
    """Inside a container the "root" of the hierarchy is an ordinary cgroup, and one with processes of its own may not
    give controllers to children: move them into a leaf, as every nested engine does."""
    leaf = f"{directory}/init"
    cgroupfs.make(leaf)
    for pid in cgroupfs.read_text(f"{directory}/cgroup.procs").split():
        try:
            cgroupfs.write(leaf, "cgroup.procs", pid)
        except ProcessLookupError:
            continue


def apply_hugetlb(directory: str, limits: list[dict[str, Any]]) -> None:
    """Huge page limits: [{"pageSize": "2MB", "limit": bytes}]."""
    for limit in limits:
        size = limit["pageSize"]
        cgroupfs.write(directory, f"hugetlb.{size}.max", limit["limit"])
        cgroupfs.write_if_there(directory, f"hugetlb.{size}.rsvd.max", limit["limit"])


def bfq_weight(weight: int) -> int:
    """A block IO weight of 10..1000 (CFQ's scale, the API's) on BFQ's scale of 1..1000."""
    return 1 + (weight - 10) * 999 // 990


def io_weight(weight: int) -> int:
    """A block IO weight of 10..1000 on the scale of io.weight, 1..10000."""
    return 1 + (weight - 10) * 9999 // 990


def cpu_weight(shares: int) -> int:
    """cpu.shares (2..262144, default 1024) as cpu.weight (1..10000, default 100), by the curve through the three
    corresponding points that runc (since 1.3.2) and crun use."""
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def swap_max(limit: int, memory_and_swap: int) -> str:
    """memory.swap.max (swap alone) from v1's limit of memory and of memory with swap; "" leaves it alone. Raises
    ValueError for a pair that makes no sense."""
    if not memory_and_swap:
        return ""
    if memory_and_swap == -1:
        return "max"
    if limit == -1:
        raise ValueError("memory+swap limit cannot be set while memory is unlimited")
    if not limit:
        raise ValueError("unable to set swap limit without memory limit")
    if memory_and_swap < limit:
        raise ValueError("memory+swap limit should be >= memory limit")
    return str(memory_and_swap - limit)


def write_raw(directory: str, keys: dict[str, str]) -> None:
    """Write the `unified` map of OCI resources as it is. Raises ValueError for a key that is no plain file name and
    for a controller that is not there."""
    for key, value in keys.items():
        if "/" in key or key.startswith(("cgroup.", ".")):
            raise ValueError(f"unified resource {key!r} must be a file name (no slashes, not a core file)")
        try:
            cgroupfs.write(directory, key, value)
        except OSError as error:
            controller = key.partition(".")[0]
            if controller in controllers(directory) or not isinstance(error, FileNotFoundError | PermissionError):
                raise
            raise ValueError(
                f"unified resource {key!r} can't be set: controller {controller!r} not available"
            ) from None
