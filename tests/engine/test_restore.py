"""A daemon that ends, and what its successor finds."""

import asyncio
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.engine.enginelab import Daemon, Lab, crash_at, scenario, until
from wherry.engine import restore
from wherry.engine.model import Container
from wherry.errors import Conflict, WherryError
from wherry.failpoint import hit
from wherry.runtime.client import EventHandler, Monitor, connect

FOREVER = ("sleep", "1000")
COUNTER = ("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done")


@scenario
async def test_containers_go_on_without_the_daemon(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run(*COUNTER, NetworkMode="bridge", name="counter")
        before = d.entry(ref).record
    async with lab.daemon() as d:
        record = d.entry("counter").record
        assert (record.state.status, record.state.pid) == ("running", before.state.pid)
        assert record.state.started_at == before.state.started_at
        assert record.networks == before.networks
        assert await d.exec(ref, "echo", "hello") == (0, "hello\n")
        assert await d.leaks() == []
        await d.stop(ref)
        numbers = [int(line) for line in (await d.output(ref)).split()]
        assert numbers == list(range(1, len(numbers) + 1))
        await d.clean()


@scenario
async def test_what_ended_while_nobody_looked_is_told_truly(lab: Lab) -> None:
    gate = lab.root / "gate"
    gate.mkdir()
    wait = "while [ ! -e /gate/open ]; do sleep 0.01; done; "
    async with lab.daemon() as d:
        await d.image()
        fields = {"Binds": [f"{gate}:/gate"]}
        seven = await d.run("sh", "-c", wait + "exit 7", **fields)
        gone = await d.run("sh", "-c", wait + "exit 0", AutoRemove=True, Volumes={"/v": {}}, **fields)
        again = await d.run("sh", "-c", f"echo run; {wait}", RestartPolicy={"Name": "always"}, **fields)
        pids = [d.entry(ref).record.state.pid for ref in (seven, gone, again)]
        exit_record = d.engine.paths.exit_record(d.entry(seven).id)
    (gate / "open").touch()
    began = time.time_ns()
    await until(lambda: not any(alive(pid) for pid in pids) and exit_record.exists())
    ended = time.time_ns()
    (gate / "open").unlink()
    async with lab.daemon() as d:
        state = d.entry(seven).record.state
        assert (state.status, state.exit_code, state.pid) == ("exited", 7, 0)
        assert began - 10**9 <= state.finished_at <= ended
        assert d.engine.containers.get(gone) is None
        assert d.engine.volumes.list() == []
        await d.until(lambda: d.entry(again).status == "running")
        await d.clean()


@scenario
async def test_a_killed_monitor_is_noticed_and_its_container_ended(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run(*FOREVER, NetworkMode="bridge")
        assert d.entry(ref).monitor is not None
        pid = d.entry(ref).record.state.pid
        os.kill(await monitor_pid(d, ref), signal.SIGKILL)
        await d.until(lambda: d.entry(ref).status == "exited", 5)
        assert d.entry(ref).record.state.exit_code == 137
        await d.until(lambda: not alive(pid))
        assert await d.leaks() == []
        await d.start(ref)
        assert d.entry(ref).status == "running"
        await d.clean()


@scenario
async def test_a_monitor_killed_while_the_daemon_was_away(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run(*FOREVER, NetworkMode="bridge")
        killed, pid = await monitor_pid(d, ref), d.entry(ref).record.state.pid
    os.kill(killed, signal.SIGKILL)
    async with lab.daemon() as d:
        state = d.entry(ref).record.state
        assert (state.status, state.exit_code, state.pid) == ("exited", 137, 0)
        await d.until(lambda: not alive(pid))
        assert await d.leaks() == []
        await d.start(ref)
        await d.clean()


@pytest.mark.parametrize("policy", ["no", "always"])
@scenario
async def test_an_end_while_the_daemon_takes_it_back(lab: Lab, policy: str) -> None:
    async def connect_and_end(path: str, on_event: EventHandler) -> Monitor:
        monitor = await connect(path, on_event)
        os.kill(monitor.pid, signal.SIGKILL)
        await until(lambda: monitor._exited)
        return monitor

    async with lab.daemon() as d:
        await d.image()
        ref = await d.run(*FOREVER, RestartPolicy={"Name": policy})
    restore.connect = connect_and_end  # type: ignore[attr-defined]  # in a process of its own
    async with lab.daemon() as d:
        if policy == "always":
            await d.until(lambda: d.entry(ref).status == "running")
        await d.engine.settle()
        state = d.entry(ref).record.state
        assert (state.status, state.exit_code) == (("running", 0) if policy == "always" else ("exited", 137))
        assert [m["Action"] for m in d.engine.events._history if m["Action"] in ("die", "start")] == (
            ["die", "start"] if policy == "always" else ["die"]
        )
        assert d.entry(ref).record.restart_count == 0
        await d.clean()


@scenario
async def test_the_containers_of_another_engine_are_not_ended(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run(*FOREVER)
        pid = d.entry(ref).record.state.pid
    mine, lab.data_root = lab.data_root, str(lab.root / "elsewhere")
    with pytest.raises(Conflict, match=f"has containers of the engine in {mine}: use another --exec-root$"):
        async with lab.daemon():
            pass
    lab.data_root = mine
    async with lab.daemon() as d:
        assert (d.entry(ref).status, d.entry(ref).record.state.pid) == ("running", pid)
        await d.clean()
    lab.data_root = str(lab.root / "elsewhere")
    async with lab.daemon():
        pass  # nothing is left that could be harmed


@scenario
async def test_after_a_reboot_nothing_runs_and_policies_hold(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        plain = await d.run(*FOREVER)
        always = await d.run(*FOREVER, RestartPolicy={"Name": "always"}, NetworkMode="bridge")
        stopped = await d.run(*FOREVER, RestartPolicy={"Name": "unless-stopped"})
        await d.stop(stopped)
        monitors = [await monitor_pid(d, ref) for ref in (plain, always)]
        for ref in (plain, always):
            record = d.entry(ref).record
            record.boot_id = "of another boot"
            d.engine.save(record)
        d.engine.paths.boot_id.write_text("of another boot\n")
    for pid in monitors:
        os.kill(pid, signal.SIGKILL)
    async with lab.daemon() as d:
        assert (d.entry(plain).status, d.entry(plain).record.state.exit_code) == ("exited", 255)
        assert d.entry(stopped).status == "exited"
        await d.until(lambda: d.entry(always).status == "running")
        await d.clean()


@scenario
async def test_one_bad_object_does_not_keep_the_engine_from_starting(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        whole = await d.create("true", name="whole")
        ran = await d.run("true", name="ran")
        await d.finish(ran)
        broken = await d.create("true", name="broken")
        d.engine.db.execute("UPDATE containers SET record = ? WHERE id = ?", (b"{", broken))
        for path in (d.engine.paths.container(ran), d.engine.paths.container(whole)):
            os.rename(path, str(path) + ".away")
            shutil.rmtree(str(path) + ".away")
    async with lab.daemon() as d:
        assert d.entry("ran").status == "dead"
        assert "data directory is missing" in d.entry("ran").record.state.error
        await d.start(whole)
        assert await d.finish(whole) == 0
        assert d.engine.paths.container(broken).is_dir(), "what cannot be read is left alone"
        with pytest.raises(WherryError, match="is already in use"):
            await d.create("true", name="broken")
        await d.rm("ran")
        await d.rm("whole")


async def monitor_pid(d: Daemon, ref: str) -> int:
    monitor = d.entry(ref).monitor
    assert monitor is not None
    return int((await monitor.status())["monitor_pid"])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


CREATE = [f"engine.create.{at}" for at in ("before_directory", "after_directory", "before_row", "after_row")]
START = [f"engine.start.{at}" for at in ("before_network", "after_network", "before_spawn", "after_spawn", "after_row")]
STOP = ["engine.stop.before_row", "engine.stop.before_signal", "engine.stop.before_signal@2"]
EXIT = ["engine.exit.before_network", "engine.exit.before_row", "engine.exit.after_row"]
REMOVE = [f"engine.remove.{at}" for at in ("before_row", "after_row", "after_rename", "after_volumes", "after_forget")]


def assert_whole(record: Container) -> None:
    assert record.state.status in ("created", "running", "exited")
    assert (record.state.pid > 0) == (record.state.status == "running")


@pytest.mark.parametrize("point", [*CREATE, "engine.volume.after_directory", *START])
@scenario
def test_a_daemon_killed_during_run(lab: Lab, point: str) -> None:
    """The container is absent, or created, or running and taken back; never half (and nothing leaks)."""

    async def work() -> None:
        async with lab.daemon() as d:
            await d.image()
            ref = await d.create(*FOREVER, name="xx", NetworkMode="bridge", Volumes={"/v": {}})
            await d.start(ref)

    async def check() -> None:
        async with lab.daemon() as d:
            assert await d.leaks() == []
            for entry in d.engine.containers:
                assert_whole(entry.record)
                if point == "engine.start.after_row":
                    assert entry.status == "running"
            if point in CREATE[:3] or "volume" in point:
                assert list(d.engine.containers) == []
            else:
                if d.entry("xx").status == "created":
                    await d.start("xx")
                assert await d.exec("xx", "echo", "y") == (0, "y\n")
                await d.rm("xx", force=True, volumes=True)
            await d.create("true", name="xx")
            await d.clean()
            assert d.engine.volumes.list() == []

    assert os.WTERMSIG(crash_at(point, work)) == signal.SIGKILL
    asyncio.run(check())


@pytest.mark.parametrize("point", [*STOP, *EXIT, *REMOVE])
@scenario
def test_a_daemon_killed_during_stop_and_remove(lab: Lab, point: str) -> None:
    async def work() -> None:
        async with lab.daemon() as d:
            await d.image()
            ref = await d.run(*FOREVER, name="xx", NetworkMode="bridge", Volumes={"/v": {}})
            await d.stop(ref)
            await d.rm(ref, volumes=True)

    async def check() -> None:
        async with lab.daemon() as d:
            assert await d.leaks() == []
            for entry in d.engine.containers:
                assert_whole(entry.record)
            if point in REMOVE[1:]:
                assert list(d.engine.containers) == [], "a removal that was begun is completed"
            else:
                await d.rm("xx", force=True, volumes=True)
            assert d.engine.volumes.list() == []
            assert await d.leaks() == []

    assert os.WTERMSIG(crash_at(point, work)) == signal.SIGKILL
    asyncio.run(check())


def test_failpoints_cost_nothing_when_unset() -> None:
    assert hit("engine.create.after_row") is None  # type: ignore[func-returns-value]
