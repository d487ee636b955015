"""What a container uses: samples of its cgroup and its network interfaces, read from outside.

Nothing of the container is asked or trusted: the figures come from cgroup files and from the kernel's view of the
network namespace. A sample is read in a worker thread, so that a slow host slows nobody else.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from wherry.engine.containers import Entry
from wherry.errors import InvalidArgument
from wherry.linux import cgroupfs
from wherry.runtime.cgroups import open_cgroup

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

PERIOD_S = 1.0
_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_CPU_FIELDS = 7
"""user, nice, system, idle, iowait, irq and softirq of /proc/stat; what follows is counted in these already."""
_INTERFACE_FIELDS = ("bytes", "packets", "errors", "dropped")


class Sample(NamedTuple):
    """One reading. `usage` is `Cgroup.stats()`; `networks` has per interface rx_ and tx_ bytes, packets, errors,
    dropped, and is None where the container has no interfaces of its own. Times are ns; `read` 0: it does not run."""

    read: int = 0
    usage: Mapping[str, Any] = MappingProxyType({})
    networks: dict[str, dict[str, int]] | None = None
    system_cpu: int = 0
    online_cpus: int = 0
    memory_total: int = 0


class Reading(NamedTuple):
    """A sample with the one before it, for rates, and whose it is."""

    id: str
    name: str
    now: Sample
    before: Sample


async def stats(engine: "Engine", ref: str, *, stream: bool = True, one_shot: bool = False) -> AsyncIterator[Reading]:
    """The readings of GET /containers/{id}/stats: one a second for as long as the container exists; without `stream`
    a single one, after a second in which its rates were measured, or at once with `one_shot`.

    Raises `NotFound` and `InvalidArgument` before the first reading.
    """
    if stream and one_shot:
        raise InvalidArgument("cannot have stream=true and one-shot=true")
    entry = engine.containers.lookup(ref)
    return _stream(engine, entry) if stream else _single(engine, entry, one_shot)


async def _single(engine: "Engine", entry: Entry, one_shot: bool) -> AsyncIterator[Reading]:
    before = Sample() if one_shot else await take(engine, entry)
    if before.read:
        await asyncio.sleep(PERIOD_S)
    yield _reading(entry, await take(engine, entry), before)


async def _stream(engine: "Engine", entry: Entry) -> AsyncIterator[Reading]:
    before = Sample()
    gone = entry.wait(removal=True)
    try:
        while not gone.done():
            now = await take(engine, entry)
            yield _reading(entry, now, before)
            before = now
            await asyncio.wait({gone}, timeout=PERIOD_S)
    finally:
        entry.forget_wait(gone)


def _reading(entry: Entry, now: Sample, before: Sample) -> Reading:
    return Reading(entry.id, entry.record.name, now, before if now.read else Sample())


async def take(engine: "Engine", entry: Entry) -> Sample:
    """A sample of now; an empty one when the container does not run."""
    record = entry.record
    if record.state.status not in ("running", "paused"):
        return Sample()
    path, pid = engine.cgroup_path(record.id, record), record.state.pid
    own_network = record.host_config.NetworkMode not in ("host", "none")
    sample = await engine.run_blocking(_take, path, pid if own_network else 0)
    return sample if record.state.status in ("running", "paused") and record.state.pid == pid else Sample()


def _take(cgroup_path: str, pid: int) -> Sample:
    return Sample(
        read=time.time_ns(),
        usage=open_cgroup(cgroup_path).stats(),
        networks=_networks(pid) if pid else None,
        system_cpu=_system_cpu(),
        online_cpus=os.sysconf("SC_NPROCESSORS_ONLN"),
        memory_total=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    )


def _system_cpu() -> int:
    """What all CPUs of the host have counted so far, ns (proc(5), /proc/stat)."""
    first = cgroupfs.read_text("/proc/stat").partition("\n")[0].split()
    return sum(int(word) for word in first[1 : 1 + _CPU_FIELDS]) * _NS_PER_TICK


def _networks(pid: int) -> dict[str, dict[str, int]] | None:
    """The counters of the network namespace of `pid`, without loopback (proc(5), /proc/net/dev)."""
    try:
        lines = cgroupfs.read_text(f"/proc/{pid}/net/dev").splitlines()[2:]
    except OSError:
        return None
    found = {}
    for line in lines:
        name, _, counters = line.partition(":")
        values = [int(word) for word in counters.split()]
        if name.strip() != "lo" and len(values) >= 12:
            received = {f"rx_{field}": values[at] for at, field in enumerate(_INTERFACE_FIELDS)}
            sent = {f"tx_{field}": values[8 + at] for at, field in enumerate(_INTERFACE_FIELDS)}
            found[name.strip()] = received | sent
    return found
