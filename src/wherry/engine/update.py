"""Change the limits and the restart policy of a container, whatever it does at the time.

The row is written before the kernel is told: a running container whose record says `limits_pending` is told again when
the engine comes back.
"""

from typing import TYPE_CHECKING

import msgspec

from wherry.engine.containers import Entry
from wherry.engine.create import write_meta
from wherry.engine.limits import check_limits
from wherry.engine.model import HostConfig
from wherry.engine.oci import resources_of, update_resources
from wherry.engine.validate import check_restart
from wherry.errors import Conflict, Internal, WherryError
from wherry.failpoint import hit

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

# Numbers and words: 0 and "" mean "leave it".
_VALUES = (
    *("BlkioWeight", "CpuShares", "NanoCpus", "CpuPeriod", "CpuQuota", "CpusetCpus", "CpusetMems"),
    *("CpuRealtimePeriod", "CpuRealtimeRuntime", "Memory", "MemorySwap", "MemoryReservation", "KernelMemoryTCP"),
    *("BlkioWeightDevice", "BlkioDeviceReadBps", "BlkioDeviceWriteBps"),
    *("BlkioDeviceReadIOps", "BlkioDeviceWriteIOps"),
)
# None means "leave it".
_OPTIONAL = ("PidsLimit", "OomKillDisable", "MemorySwappiness")
# Resources of the API that a container keeps for its life.
_FIXED = ("CgroupParent", "Devices", "DeviceCgroupRules", "DeviceRequests", "Ulimits", "Init")


async def update(engine: "Engine", ref: str, wanted: HostConfig) -> list[str]:
    """Change what `wanted` names of a container's resources and its restart policy; returns warnings.

    Raises `InvalidArgument` for what cannot be, `Conflict` for what does not go with the container's other limits or
    its state, `Internal` when the kernel refuses; the record has not changed then. POST /containers/{id}/update.
    """
    check_restart(wanted)
    warnings = check_limits(wanted, engine.limits, update=True)
    warnings += [f"{name} cannot be changed by an update: discarded." for name in _FIXED if getattr(wanted, name)]
    entry = engine.containers.lookup(ref)
    await engine.to_the_end(_update(engine, entry, wanted, warnings))
    return warnings


async def _update(engine: "Engine", entry: Entry, wanted: HostConfig, warnings: list[str]) -> None:
    async with entry.lock:
        try:
            entry.check("update")
            changed = _merged(entry.record.host_config, wanted)
            warnings += await _apply(engine, entry, changed, wanted)
        except WherryError as error:
            raise type(error)(f"Cannot update container {entry.id}: {error}") from None
    engine.publish(entry.record, "update")
    engine.background(write_meta(engine, entry.record))


def _merged(old: HostConfig, wanted: HostConfig) -> HostConfig:
    """`old` with what `wanted` changes. Raises `Conflict` where the two do not fit."""
    _check_conflicts(old, wanted)
    new = msgspec.structs.replace(old)
    for name in _VALUES:
        if value := getattr(wanted, name):
            setattr(new, name, value)
    for name in _OPTIONAL:
        if getattr(wanted, name) is not None:
            setattr(new, name, getattr(wanted, name))
    if new.PidsLimit is not None and new.PidsLimit <= 0:
        new.PidsLimit = None
    if wanted.RestartPolicy.Name:
        new.RestartPolicy = wanted.RestartPolicy
    return new


def _check_conflicts(old: HostConfig, wanted: HostConfig) -> None:
    for name, text in (("CpuPeriod", "CPU Period"), ("CpuQuota", "CPU Quota")):
        if wanted.NanoCpus > 0 and getattr(old, name) > 0:
            raise Conflict(f"Conflicting options: Nano CPUs cannot be updated as {text} has already been set")
        if getattr(wanted, name) > 0 and old.NanoCpus > 0:
            raise Conflict(f"Conflicting options: {text} cannot be updated as NanoCPUs has already been set")
    if wanted.Memory and wanted.Memory > old.MemorySwap and not wanted.MemorySwap:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    if old.AutoRemove and wanted.RestartPolicy.Name not in ("", "no"):
        raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")


async def _apply(engine: "Engine", entry: Entry, changed: HostConfig, wanted: HostConfig) -> list[str]:
    """Save, then tell the kernel; taken back when that fails. Returns the runtime's warnings."""
    record, monitor = entry.record, entry.monitor
    old, record.host_config = record.host_config, changed
    record.limits_pending = monitor is not None
    try:
        hit("engine.update.before_row")
        engine.save(record)
        hit("engine.update.after_row")
        if monitor is None:
            return []
        warnings = await monitor.update(update_resources(wanted))
    except BaseException as error:
        record.host_config, record.limits_pending = old, False
        engine.save_or_later(entry)
        if isinstance(error, OSError):
            raise Internal(str(error)) from error
        raise
    record.limits_pending = False
    engine.save_or_later(entry, durable=False)
    return warnings


async def finish(engine: "Engine", entry: Entry) -> None:
    """After a crash in the midst of an update: give the running container the limits its record has. The lock is
    held."""
    if entry.monitor is None or not entry.record.limits_pending:
        return
    await entry.monitor.update(resources_of(entry.record.host_config))
    entry.record.limits_pending = False
