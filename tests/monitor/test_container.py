"""A container under its monitor: exits, streams, signals, and what is left afterwards."""

import asyncio
import hashlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.monitor.lab import Lab, digest_all, exists, log_of, monitors_of, receive_all, streams, until
from wherry.errors import Conflict, InvalidArgument
from wherry.runtime.cgroups import open_cgroup
from wherry.runtime.client import connect

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("script", "code", "number"),
    [("exit 0", 0, None), ("exit 7", 7, None), ("kill -9 $$", 0, None), ("exec sleep 100", 137, 9)],
)
def test_exit_codes(play, script, code, number):
    async def scenario(lab: Lab) -> None:
        request = lab.request("sh", "-c", script, cgroup=True)
        monitor, events = await lab.run(request)
        if number:
            await monitor.signal(number)
        event = await events.until("exit")
        # PID 1 cannot be killed from inside: `kill -9 $$` does nothing and sh ends well.
        assert (event["exit_code"], event["signal"]) == (code, number)
        record = json.loads(Path(request["exit_record"]).read_text())
        assert record["exit_code"] == code
        assert record["pid"] == monitor.pid
        assert record["started_at"] <= record["finished_at"] == event["time"]
        assert not os.path.exists(request["socket"])

    play(scenario)


def test_output_goes_to_log_and_client_framed_by_stream(play):
    async def scenario(lab: Lab) -> None:
        ours, attachment = lab.client(mux=True)
        request = lab.request("sh", "-c", "echo out; echo err >&2; printf end")
        _, events = await lab.run(request, [attachment])
        assert streams(await asyncio.to_thread(receive_all, ours)) == (b"out\nend", b"err\n")
        await events.until("exit")
        records = [json.loads(line) for line in log_of(request).splitlines()]
        assert sorted((r["stream"], r["log"]) for r in records) == [
            ("stderr", "err\n"),
            ("stdout", "end"),
            ("stdout", "out\n"),
        ]

    play(scenario)


def test_a_large_output_arrives_whole_at_a_slow_client(play):
    size = 64 << 20

    async def scenario(lab: Lab) -> None:
        ours, attachment = lab.client()
        request = lab.request("sh", "-c", f"yes 0123456789abcdef | head -c {size}", log={"driver": "none"})
        _, events = await lab.run(request, [attachment])
        expected = hashlib.sha256((b"0123456789abcdef\n" * (size // 17 + 1))[:size]).hexdigest()
        assert await asyncio.to_thread(digest_all, ours) == (expected, size)
        assert (await events.until("exit"))["exit_code"] == 0

    play(scenario)


def test_a_client_that_does_not_read_holds_the_process_back(play):
    async def scenario(lab: Lab) -> None:
        ours, attachment = lab.client(mux=True)
        request = lab.request("sh", "-c", "seq 1 1000000; echo done >&2")
        monitor, events = await lab.run(request, [attachment])
        log = Path(request["log"]["path"])

        def stalled() -> bool:
            before = log.stat().st_size
            time.sleep(0.2)
            return before == log.stat().st_size > 0

        await until(stalled)
        assert b"done" not in log.read_bytes()
        assert (await monitor.status())["status"] == "running"
        out, err = streams(await asyncio.to_thread(receive_all, ours))
        assert out == b"".join(b"%d\n" % n for n in range(1, 1000001))
        assert err == b"done\n"
        await events.until("exit")

    play(scenario)


def test_a_client_that_leaves_does_not_stop_the_process(play):
    async def scenario(lab: Lab) -> None:
        ours, attachment = lab.client(mux=True)
        request = lab.request("sh", "-c", "seq 1 100000; exit 4")
        _, events = await lab.run(request, [attachment])
        ours.close()
        assert (await events.until("exit"))["exit_code"] == 4
        assert log_of(request).count('"log":') == 100000

    play(scenario)


def test_stdin_early_bytes_half_close_and_output_afterwards(play):
    async def scenario(lab: Lab) -> None:
        ours, attachment = lab.client(stdin=True, mux=True, early=b"early ")
        stdio = {"open_stdin": True, "stdin_once": True}
        request = lab.request("sh", "-c", "cat; sleep 0.3; echo after", stdio=stdio)
        _, events = await lab.run(request, [attachment])
        ours.sendall(b"typed\n")
        ours.shutdown(1)
        assert streams(await asyncio.to_thread(receive_all, ours))[0] == b"early typed\nafter\n"
        await events.until("exit")

    play(scenario)


def test_input_larger_than_every_buffer_passes_through(play):
    data = os.urandom(1 << 20) * 4

    async def scenario(lab: Lab) -> None:
        ours, attachment = lab.client(stdin=True)
        request = lab.request("cat", stdio={"open_stdin": True, "stdin_once": True}, log={"driver": "none"})
        _, events = await lab.run(request, [attachment])

        def send() -> None:
            ours.sendall(data)
            ours.shutdown(1)

        sending = asyncio.create_task(asyncio.to_thread(send))
        received = await asyncio.to_thread(digest_all, ours)
        await sending
        assert received == (hashlib.sha256(data).hexdigest(), len(data))
        await events.until("exit")

    play(scenario)


def test_input_of_a_client_that_has_gone_already_is_not_lost(play):
    async def scenario(lab: Lab) -> None:
        ours, attachment = lab.client(stdin=True, stdout=False, stderr=False)
        request = lab.request("sh", "-c", "sleep 0.2; wc -c", stdio={"open_stdin": True, "stdin_once": True})
        ours.sendall(b"x" * 100000)
        ours.close()
        _, events = await lab.run(request, [attachment])
        await events.until("exit")
        assert json.loads(log_of(request))["log"] == "100000\n"

    play(scenario)


def test_stdin_that_is_not_once_survives_its_client(play):
    async def scenario(lab: Lab) -> None:
        request = lab.request("cat", stdio={"open_stdin": True})
        monitor, events = await lab.run(request)
        for word in (b"one\n", b"two\n"):
            ours, attachment = lab.client(stdin=True)
            await monitor.attach(attachment)
            lab.handed_over()
            ours.sendall(word)
            ours.shutdown(1)
            await asyncio.to_thread(receive_all, ours)
        await until(lambda: "two" in log_of(request))
        await monitor.close_stdin()
        assert (await events.until("exit"))["exit_code"] == 0

    play(scenario)


def test_terminal_size_resize_and_detach(play):
    async def scenario(lab: Lab) -> None:
        ours, attachment = lab.client(stdin=True, detach_keys=b"\x10\x11", id="first")
        request = lab.request("sh", stdio={"tty": True, "open_stdin": True}, console_size=[30, 100])
        monitor, events = await lab.run(request, [attachment])
        ours.sendall(b"stty size\n")
        await until(lambda: "30 100" in log_of(request))
        await monitor.resize(41, 123)
        ours.sendall(b"stty size\n")
        await until(lambda: "41 123" in log_of(request))
        ours.sendall(b"\x10")
        ours.sendall(b"\x11")
        await asyncio.to_thread(receive_all, ours)
        assert (await events.until("detached"))["attachment"] == "first"
        assert (await monitor.status())["status"] == "running"
        again, attachment = lab.client(stdin=True)
        await monitor.attach(attachment)
        lab.handed_over()
        again.sendall(b"exit 9\n")
        await asyncio.to_thread(receive_all, again)
        assert (await events.until("exit"))["exit_code"] == 9

    play(scenario)


def test_created_first_and_started_later(play):
    async def scenario(lab: Lab) -> None:
        request = lab.request("echo", "hi", start=False)
        monitor, events = await lab.run(request)
        assert (await monitor.status())["status"] == "created"
        assert log_of(request) == ""
        await monitor.start()
        await events.until("exit")
        assert '"hi\\n"' in log_of(request)

    play(scenario)


def test_pause_resume_update(play):
    async def scenario(lab: Lab) -> None:
        request = lab.request("sh", "-c", "while :; do echo x; sleep 0.01; done", cgroup=True)
        monitor, _ = await lab.run(request)
        await monitor.pause()
        assert (await monitor.status())["status"] == "paused"
        size = len(log_of(request))
        await asyncio.sleep(0.1)
        assert len(log_of(request)) - size < 100  # at most what was in the pipe
        with pytest.raises(Conflict, match="paused"):
            await monitor.exec("e", request["config"]["process"], stdio={}, attachments=[], seccomp_filter=None)
        await monitor.resume()
        await until(lambda: len(log_of(request)) > size + 200)
        assert await monitor.update({"pids": {"limit": 77}}) == []
        controller = Path("/sys/fs/cgroup/pids")
        base = controller if controller.exists() else Path("/sys/fs/cgroup")
        assert (base / lab.cgroups[0].strip("/") / "pids.max").read_text() == "77\n"

    play(scenario)


def test_failed_creation_leaves_nothing(play):
    async def scenario(lab: Lab) -> None:
        ours, attachment = lab.client()
        request = lab.request("nope", cgroup=True)
        with pytest.raises(InvalidArgument, match='exec: "nope": executable file not found in \\$PATH'):
            await lab.run(request, [attachment])
        lab.handed_over()
        assert ours.recv(1) == b""
        assert not os.path.exists(request["socket"])
        assert not os.path.exists(request["exit_record"])
        assert lab.spawner
        await lab.spawner.close()
        await until(lambda: not monitors_of(lab.tmp))

    play(scenario)


def test_the_daemon_may_come_and_go(play):
    async def scenario(lab: Lab) -> None:
        script = "i=0; while [ $i -lt 200000 ]; do echo $i; i=$((i+1)); done; exit 3"
        request = lab.request("sh", "-c", script)
        monitor, events = await lab.run(request)
        for _ in range(5):
            await monitor.close()
            await asyncio.sleep(0.02)
            monitor = await connect(request["socket"], events)
            assert monitor.pid
        lab.monitors.append(monitor)
        await events.until("exit")
        logged = [json.loads(line)["log"] for line in log_of(request).splitlines()]
        assert logged == [f"{i}\n" for i in range(200000)]

    play(scenario)


def test_an_exit_nobody_sees_is_recorded_and_the_monitor_leaves(play):
    async def scenario(lab: Lab) -> None:
        request = lab.request("sh", "-c", "sleep 0.2; exit 42")
        monitor, _ = await lab.run(request)
        await monitor.close()
        assert lab.spawner
        await lab.spawner.close()
        await until(lambda: not monitors_of(lab.tmp))
        assert json.loads(Path(request["exit_record"]).read_text())["exit_code"] == 42
        with pytest.raises(ConnectionError):
            await connect(request["socket"], lambda m, e: None)

    play(scenario)


def test_a_killed_monitor_is_reported_gone(play):
    async def scenario(lab: Lab) -> None:
        request = lab.request("sleep", "100", cgroup=True)
        monitor, events = await lab.run(request)
        os.kill((await monitor.status())["monitor_pid"], signal.SIGKILL)
        await events.until("gone")
        with pytest.raises(ConnectionError):
            await monitor.status()
        os.kill(monitor.pid, signal.SIGKILL)
        await until(lambda: not exists(monitor.pid))
        open_cgroup(lab.cgroups[0]).remove()

    play(scenario)


def test_leftovers_of_a_shared_pid_namespace_end_with_init(play):
    async def scenario(lab: Lab) -> None:
        request = lab.request("sh", "-c", "sleep 1000 & echo $!; exit 2", cgroup=True, without=("pid",))
        _, events = await lab.run(request)
        assert (await events.until("exit"))["exit_code"] == 2
        assert not exists(int(json.loads(log_of(request))["log"]))

    play(scenario)


def test_orphans_in_a_shared_pid_namespace_are_reaped(play):
    async def scenario(lab: Lab) -> None:
        request = lab.request("sh", "-c", "(sleep 0.1 &); exec sleep 1000", cgroup=True, without=("pid",))
        monitor, _ = await lab.run(request)
        children = Path(f"/proc/{monitor.monitor_pid}/task/{monitor.monitor_pid}/children")
        await until(lambda: len(children.read_text().split()) == 2)
        await until(lambda: children.read_text().split() == [str(monitor.pid)])

    play(scenario)


def test_an_idle_container_costs_little(play):
    """What a monitor does not share with the others, in KiB; a hundred share the rest (about 0.1 MiB for each)."""

    def private(pid: int) -> int:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))

    async def scenario(lab: Lab) -> None:
        monitors = [(await lab.run(lab.request("sleep", "1000")))[0] for _ in range(6)]
        pids = [monitor.monitor_pid for monitor in monitors[:-1]]
        # Not at once: a helper that still runs shares pages with its monitor, or has just given them to it.
        await until(lambda: sorted(map(private, pids))[len(pids) // 2] < 600)

    play(scenario)


def test_a_path_longer_than_a_socket_address(play):
    async def scenario(lab: Lab) -> None:
        directory = lab.tmp / ("d" * 120)
        directory.mkdir()
        request = lab.request("sleep", "100", socket=str(directory / "monitor.sock"))
        await lab.run(request)
        again = await connect(request["socket"], lambda m, e: None)
        assert again.id == request["id"]
        assert os.stat(request["socket"]).st_mode & 0o777 == 0o600
        await again.close()

    play(scenario)


@pytest.mark.parametrize("left", ["exit 3", "sleep 100"])
def test_memory_that_ran_out_is_told(play, left):
    """v1 announces before it kills: a quick monitor sees no victim yet. Many rounds, so that one is quick enough."""

    async def scenario(lab: Lab) -> None:
        for _ in range(8):
            script = f"(dd if=/dev/zero of=/dev/null bs=99M count=9; true); {left}"
            request = lab.request("sh", "-c", script, cgroup=True)
            request["config"]["linux"]["resources"] = {"memory": {"limit": 8 << 20, "swap": 8 << 20}}
            monitor, events = await lab.run(request)
            await events.until("oom")
            if left != "exit 3":
                await monitor.signal(9)
            assert (await events.until("exit"))["oom_killed"]
            assert json.loads(Path(request["exit_record"]).read_text())["oom_killed"]

    play(scenario)


def test_a_held_pause_ends_with_its_asker(play):
    async def scenario(lab: Lab) -> None:
        request = lab.request("sleep", "100", cgroup=True)
        monitor, _ = await lab.run(request)
        other = await connect(request["socket"], lambda m, e: None)
        await other.pause(held=True)
        assert (await monitor.status())["status"] == "paused"
        await other.close()
        plain = await connect(request["socket"], lambda m, e: None)  # comes after the end of the other one
        assert (await plain.status())["status"] == "running"
        await plain.pause()
        await plain.close()
        last = await connect(request["socket"], lambda m, e: None)
        assert (await last.status())["status"] == "paused"
        await last.resume()
        await last.close()

    play(scenario)
