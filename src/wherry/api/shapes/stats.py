"""Usage of a container on the wire: definition ContainerStatsResponse."""

from typing import Any

from wherry.api.times import rfc3339
from wherry.engine.stats import Reading, Sample

_BLKIO = (
    ("io_service_bytes_recursive", "ioServiceBytesRecursive"),
    ("io_serviced_recursive", "ioServicedRecursive"),
    ("io_queue_recursive", "ioQueueRecursive"),
    ("io_service_time_recursive", "ioServiceTimeRecursive"),
    ("io_wait_time_recursive", "ioWaitTimeRecursive"),
    ("io_merged_recursive", "ioMergedRecursive"),
    ("io_time_recursive", "ioTimeRecursive"),
    ("sectors_recursive", "sectorsRecursive"),
)


def stats(reading: Reading, cgroup_version: int) -> dict[str, Any]:
    """One reading of GET /containers/{id}/stats. Zeros of a container that does not run keep their shape."""
    now = reading.now
    shown = {
        "name": "/" + reading.name,
        "id": reading.id,
        "read": rfc3339(now.read),
        "preread": rfc3339(reading.before.read),
        "pids_stats": _without_zeros(now.usage.get("pids", {}), ("current", "limit")),
        "blkio_stats": _blkio(now.usage.get("blkio"), cgroup_version),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(now),
        "precpu_stats": _cpu(reading.before),
        "memory_stats": _memory(now, cgroup_version),
    }
    if now.networks:
        shown["networks"] = now.networks
    return shown


def _cpu(sample: Sample) -> dict[str, Any]:
    cpu = sample.usage.get("cpu", {})
    used, throttled = cpu.get("usage", {}), cpu.get("throttling", {})
    usage = {"total_usage": used.get("total", 0)}
    if used.get("percpu"):
        usage["percpu_usage"] = used["percpu"]
    usage |= {"usage_in_kernelmode": used.get("kernel", 0), "usage_in_usermode": used.get("user", 0)}
    shown: dict[str, Any] = {"cpu_usage": usage}
    if sample.read:
        shown |= {"system_cpu_usage": sample.system_cpu, "online_cpus": sample.online_cpus}
    return shown | {
        "throttling_data": {
            "periods": throttled.get("periods", 0),
            "throttled_periods": throttled.get("throttledPeriods", 0),
            "throttled_time": throttled.get("throttledTime", 0),
        }
    }


def _memory(sample: Sample, cgroup_version: int) -> dict[str, Any]:
    memory = sample.usage.get("memory")
    if not memory:
        return {}
    counter = memory["usage"]
    shown: dict[str, Any] = {"usage": counter["usage"]}
    if cgroup_version == 1:
        shown["max_usage"] = counter.get("max", 0)
    shown["stats"] = memory["raw"]
    if counter.get("failcnt"):
        shown["failcnt"] = counter["failcnt"]
    limit = counter.get("limit", 0)
    return shown | {"limit": limit if 0 < limit < sample.memory_total else sample.memory_total}


def _blkio(blkio: dict[str, Any] | None, cgroup_version: int) -> dict[str, Any]:
    """On cgroup v2 Docker tells bytes alone, with operations in small letters; ours has the counts as well."""
    if blkio is None:
        return {name: None for name, _ in _BLKIO}
    if cgroup_version == 1:
        return {name: blkio.get(key, []) for name, key in _BLKIO}
    return {
        name: [entry | {"op": entry["op"].lower()} for entry in blkio[key]] if blkio.get(key) else None
        for name, key in _BLKIO
    }


def _without_zeros(values: dict[str, int], names: tuple[str, ...]) -> dict[str, int]:
    return {name: values[name] for name in names if values.get(name)}
