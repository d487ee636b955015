"""What is known of an exec after the daemon was away, and of a container that removed itself meanwhile."""

import asyncio
import os
import signal

import pytest

from tests.engine.enginelab import Daemon, Lab, crash_at, scenario, until
from tests.engine.test_restore import alive
from wherry.engine import exec, exec_store, wait
from wherry.engine.model import ExecConfig, ExecRecord
from wherry.errors import NotFound

WAIT = "while [ ! -e /gate/open ]; do sleep 0.01; done; "


async def begin(d: Daemon, ref: str, *cmd: str) -> str:
    """Start an exec in the background; its id."""
    exec_id = await exec.create_exec(d.engine, ref, ExecConfig(Cmd=list(cmd), Env=["A=b"]))
    await exec.start_exec(d.engine, exec_id, detach=True)
    return exec_id


def inspect(d: Daemon, exec_id: str) -> tuple[bool, int | None]:
    record = exec.inspect_exec(d.engine, exec_id)
    return record.running, record.exit_code


@scenario
async def test_execs_are_known_after_a_restart(lab: Lab) -> None:
    gate = lab.root / "gate"
    gate.mkdir()
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sleep", "1000", Binds=[f"{gate}:/gate"])
        over = await begin(d, ref, "sh", "-c", "exit 5")
        await d.until(lambda: inspect(d, over) == (False, 5))
        away = await begin(d, ref, "sh", "-c", WAIT + "exit 7")
        on = await begin(d, ref, "sleep", "1000")
        unused = await exec.create_exec(d.engine, ref, ExecConfig(Cmd=["sh", "-c", "exit 3"]))
        pid, long = (exec.inspect_exec(d.engine, each).pid for each in (away, on))
    (gate / "open").touch()
    await until(lambda: not alive(pid))
    async with lab.daemon() as d:
        assert inspect(d, over) == (False, 5)
        assert inspect(d, away) == (False, 7)
        assert exec.inspect_exec(d.engine, away).config.Env == ["A=b"]
        assert inspect(d, on) == (True, None)
        assert exec.inspect_exec(d.engine, on).pid == long
        await exec.start_exec(d.engine, unused, detach=True)
        await d.until(lambda: inspect(d, unused) == (False, 3))
        os.kill(long, signal.SIGTERM)
        await d.until(lambda: inspect(d, on) == (False, 143))
    async with lab.daemon() as d:
        assert [inspect(d, each)[1] for each in (over, away, on, unused)] == [5, 7, 143, 3]
        await d.clean()
        with pytest.raises(NotFound):
            exec.inspect_exec(d.engine, over)
    async with lab.daemon() as d:
        assert os.listdir(d.engine.paths.execs) == []


@scenario
async def test_an_exec_that_ended_before_its_container_while_nobody_looked(lab: Lab) -> None:
    gate = lab.root / "gate"
    gate.mkdir()
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sleep", "1000", Binds=[f"{gate}:/gate"])
        first = await begin(d, ref, "sh", "-c", WAIT + "exit 7")
        last = await begin(d, ref, "sleep", "1000")
        pid, init = exec.inspect_exec(d.engine, first).pid, d.entry(ref).record.state.pid
        record = d.engine.paths.exit_record(ref)
    (gate / "open").touch()
    await until(lambda: not alive(pid))
    os.kill(init, signal.SIGKILL)
    await until(record.exists)
    async with lab.daemon() as d:
        assert d.entry(ref).status == "exited"
        assert inspect(d, first) == (False, 7)
        assert inspect(d, last) == (False, 137)
        await d.clean()


@pytest.mark.parametrize("point", ["engine.exec.before_spawn", "engine.exec.after_spawn"])
@scenario
def test_a_daemon_killed_while_it_starts_an_exec(lab: Lab, point: str) -> None:
    """It never ran, and can be started; or it runs, and its end is told."""
    known = lab.root / "exec"

    async def work() -> None:
        async with lab.daemon() as d:
            await d.image()
            ref = await d.run("sleep", "1000", name="xx")
            exec_id = await exec.create_exec(d.engine, ref, ExecConfig(Cmd=["sh", "-c", "exit 9"]))
            known.write_text(exec_id)
            await exec.start_exec(d.engine, exec_id, detach=True)

    async def check() -> None:
        async with lab.daemon() as d:
            exec_id = known.read_text()
            if point == "engine.exec.before_spawn":
                assert inspect(d, exec_id) == (False, None)
                await exec.start_exec(d.engine, exec_id, detach=True)
            await d.until(lambda: inspect(d, exec_id) == (False, 9))
            await d.clean()

    assert os.WTERMSIG(crash_at(point, work)) == signal.SIGKILL
    asyncio.run(check())


@scenario
async def test_the_records_are_bounded(lab: Lab) -> None:
    async with lab.daemon() as d:
        limits = exec_store.KEEP_FILES, exec_store.MOST_FILES
        exec_store.KEEP_FILES, exec_store.MOST_FILES = 3, 4
        try:
            for number in range(5):
                record = ExecRecord(id=f"{number}", container_id="c", config=ExecConfig(Cmd=["x"]), exit_code=0)
                d.engine.execs.add(record)
                d.engine.execs.keep(record)
                d.engine.execs.ended(record.id)
            assert sorted(os.listdir(d.engine.paths.execs)) == ["2", "3", "4"]
            for exec_id in ("6", "7"):
                record = ExecRecord(id=exec_id, container_id="c", config=ExecConfig(Cmd=["x"]))
                d.engine.execs.add(record)
                d.engine.execs.keep(record)
                assert d.engine.execs.get(exec_id) is record
            assert sorted(os.listdir(d.engine.paths.execs)) == ["2", "3", "4", "6"]
            d.engine.execs.drop("6")
            d.engine.paths.exec_record("5").write_bytes(b"{")
            assert {record.id for record in exec_store.ExecStore(d.engine.paths).load()} == {"2", "3", "4"}
            assert sorted(os.listdir(d.engine.paths.execs)) == ["2", "3", "4"]
        finally:
            exec_store.KEEP_FILES, exec_store.MOST_FILES = limits
    async with lab.daemon() as d:
        assert os.listdir(d.engine.paths.execs) == [], "of no container that is there"


@scenario
async def test_the_exit_of_a_container_that_removed_itself_is_told_for_a_while(lab: Lab) -> None:
    async def code(d: Daemon, ref: str, condition: str = "") -> int:
        return (await (await wait.wait(d.engine, ref, condition)).result())[0]

    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sleep", "1000", name="goes", AutoRemove=True)
        kept = await d.run("sleep", "1000", name="stays")
        pid = d.entry(ref).record.state.pid
        socket = d.engine.paths.monitor_socket(ref)
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not socket.exists())
    async with lab.daemon() as d:
        assert d.engine.containers.get(ref) is None
        assert [await code(d, each) for each in (ref, "goes", "/goes")] == [137] * 3
        assert await code(d, ref, "removed") == 137
        with pytest.raises(NotFound):
            await code(d, ref, "next-exit")
        with pytest.raises(NotFound):
            await code(d, ref[:12])
        await d.create("true", name="goes")
        assert await code(d, "goes") == 0, "another container has the name now"
        await d.rm(kept, force=True)
        with pytest.raises(NotFound):
            await code(d, kept)
        d.engine.db.execute("UPDATE last_exits SET at = at - 301")
        with pytest.raises(NotFound):
            await code(d, ref)
        await d.clean()
