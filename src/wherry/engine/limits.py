"""Limits on what a container may use: which make no sense, and which this machine cannot set, in Docker's words.

Source: moby daemon/daemon_unix.go, verifyPlatformContainerResources.
"""

import os

from wherry.engine.model import HostConfig, Ulimit
from wherry.engine.oci.support import discard_unsupported
from wherry.errors import InvalidArgument
from wherry.linux.rlimits import NUMBERS as RLIMITS
from wherry.runtime.cgroups.features import Features

MINIMUM_MEMORY = 6 << 20


def check_limits(host: HostConfig, features: Features, *, update: bool = False) -> list[str]:
    """Raise `InvalidArgument` for a limit that cannot be; take those out of `host` that this kernel (`features`) or
    Linux has not got. Returns the warnings for the client. With `update`, `host` holds only what is to change."""
    warnings = discard_unsupported(host, features) + _discard_windows(host)
    if not -1000 <= host.OomScoreAdj <= 1000:
        raise InvalidArgument(f"Invalid value {host.OomScoreAdj}, range for oom score adj is [-1000, 1000]")
    if host.ShmSize < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    _check_memory(host, update=update)
    if host.OomKillDisable and not host.Memory:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )
    _check_cpu(host)
    for what, wanted, path, noun in (
        ("cpus", host.CpusetCpus, "/sys/devices/system/cpu/online", "CPUs"),
        ("mems", host.CpusetMems, "/sys/devices/system/node/online", "memory nodes"),
    ):
        _check_cpuset(what, wanted, path, noun)
    if host.BlkioWeight and not 10 <= host.BlkioWeight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    _check_devices(host)
    check_ulimits(host.Ulimits or [])
    return warnings


def _discard_windows(host: HostConfig) -> list[str]:
    """What only a Windows daemon has."""
    if host.IOMaximumIOps:
        raise InvalidArgument("invalid option: QoS maximum IOPs configuration is not supported on linux")
    if host.IOMaximumBandwidth:
        raise InvalidArgument("invalid option: QoS maximum bandwidth configuration is not supported on linux")
    warnings = []
    for name, what in (("CpuPercent", "percent"), ("CpuCount", "count")):
        if getattr(host, name):
            warnings.append(f"linux does not support CPU {what}. {what.capitalize()} discarded.")
            setattr(host, name, 0)
    if host.KernelMemory:
        # An API of 1.42 and later has not got it; Linux 5.4 gave it up.
        warnings.append("Your kernel does not support kernel memory limit capabilities. Limitation discarded.")
        host.KernelMemory = 0
    return warnings


def _check_devices(host: HostConfig) -> None:
    for each in host.BlkioWeightDevice or ():
        if each.Weight and not 10 <= each.Weight <= 1000:
            raise InvalidArgument(f"Range of blkio weight is from 10 to 1000: {each.Path} has {each.Weight}")
    for mapping in host.Devices or ():
        access = mapping.CgroupPermissions or "rwm"
        if not set(access) <= set("rwm") or len(set(access)) != len(access):
            raise InvalidArgument(f"invalid device permissions for {mapping.PathOnHost}: {mapping.CgroupPermissions}")


def check_ulimits(limits: list[Ulimit]) -> None:
    """Raises InvalidArgument for one of an unknown name, or whose soft limit is above its hard one."""
    for limit in limits:
        if f"RLIMIT_{limit.Name.upper()}" not in RLIMITS:
            raise InvalidArgument(f"wrong rlimit value: RLIMIT_{limit.Name.upper()}")
        if limit.Hard != -1 and (limit.Soft == -1 or limit.Soft > limit.Hard):
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.Name}: {limit.Soft} > {limit.Hard}"
            )


def _check_memory(host: HostConfig, *, update: bool) -> None:
    if host.Memory and host.Memory < MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if host.Memory and 0 < host.MemorySwap < host.Memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if not host.Memory and host.MemorySwap > 0 and not update:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.MemorySwappiness is not None and not -1 <= host.MemorySwappiness <= 100:
        raise InvalidArgument(f"Invalid value: {host.MemorySwappiness}, valid memory swappiness range is 0-100")
    if 0 < host.MemoryReservation < MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if host.Memory and host.MemoryReservation > host.Memory:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")


def _check_cpu(host: HostConfig) -> None:
    if host.CpuShares < 0:
        raise InvalidArgument(f"invalid CPU shares ({host.CpuShares}): value must be a positive integer")
    if host.NanoCpus and host.CpuPeriod:
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if host.NanoCpus and host.CpuQuota:
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    count = os.cpu_count() or 1
    if host.NanoCpus < 0 or host.NanoCpus > count * 1_000_000_000:
        raise InvalidArgument(f"range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available")
    if host.CpuPeriod and not 1000 <= host.CpuPeriod <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < host.CpuQuota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    for name in ("CpuRealtimePeriod", "CpuRealtimeRuntime"):
        if getattr(host, name) < 0:
            raise InvalidArgument(f"invalid {name}: {getattr(host, name)} is negative")
    if host.CpuRealtimePeriod and host.CpuRealtimeRuntime > host.CpuRealtimePeriod:
        raise InvalidArgument("cpu real-time runtime cannot be higher than cpu real-time period")


def _check_cpuset(what: str, wanted: str, online: str, noun: str) -> None:
    if not wanted:
        return
    asked = parse_cpuset(wanted)
    if asked is None:
        raise InvalidArgument(f"Invalid value {wanted} for cpuset {what}: invalid format: {wanted}")
    try:
        with open(online, encoding="ascii") as file:
            available = file.read().strip()
    except OSError:
        available = "0"
    if not asked <= (parse_cpuset(available) or set()):
        raise InvalidArgument(f"Requested {noun} are not available - requested {wanted}, available: {available}")


def parse_cpuset(text: str) -> set[int] | None:
    """ "0-2,4" as a set; None when it is no such list."""
    out: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or len(first) > 6 or len(last) > 6:
            return None
        if int(last or first) < int(first):
            return None
        out.update(range(int(first), int(last or first) + 1))
    return out
