"""What restart policies ask for when the engine starts: a few starts at a time, donors before those who need them.

A container needs another one when it joins its namespaces or links to it, which must run then, or takes its volumes.
Whoever waits, waits no longer than for the attempt; one that is refused because its donor does not run says so, and
stays down.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from wherry.engine import restarts
from wherry.engine.containers import Entry
from wherry.engine.model import Container
from wherry.errors import WherryError

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

log = logging.getLogger("wherry.engine")

PARALLEL = 8
"""How many containers are being started at the same time."""
PATIENCE_S = 30.0
"""How long one start may keep others waiting: its place is given away then, and those who need it try without."""


def start_wanted(engine: "Engine") -> None:
    """Begin to start what policies ask for. Returns at once; each container is `restarting` until it is started."""
    wanted = {entry.id: entry for entry in engine.containers if restarts.wanted_at_boot(entry)}
    needs = {entry.id: _donors(engine, entry.record) & set(wanted) for entry in wanted.values()}
    places = asyncio.Semaphore(PARALLEL)
    begun: dict[str, asyncio.Task[None]] = {}
    for container_id in in_order(needs):
        entry = wanted[container_id]
        before = {begun[donor] for donor in needs[container_id]}
        entry.record.state.status = "restarting"
        entry.restart_task = engine.background(_start_in_turn(engine, entry, before, places))
        begun[container_id] = entry.restart_task


def in_order(needs: dict[str, set[str]]) -> list[str]:
    """The containers of `needs`, those that others need first. Where they need each other in a circle, nobody can be
    first: their needs of one another are dropped from `needs`."""
    while True:
        try:
            return list(TopologicalSorter(needs).static_order())
        except CycleError as error:
            circle = set(error.args[1])
            log.error("containers %s need each other: none can be started first", ", ".join(sorted(circle)))
            for container_id in circle:
                needs[container_id] -= circle


def _donors(engine: "Engine", record: Container) -> set[str]:
    """The ids of the containers `record` needs. Those that do not exist are not this one's concern: its start names
    them."""
    host = record.host_config
    modes = (host.NetworkMode, host.PidMode, host.IpcMode)
    names = [mode.removeprefix("container:") for mode in modes if mode.startswith("container:")]
    names += [source.partition(":")[0] for source in host.VolumesFrom or ()]
    names += record.links.values()
    found = set()
    for name in names:
        try:
            found.add(engine.containers.lookup(name).id)
        except WherryError:
            continue
    return found - {record.id}


async def _start_in_turn(
    engine: "Engine", entry: Entry, before: set[asyncio.Task[None]], places: asyncio.Semaphore
) -> None:
    if before:
        _, late = await asyncio.wait(before, timeout=PATIENCE_S)
        if late:
            log.error("container %s is started without waiting any longer for those it needs", entry.id)
    async with _place(places, entry):
        await restarts.start_again(engine, entry)


@asynccontextmanager
async def _place(places: asyncio.Semaphore, entry: Entry) -> AsyncIterator[None]:
    """One of the `places`, until the end or for as long as is fair."""
    await places.acquire()
    given_away = False

    def give_away() -> None:
        nonlocal given_away
        given_away = True
        log.error("container %s takes long to start: others do not wait for it any longer", entry.id)
        places.release()

    late = asyncio.get_running_loop().call_later(PATIENCE_S, give_away)
    try:
        yield
    finally:
        late.cancel()
        if not given_away:
            places.release()
