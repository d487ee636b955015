"""Containers that join the PID namespace of another, which may have CAP_SYS_PTRACE and mean ill."""

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.monitor.lab import Lab, exists, log_of, monitors_of, receive_all, start_tracer, until
from wherry.errors import Conflict, Internal, InvalidArgument
from wherry.runtime import client, late
from wherry.runtime.cgroups import open_cgroup
from wherry.runtime.client import Monitor

pytestmark = pytest.mark.root

ADMIN = 1 << 21


def joining(lab: Lab, donor: Monitor, *args: str, **overrides: Any) -> dict[str, Any]:
    """A request for a container in the PID namespace of `donor`."""
    request = lab.request(*args, without=("pid",), cgroup=True, **overrides)
    path = f"/proc/{donor.pid}/ns/pid"
    request["config"]["linux"]["namespaces"].append({"type": "pid", "path": path})
    return request


async def donor_of(lab: Lab) -> Monitor:
    monitor, _ = await lab.run(lab.request("sleep", "1000"))
    return monitor


def test_it_is_among_the_others_with_a_proc_of_theirs(play):
    async def scenario(lab: Lab) -> None:
        donor = await donor_of(lab)
        script = "cat /proc/1/cmdline; echo; readlink /proc/self/ns/pid; readlink /proc/self; echo $$; exit 7"
        request = joining(lab, donor, "sh", "-c", script.replace("readlink", "busybox readlink"))
        _, events = await lab.run(request)
        assert (await events.until("exit"))["exit_code"] == 7
        lines = [json.loads(line)["log"].strip("\n") for line in log_of(request).splitlines()]
        assert lines[0] == "sleep\0001000\000"
        assert lines[1] == os.readlink(f"/proc/{donor.pid}/ns/pid")
        assert int(lines[2]) > 1
        assert int(lines[3]) > 1

    play(scenario)


def test_it_has_a_terminal(play):
    async def scenario(lab: Lab) -> None:
        donor = await donor_of(lab)
        ours, attachment = lab.client(stdin=True)
        request = joining(lab, donor, "sh", stdio={"tty": True, "open_stdin": True})
        request["console_size"] = (20, 70)
        _, events = await lab.run(request, [attachment])
        ours.sendall(b"stty size; exit 4\n")
        output = await asyncio.to_thread(receive_all, ours)
        assert b"20 70" in output
        assert b"job control" not in output  # the terminal controls it
        assert (await events.until("exit"))["exit_code"] == 4

    play(scenario)


def test_whoever_traces_it_while_it_is_made_gains_nothing(play, monkeypatch):
    """What appears in the PID namespace is the finished init, and before it what opens its procfs: that one has nothing
    but a filter and an empty root."""

    async def scenario(lab: Lab) -> None:
        monkeypatch.setenv("WHERRY_FAILPOINT", "runtime-inside:sleep=0.05,runtime-procfs:sleep=0.05")
        donor = await donor_of(lab)
        tracer = await start_tracer(donor.pid, "look")
        roots = set()
        own: dict[str, str] = {}
        for _ in range(5):
            request = joining(lab, donor, "sleep", "1000")
            sets = ("bounding", "effective", "permitted")
            request["config"]["process"]["capabilities"] = {name: ["CAP_CHOWN", "CAP_SYS_PTRACE"] for name in sets}
            request["config"]["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": []}
            monitor, _ = await lab.run(request)
            root = os.stat(f"/proc/{monitor.pid}/root/.")
            roots.add((root.st_dev, root.st_ino))
            own = {name: os.readlink(f"/proc/{monitor.pid}/ns/{name}") for name in ("pid", "user")}
        out, _ = await asyncio.to_thread(tracer.communicate, b"\n")
        caught = [seen for seen in map(json.loads, out.splitlines()) if "memfd" in seen["exe"]]
        openers = [seen for seen in caught if not seen["files"]]
        inits = [seen for seen in caught if seen["files"]]
        assert len(openers) >= 3
        assert len(inits) >= 3
        host = {name: os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "net", "ipc", "uts")}
        for seen in caught:
            assert seen["seccomp"] == "2"
            assert seen["cwd"] == "/"
            assert not seen["writable_exe"]
            assert not any(seen["namespaces"][name] == host[name] for name in host)
            assert {name: seen["namespaces"][name] for name in own} == own
            assert sum(target.startswith("socket:") for target in seen["fds"].values()) == 1
        for seen in openers:
            assert seen["climbed"] == []
            assert seen["capabilities"][:3] == [0, ADMIN, ADMIN]
            assert len(seen["fds"]) == 1
        for seen in inits:
            assert tuple(seen["root"]) in roots
            assert not any(held & ~(1 | 1 << 19) for held in seen["capabilities"])
            assert set(seen["fds"]) - {"0", "1", "2"} == {
                fd for fd, target in seen["fds"].items() if target.startswith("socket:")
            }

    play(scenario)


def test_it_is_let_go_on_when_it_is_stopped(play):
    async def scenario(lab: Lab) -> None:
        donor = await donor_of(lab)
        tracer = await start_tracer(donor.pid, "stop")
        try:
            request = joining(lab, donor, "echo", "ran")
            monitor, events = await lab.run(request)
        finally:
            await asyncio.to_thread(tracer.communicate, b"\n")
        with contextlib.suppress(Conflict):  # it has ended
            await monitor.signal(signal.SIGCONT)
        assert (await events.until("exit"))["exit_code"] == 0
        assert "ran" in log_of(request)

    play(scenario)


@pytest.mark.parametrize("point", ["runtime-procfs", "runtime-inside"])
def test_held_up_for_good_it_fails_and_leaves_nothing(play, monkeypatch, point):
    """Traced and not let go, at each of the moments when there is something to trace."""

    async def scenario(lab: Lab) -> None:
        monkeypatch.setattr(late, "PATIENCE_S", 0.3)
        monkeypatch.setattr(client, "_MARGIN_S", 0)
        monkeypatch.setenv("WHERRY_FAILPOINT", f"{point}:sleep=0.05")
        donor = await donor_of(lab)
        alive = monitors_of(lab.tmp)
        tracer = await start_tracer(donor.pid, "hold")
        try:
            request = joining(lab, donor, "sleep", "1000")
            with pytest.raises(Internal, match="did not get to run within"):
                await lab.run(request)
            assert not open_cgroup(request["config"]["linux"]["cgroupsPath"]).exists()
            assert not Path(request["socket"]).exists()
            spares = 2  # the one that waits now, and its helper
            await until(lambda: len(set(monitors_of(lab.tmp)) - set(alive)) <= spares)
        finally:
            await asyncio.to_thread(tracer.communicate, b"\n")
        assert exists(donor.pid)

    play(scenario)


def test_a_filter_that_forbids_birth_needs_no_new_privileges(play):
    """Loaded by init itself, it would take CAP_SYS_ADMIN where others may trace it."""

    async def scenario(lab: Lab) -> None:
        donor = await donor_of(lab)
        request = joining(lab, donor, "echo", "ran")
        rule = {"names": ["clone", "fork", "vfork"], "action": "SCMP_ACT_ERRNO"}
        profile = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": [], "syscalls": [rule]}
        request["config"]["linux"]["seccomp"] = profile
        with pytest.raises(InvalidArgument, match="forbids clone"):
            await lab.run(request)
        again = joining(lab, donor, "echo", "ran")
        again["config"]["linux"]["seccomp"] = profile
        again["config"]["process"]["noNewPrivileges"] = True
        _, events = await lab.run(again)
        assert (await events.until("exit"))["exit_code"] == 0
        assert "ran" in log_of(again)

    play(scenario)


@pytest.mark.parametrize("point", ["runtime-before-mounts", "runtime-before-birth", "runtime-inside"])
def test_one_that_dies_on_its_way_is_an_error(play, monkeypatch, point):
    async def scenario(lab: Lab) -> None:
        donor = await donor_of(lab)
        monkeypatch.setenv("WHERRY_FAILPOINT", f"{point}:kill")
        await lab.spawner.close()
        lab.spawner = None
        with pytest.raises(Internal, match=r"ended|is gone|did not"):
            await lab.run(joining(lab, donor, "sleep", "1000"))
        assert exists(donor.pid)

    play(scenario)


def test_a_start_that_hangs_is_given_up(play, monkeypatch):
    """Whatever keeps a container from its program, its own PID namespace or not: here, a hook of the tests."""

    async def scenario(lab: Lab) -> None:
        monkeypatch.setattr(late, "PATIENCE_S", 0.3)
        monkeypatch.setattr(client, "_MARGIN_S", 0)
        monkeypatch.setenv("WHERRY_FAILPOINT", "runtime-before-mounts:sleep=100")
        request = lab.request("sleep", "1000", cgroup=True)
        with pytest.raises(Internal, match="did not get to run within"):
            await lab.run(request)
        assert not open_cgroup(request["config"]["linux"]["cgroupsPath"]).exists()
        assert not Path(request["socket"]).exists()

    play(scenario)


def test_whoever_speaks_in_the_name_of_its_maker_is_not_believed(play, monkeypatch):
    async def scenario(lab: Lab) -> None:
        monkeypatch.setenv("WHERRY_FAILPOINT", "runtime-born:sleep=1000")
        donor = await donor_of(lab)
        tracer = await start_tracer(donor.pid, "forge", f"P{donor.pid}")
        request = joining(lab, donor, "sleep", "1000")
        config = request["config"]
        config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "proc"]  # nor what opens it
        with pytest.raises(Internal, match="another process spoke in the name"):
            await lab.run(request)
        out, _ = await asyncio.to_thread(tracer.communicate, b"\n")
        assert b"forged" in out
        assert not open_cgroup(config["linux"]["cgroupsPath"]).exists()
        assert exists(donor.pid)

    play(scenario)
