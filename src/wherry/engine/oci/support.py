"""Limits that this host's kernel cannot set: discarded with a warning, as Docker does, or refused.

Source: moby daemon/daemon_unix.go, verifyPlatformContainerResources.
"""

from wherry.engine.model import HostConfig
from wherry.errors import InvalidArgument
from wherry.runtime.cgroups.features import Features

_NO_DEVICES = "this host has no devices cgroup"
_UNMOUNTED = "or the cgroup is not mounted"


def discard_unsupported(host: HostConfig, features: Features) -> list[str]:
    """Take out of `host` what `features` says this host cannot do; returns the warnings for the client. Raises
    InvalidArgument for what Docker refuses instead."""
    return _memory(host, features) + _cpu(host, features) + _block_io(host, features)


def confine_without_devices(host: HostConfig, features: Features) -> None:
    """Without the devices cgroup nothing watches which devices are opened: a container then only has those it is given,
    and makes none. Raises InvalidArgument for what cannot be held."""
    if features.devices or host.Privileged:
        return
    if {name.upper().removeprefix("CAP_") for name in host.CapAdd or ()} & {"MKNOD"}:
        raise InvalidArgument(f"CAP_MKNOD cannot be added: {_NO_DEVICES}, so it would open every device of the host")
    if host.DeviceCgroupRules:
        raise InvalidArgument(f"device cgroup rules cannot be set: {_NO_DEVICES}")
    for device in host.Devices or ():
        if set(device.CgroupPermissions or "rwm") != set("rwm"):
            raise InvalidArgument(f"access to {device.PathOnHost} cannot be limited: {_NO_DEVICES}")
    if "MKNOD" not in (host.CapDrop or ()):
        host.CapDrop = [*(host.CapDrop or ()), "MKNOD"]


def _memory(host: HostConfig, features: Features) -> list[str]:
    warnings = []
    if host.Memory > 0 and not features.memory_limit:
        warnings.append(f"Your kernel does not support memory limit capabilities {_UNMOUNTED}. Limitation discarded.")
        host.Memory, host.MemorySwap = 0, -1
    if host.Memory > 0 and host.MemorySwap != -1 and not features.swap_limit:
        warnings.append(
            f"Your kernel does not support swap limit capabilities {_UNMOUNTED}. Memory limited without swap."
        )
        host.MemorySwap = -1
    if host.MemorySwappiness is not None and not features.memory_swappiness:
        if host.MemorySwappiness != -1:
            warnings.append(
                f"Your kernel does not support memory swappiness capabilities {_UNMOUNTED}. "
                "Memory swappiness discarded."
            )
        host.MemorySwappiness = None
    if host.MemoryReservation > 0 and not features.memory_reservation:
        warnings.append(
            f"Your kernel does not support memory soft limit capabilities {_UNMOUNTED}. Limitation discarded."
        )
        host.MemoryReservation = 0
    return warnings + _memory_rest(host, features)


def _memory_rest(host: HostConfig, features: Features) -> list[str]:
    warnings = []
    if host.OomKillDisable is not None and not features.oom_kill_disable:
        if host.OomKillDisable:
            warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
        host.OomKillDisable = None
    if host.KernelMemoryTCP > 0 and not features.kernel_memory_tcp:
        warnings.append(
            f"Your kernel does not support kernel memory TCP limit capabilities {_UNMOUNTED}. Limitation discarded."
        )
        host.KernelMemoryTCP = 0
    if host.PidsLimit is not None and not features.pids_limit:
        if host.PidsLimit > 0:
            warnings.append(f"Your kernel does not support PIDs limit capabilities {_UNMOUNTED}. PIDs limit discarded.")
        host.PidsLimit = None
    return warnings


def _cpu(host: HostConfig, features: Features) -> list[str]:
    warnings = []
    if host.NanoCpus > 0 and not features.cpu_cfs:
        raise InvalidArgument(
            f"NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler {_UNMOUNTED}"
        )
    if (host.CpuRealtimePeriod or host.CpuRealtimeRuntime) and not features.cpu_realtime:
        raise InvalidArgument("your kernel does not support CPU real-time scheduler")
    if host.CpuShares > 0 and not features.cpu_shares:
        warnings.append(f"Your kernel does not support CPU shares {_UNMOUNTED}. Shares discarded.")
        host.CpuShares = 0
    if (host.CpuPeriod or host.CpuQuota) and not features.cpu_cfs:
        warnings.append("Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.")
        host.CpuPeriod = host.CpuQuota = 0
    if (host.CpusetCpus or host.CpusetMems) and not features.cpuset:
        warnings.append(f"Your kernel does not support cpuset {_UNMOUNTED}. Cpuset discarded.")
        host.CpusetCpus = host.CpusetMems = ""
    return warnings


# field of HostConfig, field of Features, what the kernel has not got, what is discarded
_BLOCK_IO = (
    ("BlkioWeightDevice", "blkio_weight_device", "Block I/O weight_device", "Weight-device"),
    ("BlkioDeviceReadBps", "blkio_read_bps", "BPS Block I/O read limit", "Block I/O BPS read limit"),
    ("BlkioDeviceWriteBps", "blkio_write_bps", "BPS Block I/O write limit", "Block I/O BPS write limit"),
    ("BlkioDeviceReadIOps", "blkio_read_iops", "IOPS Block read limit", "Block I/O IOPS read limit"),
    ("BlkioDeviceWriteIOps", "blkio_write_iops", "IOPS Block write limit", "Block I/O IOPS write limit"),
)


def _block_io(host: HostConfig, features: Features) -> list[str]:
    warnings = []
    if host.BlkioWeight > 0 and not features.blkio_weight:
        warnings.append(f"Your kernel does not support Block I/O weight {_UNMOUNTED}. Weight discarded.")
        host.BlkioWeight = 0
    for name, feature, missing, discarded in _BLOCK_IO:
        if getattr(host, name) and not getattr(features, feature):
            warnings.append(f"Your kernel does not support {missing} {_UNMOUNTED}. {discarded} discarded.")
            setattr(host, name, [])
    return warnings
