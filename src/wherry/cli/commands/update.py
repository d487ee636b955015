"""`wherry update`: the limits and the restart policy of containers."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.client.engine import quote
from wherry.client.errors import APIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session

# What Docker's client sends of the resources that it has no flag for.
_UNUSED: dict[str, Any] = {
    "CgroupParent": "",
    "BlkioWeightDevice": None,
    "BlkioDeviceReadBps": None,
    "BlkioDeviceWriteBps": None,
    "BlkioDeviceReadIOps": None,
    "BlkioDeviceWriteIOps": None,
    "Devices": None,
    "DeviceCgroupRules": None,
    "DeviceRequests": None,
    "MemorySwappiness": None,
    "OomKillDisable": None,
    "Ulimits": None,
    "CpuCount": 0,
    "CpuPercent": 0,
    "IOMaximumIOps": 0,
    "IOMaximumBandwidth": 0,
}


def _swap(text: str) -> int:
    from wherry.cli.values import parse_swap

    return parse_swap(text)


# flag → field of the body
_FIELDS = {
    "blkio-weight": "BlkioWeight",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "cpus": "NanoCpus",
    "cpuset-cpus": "CpusetCpus",
    "cpuset-mems": "CpusetMems",
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
}


def _restart_policy(text: str) -> dict[str, Any]:
    from wherry.cli.options.create_body import restart_policy

    try:
        return restart_policy(text)
    except StatusError as error:
        raise StatusError(str(error)) from None


def _update(session: Session, parsed: Parsed) -> int:
    if not parsed.changed:
        raise StatusError("you must provide one or more flags when using this command")
    body = {field: parsed[flag] for flag, field in _FIELDS.items()} | _UNUSED
    if parsed["kernel-memory"]:
        body["KernelMemory"] = parsed["kernel-memory"]
    body["PidsLimit"] = parsed["pids-limit"] or None
    body["RestartPolicy"] = _restart_policy(parsed["restart"])
    warnings: list[str] = []
    failures = []
    for name in parsed.arguments:
        try:
            reply = session.engine.json("POST", f"/containers/{quote(name, '/:')}/update", None, body)
        except APIError as error:
            failures.append(str(error))
            continue
        session.out(f"{name}\n")
        warnings += reply["Warnings"] or []
    session.out("".join(f"{warning}\n" for warning in warnings))
    if failures:
        raise StatusError("\n".join(failures))
    return 0


FLAGS = (
    Flag("blkio-weight", "uint16", "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)"),
    Flag("cpu-period", "int", "Limit CPU CFS (Completely Fair Scheduler) period"),
    Flag("cpu-quota", "int", "Limit CPU CFS (Completely Fair Scheduler) quota"),
    Flag("cpu-rt-period", "int", "Limit the CPU real-time period in microseconds"),
    Flag("cpu-rt-runtime", "int", "Limit the CPU real-time runtime in microseconds"),
    Flag("cpu-shares", "int", "CPU shares (relative weight)", short="c"),
    Flag("cpus", "decimal", "Number of CPUs"),
    Flag("cpuset-cpus", "string", "CPUs in which to allow execution (0-3, 0,1)"),
    Flag("cpuset-mems", "string", "MEMs in which to allow execution (0-3, 0,1)"),
    Flag("memory", "bytes", "Memory limit", short="m"),
    Flag("memory-reservation", "bytes", "Memory soft limit"),
    Flag("memory-swap", "bytes", "Swap limit equal to memory plus swap: -1 to enable unlimited swap", parse=_swap),
    Flag("pids-limit", "int", "Tune container pids limit (set -1 for unlimited)"),
    Flag("restart", "string", "Restart policy to apply when a container exits"),
    Flag("kernel-memory", "bytes", "Kernel memory limit (deprecated)", hidden=True),
)
COMMANDS = {"update": Command("[OPTIONS] CONTAINER [CONTAINER...]", _update, FLAGS, least=1)}
