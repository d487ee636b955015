"""Two requests at once, in every order that can be: the first is held at each place where it waits for something, the
second goes as far as it gets, and then both end. What the container is then is one of few things, and true."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.enginelab import Daemon, Lab, scenario
from wherry.engine import exec, remove, rename, stop, update
from wherry.engine.model import ExecConfig, HostConfig, from_wire
from wherry.errors import Conflict, Internal, NotFound, NotModified

Request = Callable[[Daemon, str], Awaitable[object]]

REQUESTS: dict[str, Request] = {
    "start": lambda d, ref: d.start(ref),
    "stop": lambda d, ref: stop.stop(d.engine, ref, timeout=0),
    "restart": lambda d, ref: stop.restart(d.engine, ref, timeout=0),
    "kill": lambda d, ref: stop.kill(d.engine, ref),
    "pause": lambda d, ref: stop.pause(d.engine, ref),
    "unpause": lambda d, ref: stop.unpause(d.engine, ref),
    "rename": lambda d, ref: rename.rename(d.engine, ref, "renamed"),
    "update": lambda d, ref: update.update(d.engine, ref, HostConfig(PidsLimit=77)),
    "exec": lambda d, ref: run_inside(d, ref),
    "remove": lambda d, ref: remove.remove(d.engine, ref),
    "remove by force": lambda d, ref: remove.remove(d.engine, ref, force=True, volumes=True),
}
GONE = ""
# (what it is before, the request that is held, the one that comes between, what it may be afterwards)
PAIRS = [
    ("created", "start", "start", {"running"}),
    ("created", "start", "stop", {"running", "exited", "created"}),
    ("created", "start", "kill", {"running", "exited"}),
    ("created", "start", "rename", {"running"}),
    ("created", "start", "remove", {"running", GONE}),
    ("created", "start", "remove by force", {GONE}),
    ("exited", "start", "update", {"running"}),
    ("running", "stop", "start", {"running", "exited"}),
    ("running", "stop", "pause", {"exited"}),
    ("running", "stop", "restart", {"running", "exited"}),
    ("running", "stop", "remove by force", {GONE}),
    ("running", "restart", "stop", {"running", "exited"}),
    ("running", "restart", "restart", {"running"}),
    ("running", "restart", "remove by force", {GONE}),
    ("running", "kill", "remove", {"exited", GONE}),
    ("running", "kill", "start", {"running", "exited"}),
    ("running", "pause", "kill", {"exited"}),
    ("running", "pause", "stop", {"exited"}),
    ("running", "pause", "remove by force", {GONE}),
    ("paused", "unpause", "kill", {"exited"}),
    ("running", "remove by force", "start", {GONE}),
    ("running", "remove by force", "remove by force", {GONE}),
    ("running", "remove by force", "rename", {GONE}),
    ("running", "update", "stop", {"exited"}),
    ("running", "exec", "pause", {"running"}),
    ("running", "exec", "kill", {"exited"}),
    ("running", "exec", "remove by force", {GONE}),
]


class Held:
    """Awaits a coroutine, and stands still where that one waits for the `count`-th time until `go` is set."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], count: int) -> None:
        self._coroutine = coroutine
        self._count = count
        self.waited = 0
        self.there = asyncio.Event()
        self.go = asyncio.Event()

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = lambda: self._coroutine.send(None)  # noqa: E731
        while True:
            try:
                what = step()
            except StopIteration as end:
                return end.value
            self.waited += 1
            if self.waited == self._count:
                self.there.set()
                yield from self.go.wait().__await__()
            try:
                yield what
                step = lambda: self._coroutine.send(None)  # noqa: E731
            except BaseException as error:
                step = lambda error=error: self._coroutine.throw(error)  # noqa: E731


async def run_inside(d: Daemon, ref: str) -> None:
    config = from_wire(ExecConfig, {"Cmd": ["true"]})
    await exec.start_exec(d.engine, await exec.create_exec(d.engine, ref, config), detach=True, connection=None)


async def prepare(d: Daemon, before: str) -> str:
    ref = await d.create("sleep", "1000", name="box", NetworkMode="bridge", Binds=["/anonymous"])
    if before in ("running", "paused", "exited"):
        await d.start(ref)
    if before == "paused":
        await stop.pause(d.engine, ref)
    elif before == "exited":
        await d.stop(ref)
    return ref


async def quietly(request: Awaitable[object]) -> None:
    """Being told that it cannot be, as things are, is a good answer; whatever else is raised is not."""
    try:
        await request
    except (Conflict, NotFound, NotModified):
        return
    except Internal as error:
        if not str(error).endswith("is not paused"):  # a 500 of Docker's
            raise


async def interleave(d: Daemon, ref: str, first: str, second: str, count: int) -> bool:
    """Whether the first request waits that often."""
    engine = d.engine
    to_the_end, held = engine.to_the_end, []

    async def hold(coroutine: Coroutine[Any, Any, Any]) -> Any:
        engine.to_the_end = to_the_end  # type: ignore[method-assign]
        held.append(Held(coroutine, count))
        return await held[0]

    engine.to_the_end = hold  # type: ignore[method-assign, assignment]
    one = asyncio.create_task(quietly(REQUESTS[first](d, ref)))
    while not (held or one.done()):  # noqa: ASYNC110  nothing here can tell when
        await asyncio.sleep(0)
    there = asyncio.create_task(held[0].there.wait())
    await asyncio.wait({one, there}, return_when=asyncio.FIRST_COMPLETED)
    there.cancel()
    reached = bool(held[0].there.is_set())
    other = asyncio.create_task(quietly(REQUESTS[second](d, ref)))
    if reached:
        await asyncio.wait({other}, timeout=0.03)  # it ends, or waits for the one that is held
    held[0].go.set()
    if second == "pause":
        await other
        await quietly(stop.unpause(engine, ref))  # what was let in before goes on with the others
    async with asyncio.timeout(60):
        await asyncio.gather(one, other)
    return reached


async def is_true(d: Daemon, ref: str, allowed: set[str]) -> None:
    """What is said of the container is so."""
    await d.engine.settle()
    entry = d.engine.containers.get(ref)
    status = entry.status if entry else GONE
    assert status in allowed
    if entry:
        state = entry.record.state
        runs = status in ("running", "paused")
        assert (entry.monitor is not None) == runs == (state.pid > 0)
        assert not runs or f"/{ref}\n" in Path(f"/proc/{state.pid}/cgroup").read_text()
        assert d.engine.containers.lookup(entry.record.name) is entry
        await d.rm(ref, force=True, volumes=True)
    for name in ("box", "renamed"):
        with pytest.raises(NotFound):
            d.engine.containers.lookup(name)


@pytest.mark.parametrize(("before", "first", "second", "allowed"), PAIRS, ids=lambda each: str(each).replace(" ", "-"))
@scenario
async def test_in_every_order(lab: Lab, before: str, first: str, second: str, allowed: set[str]) -> None:
    async with lab.daemon() as d:
        await d.image()
        for count in itertools.count(1):
            ref = await prepare(d, before)
            reached = await interleave(d, ref, first, second, count)
            try:
                await is_true(d, ref, allowed)
            except AssertionError as error:
                raise AssertionError(f"held at wait {count} of {first}: {error}") from error
            if not reached:
                break
        assert count > 1
        await d.clean()
