"""Which limits this host's cgroups can set."""

import os
from typing import NamedTuple

from wherry.linux import cgroupfs
from wherry.runtime.cgroups.unified import controllers


class Features(NamedTuple):
    """One answer a limit; the names follow GET /info and moby's sysinfo."""

    memory_limit: bool
    swap_limit: bool
    memory_reservation: bool
    memory_swappiness: bool
    oom_kill_disable: bool
    kernel_memory_tcp: bool
    cpu_shares: bool
    cpu_cfs: bool
    cpu_realtime: bool
    cpuset: bool
    pids_limit: bool
    blkio_weight: bool
    blkio_weight_device: bool
    blkio_read_bps: bool
    blkio_write_bps: bool
    blkio_read_iops: bool
    blkio_write_iops: bool
    devices: bool


def detect(hierarchies: cgroupfs.Hierarchies) -> Features:
    """Look at the files of the mounted hierarchies."""
    return _unified(hierarchies.v2 or "") if hierarchies.unified else _legacy(hierarchies.v1)


def _legacy(points: dict[str, str]) -> Features:
    def has(controller: str, name: str = "cgroup.procs") -> bool:
        return controller in points and os.path.exists(f"{points[controller]}/{name}")

    return Features(
        memory_limit=has("memory", "memory.limit_in_bytes"),
        swap_limit=has("memory", "memory.memsw.limit_in_bytes"),
        memory_reservation=has("memory", "memory.soft_limit_in_bytes"),
        memory_swappiness=has("memory", "memory.swappiness"),
        oom_kill_disable=has("memory", "memory.oom_control"),
        kernel_memory_tcp=has("memory", "memory.kmem.tcp.limit_in_bytes"),
        cpu_shares=has("cpu", "cpu.shares"),
        cpu_cfs=has("cpu", "cpu.cfs_quota_us"),
        cpu_realtime=has("cpu", "cpu.rt_period_us"),
        cpuset=has("cpuset"),
        pids_limit=has("pids"),
        blkio_weight=has("blkio", "blkio.weight"),
        blkio_weight_device=has("blkio", "blkio.weight_device"),
        blkio_read_bps=has("blkio", "blkio.throttle.read_bps_device"),
        blkio_write_bps=has("blkio", "blkio.throttle.write_bps_device"),
        blkio_read_iops=has("blkio", "blkio.throttle.read_iops_device"),
        blkio_write_iops=has("blkio", "blkio.throttle.write_iops_device"),
        devices=has("devices"),
    )


def _unified(point: str) -> Features:
    have = controllers(point)
    memory, cpu, io = "memory" in have, "cpu" in have, "io" in have
    return Features(
        memory_limit=memory,
        swap_limit=memory and _in_a_child(point, "memory.swap.max"),
        memory_reservation=memory,
        memory_swappiness=False,
        oom_kill_disable=False,
        kernel_memory_tcp=False,
        cpu_shares=cpu,
        cpu_cfs=cpu,
        cpu_realtime=False,
        cpuset="cpuset" in have,
        pids_limit="pids" in have,
        blkio_weight=io and _in_a_child(point, "io.weight"),
        blkio_weight_device=io and _in_a_child(point, "io.weight"),
        blkio_read_bps=io,
        blkio_write_bps=io,
        blkio_read_iops=io,
        blkio_write_iops=io,
        devices=True,
    )


def _in_a_child(point: str, name: str) -> bool:
    """The root has no limits: ask its children, of which one has the controller as soon as it is used at all. Without
    such a child nothing is known, and the limit's own write will tell."""
    controller = name.partition(".")[0]
    for child in cgroupfs.descendants(point)[:64]:
        if controller in controllers(child):
            return os.path.exists(f"{child}/{name}")
    return True
