"""A monitor rests until there is something to do."""

import os
from contextlib import closing
from pathlib import Path

import pytest

from tests.monitor.lab import Events, Lab, until
from wherry.linux import fdpass
from wherry.runtime.client import Monitor, connect
from wherry.runtime.monitor import doze

pytestmark = pytest.mark.root


def rests(monitor: Monitor) -> bool:
    """It gets its name when it wakes."""
    return Path(f"/proc/{monitor.monitor_pid}/comm").read_text() != "wherry-monitor\n"


def test_a_daemon_that_comes_back_does_not_wake_it(play):
    async def scenario(lab: Lab) -> None:
        request = lab.request("sleep", "1000")
        first, _ = await lab.run(request)
        assert rests(first)
        await first.close()
        files = f"/proc/{first.monitor_pid}/fd"
        for _ in range(3):
            again = await connect(request["socket"], Events())
            status = await again.status()
            assert status["status"] == "running"
            assert (status["id"], status["pid"], status["execs"]) == (request["id"], first.pid, [])
            assert again.monitor_pid == first.monitor_pid
            assert status["started_at"] > 0
            assert rests(first)
            before = len(os.listdir(files))
            await again.close()
        events = Events()
        last = await connect(request["socket"], events)
        assert len(os.listdir(files)) == before
        await last.signal(9)
        assert (await events.until("exit"))["exit_code"] == 137
        lab.monitors[:] = [last]

    play(scenario)


def test_any_other_request_wakes_it(play):
    async def scenario(lab: Lab) -> None:
        request = lab.request("sleep", "1000", cgroup=True)
        first, _ = await lab.run(request)
        await first.close()
        events = Events()
        again = await connect(request["socket"], events)
        await again.pause()
        assert not rests(again)
        assert (await again.status())["status"] == "paused"
        await again.resume()
        lab.monitors[:] = [again]

    play(scenario)


def test_a_second_connection_wakes_it_and_both_are_served(play):
    async def scenario(lab: Lab) -> None:
        request = lab.request("sleep", "1000")
        first, events = await lab.run(request)
        second = await connect(request["socket"], Events())
        assert not rests(first)
        assert (await first.status()) == (await second.status())
        await second.close()
        await first.signal(9)
        await events.until("exit")

    play(scenario)


def test_output_wakes_it(play):
    async def scenario(lab: Lab) -> None:
        request = lab.request("sh", "-c", "until test -e /go; do sleep 0.05; done; echo out; sleep 1000")
        monitor, _ = await lab.run(request)
        assert rests(monitor)
        Path(f"/proc/{monitor.pid}/root/go").touch()
        await until(lambda: "out" in Path(request["log"]["path"]).read_text())
        assert not rests(monitor)

    play(scenario)


@pytest.mark.parametrize(
    ("record", "answered"),
    [
        (b'I{"op":"status","seq":7}', True),
        (b'I{"op":"status","seq":7,"until":1}', False),
        (b'I{"op":"status","seq":"7"}', False),
        (b'I{"op":"status","seq":}', False),
        (b'I{"op":"status","seq":' + b"7" * 100 + b"}", False),
        (b'I{"op":"start","seq":7}', False),
        (b"F", False),
    ],
)
def test_it_answers_nothing_but_what_it_knows(record: bytes, answered: bool) -> None:
    daemon, monitor = fdpass.pair()
    with closing(daemon), closing(monitor):
        daemon.send(record)
        assert doze.answer(monitor.fileno(), b'{"a":1}') is answered
        if answered:
            assert daemon.recv(100) == b'I{"re":7,"ok":{"a":1}}'
            with pytest.raises(BlockingIOError):
                monitor.recv(1, 0x40)
        else:
            assert monitor.recv(1000) == record  # it is still there
