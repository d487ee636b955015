"""Processes run in a container that runs."""

import asyncio
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.monitor.lab import Events, Lab, exists, receive_all, streams, until
from wherry.errors import Conflict, InvalidArgument
from wherry.runtime.client import Attachment, Monitor

pytestmark = pytest.mark.root


async def execute(
    monitor: Monitor,
    request: dict[str, Any],
    exec_id: str,
    *args: str,
    clients: tuple[Attachment, ...] | list[Attachment] = (),
    **stdio: Any,
) -> int:
    process = {**request["config"]["process"], "args": list(args)}
    size = stdio.pop("size", None)
    return await monitor.exec(
        exec_id, process, stdio=stdio, attachments=clients, seccomp_filter=None, console_size=size
    )


def test_many_at_once_each_with_its_own_streams(play):
    async def one(lab: Lab, monitor: Monitor, events: Events, request: dict[str, Any], n: int) -> None:
        ours, attachment = lab.client(mux=True, stdin=True)
        script = f"cat; echo err{n} >&2; exit {n}"
        await execute(monitor, request, f"x{n}", "sh", "-c", script, clients=[attachment], open_stdin=True)
        await asyncio.to_thread(ours.sendall, b"in%d " % n * 100)
        ours.shutdown(1)
        lab.handed_over()
        assert streams(await asyncio.to_thread(receive_all, ours)) == (b"in%d " % n * 100, b"err%d\n" % n)
        assert (await events.until("exec_exit", exec_id=f"x{n}"))["exit_code"] == n

    async def scenario(lab: Lab) -> None:
        request = lab.request("sleep", "1000")
        monitor, events = await lab.run(request)
        files = f"/proc/{monitor.monitor_pid}/fd"
        await monitor.status()
        before = len(os.listdir(files))
        for batch in range(5):
            await asyncio.gather(*(one(lab, monitor, events, request, batch * 10 + n) for n in range(10)))
        assert (await monitor.status())["execs"] == []
        await until(lambda: len(os.listdir(files)) == before)

    play(scenario)


def test_the_exit_code_is_known_before_the_stream_ends(play):
    """`docker exec` asks for the exit code when its stream ends."""

    async def scenario(lab: Lab) -> None:
        request = lab.request("sleep", "1000")
        monitor, events = await lab.run(request)
        for n in range(20):
            ours, attachment = lab.client()
            await execute(monitor, request, f"x{n}", "true", clients=[attachment])
            lab.handed_over()
            loop = asyncio.get_running_loop()
            ours.setblocking(False)
            assert await loop.sock_recv(ours, 1) == b""
            assert any(e["event"] == "exec_exit" and e["exec_id"] == f"x{n}" for e in events)

    play(scenario)


def test_a_terminal_of_its_own(play):
    async def scenario(lab: Lab) -> None:
        request = lab.request("sleep", "1000")
        monitor, events = await lab.run(request)
        ours, attachment = lab.client(stdin=True)
        await execute(monitor, request, "t", "sh", clients=[attachment], tty=True, open_stdin=True, size=(20, 70))
        lab.handed_over()
        await monitor.resize(33, 111, "t")
        ours.sendall(b"stty size; exit 4\n")
        assert b"33 111" in await asyncio.to_thread(receive_all, ours)
        assert (await events.until("exec_exit"))["exit_code"] == 4

    play(scenario)


def test_a_program_that_is_not_there(play):
    async def scenario(lab: Lab) -> None:
        request = lab.request("sleep", "1000")
        monitor, events = await lab.run(request)
        ours, attachment = lab.client()
        with pytest.raises(InvalidArgument, match='exec: "nope": executable file not found'):
            await execute(monitor, request, "x", "nope", clients=[attachment])
        lab.handed_over()
        assert ours.recv(1) == b""
        assert (await monitor.status())["execs"] == []
        await execute(monitor, request, "y", "true")
        assert (await events.until("exec_exit"))["exec_id"] == "y"

    play(scenario)


def test_signals_and_the_end_of_the_container(play):
    async def scenario(lab: Lab) -> None:
        request = lab.request("sleep", "1000")
        monitor, events = await lab.run(request)
        await execute(monitor, request, "a", "sleep", "1000")
        await monitor.signal(signal.SIGTERM, "a")
        assert (await events.until("exec_exit", exec_id="a"))["exit_code"] == 143
        with pytest.raises(Conflict):
            await monitor.signal(signal.SIGTERM, "a")
        pid = await execute(monitor, request, "b", "sleep", "1000")
        await monitor.signal(signal.SIGKILL)
        await events.until("exit")
        assert (await events.until("exec_exit", exec_id="b"))["exit_code"] == 137
        assert not exists(pid)

    play(scenario)


def test_output_held_open_by_a_grandchild_does_not_hold_the_client(play):
    async def scenario(lab: Lab) -> None:
        request = lab.request("sleep", "1000")
        monitor, events = await lab.run(request)
        ours, attachment = lab.client()
        await execute(monitor, request, "x", "sh", "-c", "sleep 1000 & echo started", clients=[attachment])
        lab.handed_over()
        await asyncio.wait_for(events.until("exec_exit"), 1)
        assert await asyncio.to_thread(receive_all, ours) == b"started\n"

    play(scenario)


def test_no_process_of_the_engine_is_within_reach_of_the_container(play):
    """CVE-2019-5736, CVE-2016-9962: the interpreter that enters a container is a sealed copy, and not dumpable."""

    async def scenario(lab: Lab) -> None:
        request = lab.request("sleep", "1000", start=False)
        monitor, _ = await lab.run(request)
        assert lab.spawner
        for pid in (lab.spawner.pid, monitor.monitor_pid, monitor.pid):
            assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:wherry-python")
            with pytest.raises(OSError, match=r"Text file busy|not permitted"):
                os.open(f"/proc/{pid}/exe", os.O_WRONLY)
            status = Path(f"/proc/{pid}/status").read_text()
            assert re.search(r"^Threads:\t1$", status, re.MULTILINE)
            assert os.stat(f"/proc/{pid}/stat").st_uid == 0
        await monitor.start()
        assert os.readlink(f"/proc/{monitor.pid}/exe") != os.readlink(f"/proc/{monitor.monitor_pid}/exe")

    play(scenario)
