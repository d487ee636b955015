"""`linux.resources` from HostConfig, for a new container and for `docker update`."""

import os
from typing import Any

from wherry.engine.model import HostConfig, ThrottleDevice, WeightDevice
from wherry.errors import InvalidArgument

_PERIOD_US = 100_000
"""of --cpus"""


def resources_of(host: HostConfig) -> dict[str, Any]:
    """Everything but the device rules. Numbers of 0 mean "not asked for". Raises InvalidArgument for a block device
    that does not exist."""
    parts = {
        "memory": _memory(host),
        "cpu": _cpu(host),
        "pids": {"limit": host.PidsLimit} if (host.PidsLimit or 0) > 0 else {},
        "blockIO": _block_io(host),
    }
    return {key: part for key, part in parts.items() if part}


def update_resources(host: HostConfig) -> dict[str, Any]:
    """What `POST /containers/{id}/update` changes: `host` holds only what the client gave. A pids limit of -1 or 0 and
    a swap limit of -1 lift the limit."""
    resources = resources_of(host)
    if host.PidsLimit is not None and host.PidsLimit <= 0:
        resources["pids"] = {"limit": -1}
    if host.MemorySwap < 0:
        resources.setdefault("memory", {})["swap"] = -1
    return resources


def _memory(host: HostConfig) -> dict[str, Any]:
    limits = {
        "limit": host.Memory,
        "reservation": host.MemoryReservation,
        "swap": host.MemorySwap,
        "kernelTCP": host.KernelMemoryTCP,
    }
    memory: dict[str, Any] = {key: value for key, value in limits.items() if value > 0}
    # -1 leaves the host's setting.
    if host.MemorySwappiness is not None and host.MemorySwappiness >= 0:
        memory["swappiness"] = host.MemorySwappiness
    if host.OomKillDisable is not None:
        memory["disableOOMKiller"] = host.OomKillDisable
    return memory


def _cpu(host: HostConfig) -> dict[str, Any]:
    cpu: dict[str, Any] = {}
    if host.CpuShares:
        cpu["shares"] = host.CpuShares
    if host.NanoCpus > 0:
        cpu["period"] = _PERIOD_US
        cpu["quota"] = host.NanoCpus * _PERIOD_US // 1_000_000_000
    limits = {
        "period": host.CpuPeriod,
        "quota": host.CpuQuota,
        "realtimePeriod": host.CpuRealtimePeriod,
        "realtimeRuntime": host.CpuRealtimeRuntime,
        "cpus": host.CpusetCpus,
        "mems": host.CpusetMems,
    }
    return cpu | {key: value for key, value in limits.items() if value}


def _block_io(host: HostConfig) -> dict[str, Any]:
    block: dict[str, Any] = {}
    if host.BlkioWeight:
        block["weight"] = host.BlkioWeight
    if host.BlkioWeightDevice:
        block["weightDevice"] = [_device(each) | {"weight": each.Weight} for each in host.BlkioWeightDevice]
    for key, devices in (
        ("throttleReadBpsDevice", host.BlkioDeviceReadBps),
        ("throttleWriteBpsDevice", host.BlkioDeviceWriteBps),
        ("throttleReadIOPSDevice", host.BlkioDeviceReadIOps),
        ("throttleWriteIOPSDevice", host.BlkioDeviceWriteIOps),
    ):
        if devices:
            block[key] = [_device(each) | {"rate": each.Rate} for each in devices]
    return block


def _device(device: WeightDevice | ThrottleDevice) -> dict[str, int]:
    try:
        number = os.stat(device.Path).st_rdev
    except OSError as error:
        text = (error.strerror or "").lower()
        raise InvalidArgument(f"error opening device {device.Path}: stat {device.Path}: {text}") from None
    return {"major": os.major(number), "minor": os.minor(number)}
