"""Usage of a cgroup, in the shape of `runc events --stats`, from v1 and v2 files.

Times are nanoseconds, memory bytes. Files that a host has not got leave their part out.
"""

import os
from collections.abc import Callable
from typing import Any

from wherry.linux import cgroupfs

_NS_PER_TICK = 10_000_000
"""cpuacct.stat counts in USER_HZ, which is 100 for user space on every architecture"""


def legacy(dirs: dict[str, str]) -> dict[str, Any]:
    """Statistics of a v1 cgroup; `dirs` is controller -> directory."""
    parts: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
        ("memory", "memory", _legacy_memory),
        ("pids", "pids", _pids),
        ("blkio", "blkio", _legacy_blkio),
        ("hugetlb", "hugetlb", _legacy_hugetlb),
    )
    result: dict[str, Any] = {}
    usage = _try(_legacy_cpu_usage, dirs["cpuacct"]) if "cpuacct" in dirs else None
    throttling = _try(_legacy_throttling, dirs["cpu"]) if "cpu" in dirs else None
    if usage or throttling:
        result["cpu"] = {"usage": usage or {}, "throttling": throttling or {}}
    for key, controller, read in parts:
        if controller in dirs and (found := _try(read, dirs[controller])):
            result[key] = found
    return result


def unified(directory: str) -> dict[str, Any]:
    """Statistics of a v2 cgroup."""
    parts: tuple[tuple[str, Callable[[str], Any]], ...] = (
        ("cpu", _unified_cpu),
        ("memory", _unified_memory),
        ("pids", _pids),
        ("blkio", _unified_io),
        ("hugetlb", _unified_hugetlb),
    )
    return {key: found for key, read in parts if (found := _try(read, directory))}


def _try(read: Callable[[str], Any], directory: str) -> Any:
    """The part, or None when its main file is missing: no such controller, or the cgroup just went."""
    try:
        return read(directory)
    except OSError:
        return None


def _legacy_cpu_usage(directory: str) -> dict[str, Any]:
    times = cgroupfs.read_table(f"{directory}/cpuacct.stat")
    return {
        "total": cgroupfs.read_int(f"{directory}/cpuacct.usage"),
        "percpu": [int(word) for word in cgroupfs.read_text(f"{directory}/cpuacct.usage_percpu").split()],
        "kernel": times.get("system", 0) * _NS_PER_TICK,
        "user": times.get("user", 0) * _NS_PER_TICK,
    }


def _legacy_throttling(directory: str) -> dict[str, int]:
    table = cgroupfs.read_table(f"{directory}/cpu.stat")
    return {
        "periods": table.get("nr_periods", 0),
        "throttledPeriods": table.get("nr_throttled", 0),
        "throttledTime": table.get("throttled_time", 0),
    }


def _legacy_memory(directory: str) -> dict[str, Any]:
    raw = cgroupfs.read_table(f"{directory}/memory.stat")
    memory = {
        "cache": raw.get("cache", 0),
        "usage": _legacy_counter(directory, "memory"),
        "kernel": _try(lambda path: _legacy_counter(path, "memory.kmem"), directory) or {},
        "kernelTCP": _try(lambda path: _legacy_counter(path, "memory.kmem.tcp"), directory) or {},
        "raw": raw,
    }
    if swap := _try(lambda path: _legacy_counter(path, "memory.memsw"), directory):
        memory["swap"] = swap
    return memory


def _legacy_counter(directory: str, name: str) -> dict[str, int]:
    return {
        "usage": cgroupfs.read_int(f"{directory}/{name}.usage_in_bytes"),
        "max": cgroupfs.read_int(f"{directory}/{name}.max_usage_in_bytes"),
        "limit": cgroupfs.read_int(f"{directory}/{name}.limit_in_bytes"),
        "failcnt": cgroupfs.read_int(f"{directory}/{name}.failcnt"),
    }


def _pids(directory: str) -> dict[str, int]:
    limit = cgroupfs.read_text(f"{directory}/pids.max").strip()
    # 0 stands for no limit, as in runc.
    return {
        "current": cgroupfs.read_int(f"{directory}/pids.current"),
        "limit": 0 if limit == "max" else int(limit),
    }


# BFQ's own counters exist beside the throttling layer's, which see every device whatever its scheduler.
_LEGACY_BLKIO = (
    ("ioServiceBytesRecursive", "io_service_bytes_recursive"),
    ("ioServicedRecursive", "io_serviced_recursive"),
    ("ioQueueRecursive", "io_queued_recursive"),
    ("ioServiceTimeRecursive", "io_service_time_recursive"),
    ("ioWaitTimeRecursive", "io_wait_time_recursive"),
    ("ioMergedRecursive", "io_merged_recursive"),
    ("ioTimeRecursive", "time_recursive"),
    ("sectorsRecursive", "sectors_recursive"),
)


def _legacy_blkio(directory: str) -> dict[str, Any]:
    # Which of the files exist depends on kernel and scheduler; that the cgroup exists does not.
    os.stat(directory)
    result = {}
    for key, name in _LEGACY_BLKIO:
        for prefix in ("blkio.bfq.", "blkio.throttle.", "blkio."):
            entries = _try(_blkio_entries, f"{directory}/{prefix}{name}")
            if entries:
                result[key] = entries
                break
        else:
            result[key] = []
    return result


def _blkio_entries(path: str) -> list[dict[str, Any]]:
    """Lines are `8:0 Read 4096`, `8:0 123` (no operation) and, at the end, `Total 4096`."""
    entries = []
    for line in cgroupfs.read_text(path).splitlines():
        words = line.split()
        if len(words) < 2 or ":" not in words[0]:
            continue
        major, minor = words[0].split(":")
        operation = words[1] if len(words) == 3 else ""
        entries.append({"major": int(major), "minor": int(minor), "op": operation, "value": int(words[-1])})
    return entries


def _legacy_hugetlb(directory: str) -> dict[str, Any]:
    return {
        size: {
            "usage": cgroupfs.read_int(f"{directory}/hugetlb.{size}.usage_in_bytes"),
            "max": cgroupfs.read_int(f"{directory}/hugetlb.{size}.max_usage_in_bytes"),
            "failcnt": cgroupfs.read_int(f"{directory}/hugetlb.{size}.failcnt"),
        }
        for size in _huge_page_sizes(directory, ".usage_in_bytes")
    }


def _huge_page_sizes(directory: str, suffix: str) -> list[str]:
    names = os.listdir(directory)
    prefix = "hugetlb."
    return sorted(
        name[len(prefix) : -len(suffix)]
        for name in names
        if name.startswith(prefix) and name.endswith(suffix) and ".rsvd" not in name
    )


def _unified_cpu(directory: str) -> dict[str, Any]:
    table = cgroupfs.read_table(f"{directory}/cpu.stat")
    return {
        "usage": {
            "total": table["usage_usec"] * 1000,
            "kernel": table["system_usec"] * 1000,
            "user": table["user_usec"] * 1000,
        },
        "throttling": {
            "periods": table.get("nr_periods", 0),
            "throttledPeriods": table.get("nr_throttled", 0),
            "throttledTime": table.get("throttled_usec", 0) * 1000,
        },
    }


def _unified_memory(directory: str) -> dict[str, Any]:
    raw = cgroupfs.read_table(f"{directory}/memory.stat")
    events = cgroupfs.read_table(f"{directory}/memory.events")
    usage = {
        "usage": cgroupfs.read_int(f"{directory}/memory.current"),
        "limit": cgroupfs.read_int(f"{directory}/memory.max"),
        "failcnt": events.get("max", 0),
    }
    if peak := _try(cgroupfs.read_int, f"{directory}/memory.peak"):
        usage["max"] = peak
    memory: dict[str, Any] = {"cache": raw.get("file", 0), "usage": usage, "raw": raw}
    swap = _try(cgroupfs.read_int, f"{directory}/memory.swap.current")
    if swap is not None:
        limit = cgroupfs.read_int(f"{directory}/memory.swap.max")
        memory["swap"] = {"usage": swap, "limit": limit, "failcnt": 0}
    return memory


_IO_WORDS = (
    ("rbytes", "ioServiceBytesRecursive", "Read"),
    ("wbytes", "ioServiceBytesRecursive", "Write"),
    ("rios", "ioServicedRecursive", "Read"),
    ("wios", "ioServicedRecursive", "Write"),
)


def _unified_io(directory: str) -> dict[str, Any]:
    result: dict[str, Any] = {"ioServiceBytesRecursive": [], "ioServicedRecursive": []}
    for line in cgroupfs.read_text(f"{directory}/io.stat").splitlines():
        number, *words = line.split()
        values = dict(word.split("=", 1) for word in words if "=" in word)
        major, _, minor = number.partition(":")
        if not minor:
            continue
        for word, key, operation in _IO_WORDS:
            if word in values:
                entry = {"major": int(major), "minor": int(minor), "op": operation, "value": int(values[word])}
                result[key].append(entry)
    return result


def _unified_hugetlb(directory: str) -> dict[str, Any]:
    return {
        size: {
            "usage": cgroupfs.read_int(f"{directory}/hugetlb.{size}.current"),
            "failcnt": cgroupfs.read_table(f"{directory}/hugetlb.{size}.events").get("max", 0),
        }
        for size in _huge_page_sizes(directory, ".current")
    }
