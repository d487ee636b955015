"""What must not hurt a monitor: nonsense on its socket, a daemon that does not read, signals, the spawner's death."""

import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.monitor.lab import Events, Lab, log_of, until
from wherry.errors import InvalidArgument, Unimplemented
from wherry.linux import fdpass, memfd
from wherry.runtime.client import connect

pytestmark = pytest.mark.root


def raw_connection(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(60)
    directory = os.open(os.path.dirname(path), os.O_PATH)
    sock.connect(f"/proc/self/fd/{directory}/monitor.sock")
    os.close(directory)
    return sock


NONSENSE = [
    b"",
    b"x",
    b"I",
    b"I[]",
    b"I{}",
    b"I{",
    b"F",
    b"I" + b"[" * 50000,
    b'I{"op":null}',
    b"I\xff\xfe",
    b'I{"op":["a"],"seq":1}',
]


def test_nonsense_ends_the_connection_not_the_monitor(play):
    async def scenario(lab: Lab) -> None:
        request = lab.request("sleep", "1000")
        monitor, _ = await lab.run(request)
        lab.expected_log = None
        await monitor.resize(1, 1)  # it rests no more
        count = len(os.listdir(f"/proc/{monitor.monitor_pid}/fd"))
        unsealed = os.memfd_create("x")
        sealed = memfd.sealed("x", b"not json")
        for record in NONSENSE:
            for fds in ([], [0], [unsealed], [sealed]):
                with raw_connection(request["socket"]) as sock:
                    if record or fds:
                        fdpass.send(sock, record, fds)
                    sock.shutdown(socket.SHUT_WR)
                    while sock.recv(65536):
                        pass
        os.close(unsealed)
        os.close(sealed)
        assert (await monitor.status())["status"] == "running"
        await until(lambda: len(os.listdir(f"/proc/{monitor.monitor_pid}/fd")) == count)

    play(scenario)


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        ({"op": "dance"}, Unimplemented),
        ({"op": "signal"}, InvalidArgument),
        ({"op": "signal", "sig": "x"}, InvalidArgument),
        ({"op": "resize"}, InvalidArgument),
        ({"op": "attach", "attachment": {}}, InvalidArgument),
        ({"op": "exec", "stdio": {}}, InvalidArgument),
        ({"op": "update"}, InvalidArgument),
    ],
)
def test_wrong_requests_are_refused(play, operation, error):
    async def scenario(lab: Lab) -> None:
        monitor, _ = await lab.run(lab.request("sleep", "1000", cgroup=True))
        with pytest.raises(error):
            await monitor._ask(operation)
        assert (await monitor.status())["status"] == "running"
        lab.expected_log = None

    play(scenario)


def test_a_daemon_that_does_not_read_stops_nothing(play):
    async def scenario(lab: Lab) -> None:
        request = lab.request("sh", "-c", "seq 1 50000; exit 6")
        _, events = await lab.run(request)
        with raw_connection(request["socket"]) as deaf:
            for n in range(3000):
                try:
                    fdpass.send(deaf, b'I{"op":"status","seq":%d}' % n, wait=False)
                except (BlockingIOError, ConnectionError):
                    break
            assert (await events.until("exit"))["exit_code"] == 6
        assert log_of(request).count("\n") == 50000

    play(scenario)


def test_signals_to_the_monitor_are_ignored(play):
    async def scenario(lab: Lab) -> None:
        monitor, _ = await lab.run(lab.request("sleep", "1000"))
        assert lab.spawner
        for pid in (monitor.monitor_pid, lab.spawner.pid):
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1):
                os.kill(pid, number)
        assert (await monitor.status())["status"] == "running"
        await lab.run(lab.request("true"))

    play(scenario)


def test_a_dead_spawner_is_replaced_and_its_monitors_live_on(play):
    async def scenario(lab: Lab) -> None:
        first, _ = await lab.run(lab.request("sleep", "1000"))
        assert lab.spawner
        os.kill(lab.spawner.pid, signal.SIGKILL)
        await until(lambda: lab.spawner._process.poll() is not None)
        second, _ = await lab.run(lab.request("sleep", "1000"))
        assert (await first.status())["status"] == (await second.status())["status"] == "running"

    play(scenario)


def test_the_spawner_holds_what_it_needs_and_no_more(play):
    """0, 1, 2, the connection to the daemon and the one to the spare monitor, whatever has passed through."""

    async def scenario(lab: Lab) -> None:
        spawner = await lab.launch()
        for _ in range(5):
            _, attachment = lab.client()
            _, events = await lab.run(lab.request("true"), [attachment])
            await events.until("exit")
        await until(lambda: len(os.listdir(f"/proc/{spawner.pid}/fd")) == 5)

    play(scenario)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_spare_monitor_that_was_killed_is_not_missed(play):
    async def scenario(lab: Lab) -> None:
        spawner = await lab.launch()
        (monitor,) = children(spawner.pid)
        await until(lambda: children(monitor))
        (helper,) = children(monitor)
        os.kill(monitor, signal.SIGKILL)
        await until(lambda: monitor not in children(spawner.pid) and not runs(helper))
        _, events = await lab.run(lab.request("sh", "-c", "exit 3"))
        assert (await events.until("exit"))["exit_code"] == 3

    play(scenario)


def test_the_end_is_recorded_before_anyone_is_told(play, monkeypatch):
    """Killed between the record and the report: the record is whole."""
    monkeypatch.setenv("WHERRY_FAILPOINT", "monitor.after_record:kill")

    async def scenario(lab: Lab) -> None:
        request = lab.request("sh", "-c", "exit 11")
        _, events = await lab.run(request)
        await events.until("gone")
        assert json.loads(Path(request["exit_record"]).read_text())["exit_code"] == 11

    play(scenario)


@pytest.mark.parametrize("point", ["monitor.before_create", "monitor.before_start"])
@pytest.mark.parametrize("action", ["raise", "errno=28"])
def test_failures_while_creating_leave_nothing(play, monkeypatch, point, action):
    monkeypatch.setenv("WHERRY_FAILPOINT", f"{point}:{action}")

    async def scenario(lab: Lab) -> None:
        request = lab.request("sleep", "1000", cgroup=True)
        with pytest.raises(Exception, match=r"failpoint|no space left"):
            await lab.run(request)
        assert not os.path.exists(request["socket"])
        lab.expected_log = None

    play(scenario)


def test_a_defect_of_the_monitor_ends_the_container_and_leaves_a_record(play, monkeypatch):
    monkeypatch.setenv("WHERRY_FAILPOINT", "monitor.before_record:raise")

    async def scenario(lab: Lab) -> None:
        request = lab.request("sh", "-c", "exit 5", cgroup=True)
        _, events = await lab.run(request)
        await events.until("gone")
        record = json.loads(Path(request["exit_record"]).read_text())
        assert record["exit_code"] == 5
        assert "failpoint" in record["error"]
        assert "Traceback" in (lab.tmp / "spawner.log").read_text()
        lab.expected_log = None

    play(scenario)


def test_reconnecting_to_a_resting_monitor(play):
    async def scenario(lab: Lab) -> None:
        request = lab.request("sleep", "1000")
        monitor, _ = await lab.run(request)
        await monitor.close()
        await asyncio.sleep(0.05)
        events = Events()
        again = await connect(request["socket"], events)
        lab.monitors.append(again)
        assert again.pid == monitor.pid
        await again.signal(9)
        assert (await events.until("exit"))["signal"] == 9

    play(scenario)
