"""Processes run in a container that runs."""

import asyncio
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.monitor.lab import Events, Lab, exists, receive_all, start_tracer, streams, until
from wherry.errors import Conflict, Internal, InvalidArgument
from wherry.runtime.client import Attachment, Monitor, connect

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
        await one(lab, monitor, events, request, 99)  # which wakes it
        await monitor.status()
        before = len(os.listdir(files))
        for batch in range(5):
            await asyncio.gather(*(one(lab, monitor, events, request, batch * 10 + n) for n in range(10)))
        assert (await monitor.status())["execs"] == []
        await until(lambda: len(os.listdir(files)) <= before)

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


def hold(monkeypatch: pytest.MonkeyPatch, lab: Lab, point: str) -> Path:
    """Execs wait at `point` as long as the file returned exists. To be called before the spawner runs."""
    file = lab.tmp / "held"
    file.touch()
    monkeypatch.setenv("WHERRY_FAILPOINT", f"{point}:exec=while test -e {file}; do sleep 0.02; done")
    return file


def test_the_monitor_serves_while_execs_are_held_up(play, monkeypatch):
    """Whatever keeps a process from its program keeps nobody else: output, signals, further execs go on."""

    async def scenario(lab: Lab) -> None:
        file = hold(monkeypatch, lab, "monitor.before_exec")
        request = lab.request("cat", stdio={"open_stdin": True})
        ours, attachment = lab.client(stdin=True)
        monitor, events = await lab.run(request, [attachment])
        theirs, client = lab.client()
        held = [
            asyncio.create_task(execute(monitor, request, "a", "echo", "ran", clients=[client])),
            asyncio.create_task(execute(monitor, request, "b", "stty", "size", tty=True)),
        ]
        assert (await monitor.status())["status"] == "running"
        lab.handed_over()
        ours.sendall(b"typed")
        assert await asyncio.to_thread(ours.recv, 100) == b"typed"
        await monitor.signal(signal.SIGCONT)
        await monitor.resize(33, 99, "b")
        assert not any(task.done() for task in held)
        file.unlink()
        assert all(await asyncio.gather(*held))
        assert await asyncio.to_thread(receive_all, theirs) == b"ran\n"
        await events.until("exec_exit", exec_id="a")
        await events.until("exec_exit", exec_id="b")

    play(scenario)


@pytest.mark.parametrize("point", ["monitor.before_exec", "runtime-before-join", "runtime-joined", "runtime-inside"])
def test_a_container_that_ends_takes_execs_under_way_with_it(play, monkeypatch, point):
    async def scenario(lab: Lab) -> None:
        monkeypatch.setenv("WHERRY_FAILPOINT", f"{point}:sleep=100")
        request = lab.request("sleep", "1000", cgroup=True)
        monitor, events = await lab.run(request)
        theirs, client = lab.client()
        held = asyncio.create_task(execute(monitor, request, "a", "true", clients=[client]))
        await monitor.status()
        lab.handed_over()
        await monitor.signal(signal.SIGKILL)
        with pytest.raises((Conflict, Internal), match=r"is not running|ended before"):
            await held
        assert await asyncio.to_thread(theirs.recv, 1) == b""
        await events.until("exit")

    play(scenario)


def test_a_daemon_that_goes_away_meanwhile_costs_nothing(play, monkeypatch):
    async def scenario(lab: Lab) -> None:
        file = hold(monkeypatch, lab, "monitor.before_exec")
        request = lab.request("sleep", "1000")
        monitor, _ = await lab.run(request)
        theirs, client = lab.client()
        held = asyncio.create_task(execute(monitor, request, "a", "echo", "ran", clients=[client]))
        await monitor.status()
        lab.handed_over()
        await monitor.close()
        with pytest.raises(ConnectionError):
            await held
        again = await connect(request["socket"], Events())
        file.unlink()
        assert await asyncio.to_thread(receive_all, theirs) == b"ran\n"
        lab.monitors[:] = [again]

    play(scenario)


@pytest.mark.parametrize("point", ["monitor.before_exec", "runtime-joined", "runtime-inside"])
def test_a_joining_process_that_dies_is_an_error(play, monkeypatch, point):
    async def scenario(lab: Lab) -> None:
        monkeypatch.setenv("WHERRY_FAILPOINT", f"{point}:kill")
        request = lab.request("sleep", "1000")
        monitor, _ = await lab.run(request)
        with pytest.raises(Internal, match="the process ended before"):
            await execute(monitor, request, "a", "true")
        assert (await monitor.status())["execs"] == []

    play(scenario)


def test_whoever_traces_a_joining_process_gains_nothing(play, monkeypatch):
    """A container with CAP_SYS_PTRACE may attach to what enters its PID namespace. It finds processes like its own: the
    container's root, namespaces, capabilities and filter, and no descriptor but streams and the connection."""

    async def scenario(lab: Lab) -> None:
        monkeypatch.setenv("WHERRY_FAILPOINT", "runtime-inside:sleep=0.05")
        request = lab.request("sleep", "1000")
        sets = ("bounding", "effective", "permitted")
        request["config"]["process"]["capabilities"] = {name: ["CAP_CHOWN", "CAP_SYS_PTRACE"] for name in sets}
        request["config"]["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": []}
        monitor, events = await lab.run(request)
        tracer = await start_tracer(monitor.pid, "look")
        for n in range(10):
            await execute(monitor, request, f"x{n}", "true")
            await events.until("exec_exit", exec_id=f"x{n}")
        out, _ = await asyncio.to_thread(tracer.communicate, b"\n")
        caught = [seen for seen in map(json.loads, out.splitlines()) if "memfd" in seen["exe"]]
        assert len(caught) >= 5
        root = os.stat(f"/proc/{monitor.pid}/root/.")
        allowed = 1 | 1 << 19
        for seen in caught:
            assert seen["root"] == [root.st_dev, root.st_ino]
            assert seen["cwd"] == "/"
            names = seen["namespaces"]
            assert names == {name: os.readlink(f"/proc/{monitor.pid}/ns/{name}") for name in names}
            assert not any(held & ~allowed for held in seen["capabilities"])
            assert seen["seccomp"] == "2"
            assert not seen["writable_exe"]
            assert set(seen["fds"]) <= {"0", "1", "2"} | {
                fd for fd, target in seen["fds"].items() if target.startswith("socket:")
            }
            assert sum(target.startswith("socket:") for target in seen["fds"].values()) <= 1

    play(scenario)


def test_whoever_speaks_in_the_name_of_its_maker_is_not_believed(play, monkeypatch):
    """What is born in the PID namespace has the connection on which its maker, outside, tells its pid. A tracer that is
    first to use it names another child of the monitor: the container's init."""

    async def scenario(lab: Lab) -> None:
        monkeypatch.setenv("WHERRY_FAILPOINT", "runtime-born:sleep=1000")
        request = lab.request("sleep", "1000")
        monitor, events = await lab.run(request)
        message = json.dumps({"pid": monitor.pid, "warnings": []})
        tracer = await start_tracer(monitor.pid, "forge", f"P{message}")
        given = os.readlink(f"/proc/{tracer.pid}/fd/0")
        with pytest.raises(Internal, match="another process spoke in the name"):
            await execute(monitor, request, "x", "true")
        out, _ = await asyncio.to_thread(tracer.communicate, b"\n")
        assert b"forged" in out
        status = await monitor.status()
        assert (status["status"], status["pid"], status["execs"]) == ("running", monitor.pid, [])
        files = f"/proc/{monitor.monitor_pid}/fd"
        assert given not in [os.readlink(f"{files}/{fd}") for fd in os.listdir(files)]
        await monitor.signal(signal.SIGKILL)
        assert (await events.until("exit"))["exit_code"] == 137

    play(scenario)
