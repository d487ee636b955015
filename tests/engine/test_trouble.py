"""When something fails that should not: nobody waits in vain, nothing is left, the engine goes on."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.enginelab import Lab, ip_json, scenario
from wherry.engine import exits, images, launch, prune, removal, sandbox, stop, tending, wait
from wherry.errors import Conflict, Internal, WherryError
from wherry.runtime.cgroups import open_cgroup

FOREVER = ("sleep", "1000")


class Fault:
    """A failpoint that raises at its first pass."""

    def __init__(self, module: Any, name: str, error: Exception) -> None:
        self._module, self._name, self._error = module, name, error
        self._before: Callable[[str], None] = module.hit
        self.passed = False

    def __enter__(self) -> "Fault":
        self._module.hit = self
        return self

    def __exit__(self, *_: object) -> None:
        self._module.hit = self._before

    def __call__(self, name: str) -> None:
        if name == self._name and not self.passed:
            self.passed = True
            raise self._error


ERRORS = [RuntimeError("surprise"), OSError(28, "No space left on device", "/some/where")]
START_POINTS = ["before_network", "after_network", "before_spawn", "after_spawn"]


@pytest.mark.parametrize("error", ERRORS, ids=["defect", "os"])
@pytest.mark.parametrize("point", START_POINTS)
@scenario
async def test_a_start_that_fails_unexpectedly(lab: Lab, point: str, error: Exception) -> None:
    async with lab.daemon() as d:
        await d.image()
        for auto_remove in (True, False):
            ref = await d.create(*FOREVER, AutoRemove=auto_remove, NetworkMode="bridge")
            client = await d.attach(ref)
            removed = await wait.wait(d.engine, ref, "removed")
            with Fault(launch, f"engine.start.{point}", error) as fault, pytest.raises(Internal) as caught:
                await d.start(ref)
            assert fault.passed
            assert str(error.args[-1]).lower() in str(caught.value).lower() or "no space left" in str(caught.value)
            assert await client.read_all() == b""  # the conversation ends
            if auto_remove:
                assert (await asyncio.wait_for(removed.result(), 60))[0] == 128
                assert d.engine.containers.get(ref) is None
                continue
            removed.cancel()
            state = d.entry(ref).record.state
            assert (state.status, state.pid, state.exit_code, state.error) == ("created", 0, 128, str(caught.value))
            assert not open_cgroup(d.engine.cgroup_path(ref, d.entry(ref).record)).exists()
            await d.start(ref)
            assert d.entry(ref).status == "running"
        await d.clean()


@pytest.mark.parametrize("auto_remove", [True, False])
@pytest.mark.parametrize("point", ["before_network", "before_row", "after_row"])
@scenario
async def test_an_exit_that_cannot_be_dealt_with(lab: Lab, point: str, auto_remove: bool) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run(*FOREVER, AutoRemove=auto_remove)
        waiters = [await wait.wait(d.engine, ref, condition) for condition in wait.CONDITIONS]
        with Fault(exits, f"engine.exit.{point}", RuntimeError("surprise")) as fault:
            await asyncio.wait_for(stop.kill(d.engine, ref), 60)
            for waiter in waiters if auto_remove else waiters[:2]:
                assert (await asyncio.wait_for(waiter.result(), 60))[0] == 137
        waiters[2].cancel()
        assert fault.passed
        await d.engine.settle()
        if d.engine.containers.get(ref) is not None:
            assert d.entry(ref).status == "exited"
        await tending.tend_once(d.engine)
        await d.clean()


@pytest.mark.parametrize("point", ["before_row", "after_rename", "after_volumes"])
@scenario
async def test_a_removal_that_fails_can_be_tried_again(lab: Lab, point: str) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sleep", "0.2", AutoRemove=True)
        waiter = await wait.wait(d.engine, ref, "removed")
        with Fault(removal, f"engine.remove.{point}", RuntimeError("surprise")):
            assert await asyncio.wait_for(waiter.result(), 60) == (0, "surprise")
        await d.engine.settle()
        assert d.entry(ref).status == "dead"
        with pytest.raises(Conflict):
            await d.start(ref)
        await d.rm(ref)
        await tending.tend_once(d.engine)  # empties the trash
        await d.clean()


@scenario
async def test_what_cannot_be_pruned_keeps_nothing_else(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        refs = [await d.create("true") for _ in range(3)]
        with Fault(removal, "engine.remove.before_row", RuntimeError("surprise")) as fault:
            pruned = await prune.prune_containers(d.engine, {})
        assert fault.passed
        assert len(pruned.deleted) == 2
        assert [d.entry(ref).status for ref in refs if ref not in pruned.deleted] == ["dead"]
        await d.clean()


@scenario
async def test_a_record_that_cannot_be_written_is_written_later(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run(*FOREVER)
        write = d.engine.containers.save

        def fail(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        d.engine.containers.save = fail  # type: ignore[method-assign]
        await d.stop(ref)
        assert (d.entry(ref).status, d.entry(ref).unsaved) == ("exited", True)
        d.engine.containers.save = write  # type: ignore[method-assign]
        await tending.tend_once(d.engine)
        assert not d.entry(ref).unsaved
        row = d.engine.db.one("SELECT status FROM containers WHERE id = ?", (ref,))
        assert row == ("exited",)
        await d.clean()


@scenario
async def test_what_others_break_is_repaired_without_harm(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run(*FOREVER, NetworkMode="bridge")
        assert await tending.tend_once(d.engine) == []
        bridge = next(link["ifname"] for link in ip_json("link") if link["ifname"].startswith("wherry"))
        ip_json("link", "set", bridge, "down")
        stray = "f" * 64
        os.makedirs(d.engine.paths.bundle(stray) / "rootfs")
        repaired = await tending.tend_once(d.engine)
        assert any(f"bridge {bridge} is down" in line for line in repaired)
        assert any(stray in line for line in repaired)
        assert await tending.tend_once(d.engine) == []
        assert d.entry(ref).status == "running"
        await d.clean()


@scenario
async def test_repairs_and_starts_keep_out_of_each_others_way(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        stray = d.engine.paths.bundle("e" * 64)

        async def disturb() -> int:
            rounds = 0
            while not done.is_set():
                os.makedirs(stray, exist_ok=True)  # so that there is always something to repair
                await tending.tend_once(d.engine)
                rounds += 1
            return rounds

        done = asyncio.Event()
        tending_too = asyncio.create_task(disturb())

        async def live(number: int) -> None:
            for _ in range(3):
                ref = await d.run("sleep", "0.1", NetworkMode="bridge", name=f"c{number}")
                assert await d.finish(ref) == 0
                await d.rm(ref)

        await asyncio.gather(*(live(number) for number in range(4)))
        done.set()
        assert await tending_too > 0
        await d.clean()


@scenario
async def test_a_repair_waits_for_what_is_being_done(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.create(*FOREVER)
        os.makedirs(d.engine.paths.bundle("e" * 64))
        async with d.entry(ref).lock:
            tend = asyncio.create_task(tending.tend_once(d.engine))
            await asyncio.sleep(0.3)
            assert not tend.done()
        assert len(await asyncio.wait_for(tend, 60)) == 1
        await d.clean()


@scenario
async def test_tending_costs_little(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        for _ in range(5):
            await d.run(*FOREVER, NetworkMode="bridge")
        fastest = 1.0
        for _ in range(10):
            started = time.process_time()
            assert await tending.tend_once(d.engine) == []
            fastest = min(fastest, time.process_time() - started)
        assert fastest < 0.02, fastest
        await d.clean()


class SlowFile:
    """An archive that does not come."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def read(self, _size: int = -1) -> bytes:
        self.gate.wait(60)
        return b""


@scenario
async def test_slow_uploads_do_not_hold_the_engine_up(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        slow = SlowFile()
        uploads = [
            asyncio.create_task(images.import_(d.engine, slow))  # type: ignore[arg-type]
            for _ in range(40)
        ]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(40):
            ref = await d.run("true", NetworkMode="bridge")
            assert await d.finish(ref) == 0
        slow.gate.set()
        results = await asyncio.gather(*uploads, return_exceptions=True)
        assert all(isinstance(result, str | WherryError) for result in results), results
        await d.clean()


@scenario
async def test_ip_masq_reaches_the_network(lab: Lab) -> None:
    async with lab.daemon(ip_masq=False) as d:
        assert d.engine.network.options.ip_masq is False


@scenario
async def test_the_leftovers_of_a_start_are_tried_again(lab: Lab) -> None:
    """A step of the undoing that fails keeps no other from being done."""
    async with lab.daemon() as d:
        await d.image()
        ref = await d.create("nope", NetworkMode="bridge")
        remove_bundle = sandbox.remove_bundle

        def fail(*_: object) -> None:
            sandbox.remove_bundle = remove_bundle
            raise OSError(5, "Input/output error")

        sandbox.remove_bundle = fail
        with pytest.raises(WherryError, match="executable file not found"):
            await d.start(ref)
        assert d.engine.network.endpoint(ref) is None
        await tending.tend_once(d.engine)  # unless the engine itself, which was told of the failure, was quicker
        assert not d.engine.paths.bundle(d.engine.containers.lookup(ref).id).exists()
        await d.clean()
