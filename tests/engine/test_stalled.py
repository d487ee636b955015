"""A monitor, a client, another runtime that stand still hold up nobody for good, and reads not at all."""

import asyncio
import io
import os
import re
import signal
from collections.abc import Awaitable
from pathlib import Path

import pytest

from tests.engine.enginelab import Daemon, Lab, scenario
from wherry.engine import logs, resize, stop, unmounting, update
from wherry.engine.config import OciRuntime
from wherry.engine.files.copy import copy_in, stat_path
from wherry.engine.model import HostConfig
from wherry.errors import Conflict, Internal
from wherry.runtime import client, late


async def refused(work: Awaitable[object], words: str, kind: type[Exception] = Internal) -> None:
    with pytest.raises(kind, match=re.escape(words)):
        async with asyncio.timeout(15):
            await work


def hold_up(d: Daemon, ref: str) -> int:
    entry = d.entry(ref)
    assert entry.monitor
    os.kill(entry.monitor.monitor_pid, signal.SIGSTOP)
    return entry.monitor.monitor_pid


@scenario
async def test_what_a_stalled_monitor_is_asked_fails_and_is_not_done_later(lab: Lab) -> None:
    client._ANSWERS_S = client._CHANGES_S = 0.3
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sleep", "1000", Tty=True)
        entry = d.entry(ref)
        pid = hold_up(d, ref)
        said = "does not answer"
        await refused(stop.pause(d.engine, ref), f"cannot pause container {entry.id}: the monitor of")
        await refused(update.update(d.engine, ref, HostConfig(CpuShares=77)), said)
        await refused(resize.resize(d.engine, ref, 10, 20), said)
        await refused(logs.clear(d.engine, ref), said)
        assert not entry.lock.locked()
        assert entry.status == "running"
        assert entry.record.host_config.CpuShares == 0
        os.kill(pid, signal.SIGCONT)
        status = await entry.monitor.status()
        assert status["status"] == "running"  # the pause that nobody waits for any more did not come
        client._ANSWERS_S = client._CHANGES_S = 10.0
        await stop.pause(d.engine, ref)
        client._ANSWERS_S = 0.3
        hold_up(d, ref)
        await refused(stop.unpause(d.engine, ref), said)
        assert entry.status == "paused"
        os.kill(pid, signal.SIGCONT)
        client._ANSWERS_S = 10.0
        await stop.unpause(d.engine, ref)
        assert entry.status == "running"
        await d.rm(ref, force=True)
        await d.clean()


@scenario
async def test_reads_and_others_go_on_while_a_monitor_stalls(lab: Lab) -> None:
    client._ANSWERS_S = 3.0
    async with lab.daemon() as d:
        await d.image()
        ref, other = await d.run("sh", "-c", "echo up; sleep 1000"), await d.run("sleep", "1000")
        await d.logged(ref, "up")
        pid = hold_up(d, ref)
        pausing = asyncio.create_task(stop.pause(d.engine, ref))
        await d.until(lambda: d.entry(ref).lock.locked())
        async with asyncio.timeout(2):
            assert (await stat_path(d.engine, ref, "/bin")).name == "bin"
            assert await d.output(ref) == "up\n"
            assert [entry.status for entry in d.engine.containers] == ["running", "running"]
            await stop.pause(d.engine, other)
            await stop.unpause(d.engine, other)
        assert not pausing.done()
        await refused(pausing, "does not answer")
        os.kill(pid, signal.SIGCONT)
        await d.rm(ref, force=True)
        await d.rm(other, force=True)
        await d.clean()


@scenario
async def test_a_stalled_monitor_keeps_nobody_from_stopping_and_removing(lab: Lab) -> None:
    client._ANSWERS_S = 0.3
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sleep", "1000")
        client._ANSWERS_S = 10.0
        await stop.pause(d.engine, ref)
        client._ANSWERS_S = 0.3
        pid = hold_up(d, ref)
        stop.KILL_PATIENCE_S = 0.5
        async with asyncio.timeout(20):
            await d.rm(ref, force=True)
        os.kill(pid, signal.SIGCONT)
        await d.clean()


class Dawdling(io.RawIOBase):
    """The archive of a client that sends no more after its beginning, until `let_go`."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return os.readv(self.read_end, [buffer])

    def let_go(self) -> None:
        os.close(self._write_end)


@scenario
async def test_a_client_that_dawdles_keeps_only_starts_away(lab: Lab) -> None:
    unmounting._PATIENCE_S = 0.3
    async with lab.daemon() as d:
        await d.image()
        ref = await d.create("sh", "-c", "exit 3")
        source = Dawdling()
        copying = asyncio.create_task(copy_in(d.engine, ref, "/", io.BufferedReader(source)))
        await d.until(lambda: d.entry(ref).copying is not None)
        said = "files are being copied into container"
        await refused(d.start(ref), said, Conflict)
        await refused(copy_in(d.engine, ref, "/", io.BytesIO(bytes(10240))), said, Conflict)
        assert not d.entry(ref).lock.locked()
        assert (await stat_path(d.engine, ref, "/bin")).name == "bin"
        unmounting._PATIENCE_S = 20
        starting = asyncio.create_task(d.start(ref))
        await d.until(lambda: d.entry(ref).lock.locked())
        source.let_go()
        await asyncio.gather(copying, return_exceptions=True)  # an archive cut short, or an empty one
        await starting
        assert await d.finish(ref) == 3
        gone = await d.create("true")
        source = Dawdling()
        copying = asyncio.create_task(copy_in(d.engine, gone, "/", io.BufferedReader(source)))
        await d.until(lambda: d.entry(gone).copying is not None)
        async with asyncio.timeout(5):
            await d.rm(gone)
        source.let_go()
        await asyncio.gather(copying, return_exceptions=True)
        await d.clean()


@scenario
async def test_after_a_restart_the_next_run_waits_for_the_last_ones_mounts(lab: Lab) -> None:
    """Its monitor has closed its socket already: the record tells which process it is."""
    gate = lab.root / "gate"
    os.mkfifo(gate)
    os.environ["WHERRY_FAILPOINT"] = f"monitor.before_unmount:exec=read x < {gate}"
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sh", "-c", "echo kept >> /file; cat /file; exit 5")
        assert await d.finish(ref) == 5
    async with lab.daemon() as d:
        assert isinstance(d.entry(ref).unmounting, unmounting.Leaving)
        starting = asyncio.create_task(d.start(ref))
        await d.until(lambda: d.entry(ref).lock.locked())
        await asyncio.sleep(0.5)  # twenty times what a start takes
        assert not starting.done()
        await asyncio.to_thread(gate.write_text, "now")
        await starting
        await asyncio.to_thread(gate.write_text, "now")
        assert await d.finish(ref) == 5
        assert (await d.output(ref)).split() == ["kept", "kept", "kept"]
        await d.clean()


@scenario
async def test_another_runtime_that_hangs_fails_the_start(lab: Lab) -> None:
    late.PATIENCE_S = 0.3
    client._MARGIN_S = 0.0
    program = Path(lab.root) / "runtime"
    program.write_text("#!/bin/sh\ncase \"$*\" in *' create '*) exec sleep 1000;; esac\n")
    program.chmod(0o755)
    async with lab.daemon(runtimes={"hangs": OciRuntime(str(program))}) as d:
        await d.image()
        ref = await d.create("true", Runtime="hangs")
        await refused(d.start(ref), "did not get to run within")
        assert d.entry(ref).status == "created"
        await d.rm(ref)
        await d.clean()
