"""What differs where cgroup v2 is all there is: namespaces, device programs, the freezer, names of files."""

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not os.path.exists("/sys/fs/cgroup/cgroup.controllers"), reason="needs a host with cgroup v2 alone"
)


def _directory(pid: int) -> Path:
    (line,) = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return Path("/sys/fs/cgroup" + line.removeprefix("0::"))


def test_the_cgroup_namespace_is_private_unless_asked(host):
    script = "cat /proc/self/cgroup; cat /sys/fs/cgroup/pids.max; mkdir /sys/fs/cgroup/x"
    result = host.docker("run", "--rm", "--pids-limit", "77", "busybox", "sh", "-c", script, check=False)
    assert result.stdout.splitlines() == ["0::/", "77"]
    assert "Read-only file system" in result.stderr
    shown = host.out("run", "--rm", "--cgroupns", "host", "busybox", "cat", "/proc/self/cgroup")
    assert shown.startswith(f"0::{host.cgroup}/")
    assert host.out("info", "--format", "{{.CgroupVersion}} {{.CgroupDriver}}") == "2 cgroupfs"


def test_every_limit_is_in_its_file(host, name):
    host.docker(
        *("run", "-d", "--name", name, "--memory", "64m", "--memory-swap", "96m", "--memory-reservation", "32m"),
        *("--cpu-shares", "2048", "--cpuset-cpus", "0", "busybox", "sleep", "1000"),
    )
    directory = _directory(host.inspect(name)["State"]["Pid"])
    files = ("memory.max", "memory.swap.max", "memory.low", "cpu.weight", "cpuset.cpus")
    # 2048 shares are a weight of 174: runc's and crun's curve through 2:1, 1024:100 and 262144:10000.
    kept = [(directory / file).read_text().strip() for file in files]
    assert kept == [str(64 << 20), str(32 << 20), str(32 << 20), "174", "0"]


def test_pids_limit_is_enforced(host):
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; echo all"
    result = host.docker("run", "--rm", "--pids-limit", "4", "busybox", "sh", "-c", script, check=False)
    assert "can't fork" in result.stderr
    assert "all" not in result.stdout


def test_devices_are_kept_by_a_program(host):
    script = "mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem; mknod /tmp/zero c 1 5 && head -c 1 /tmp/zero | wc -c"
    result = host.docker("run", "--rm", "busybox", "sh", "-c", script, check=False)
    assert result.stdout.split() == ["1"]
    assert "/tmp/mem: Operation not permitted" in result.stderr
    reading = ("run", "--rm", "--device", "/dev/loop-control:/dev/mine:r", "busybox", "sh", "-c")
    result = host.docker(*reading, ": < /dev/mine && echo read; : > /dev/mine", check=False)
    assert result.stdout.split() == ["read"]
    assert "Operation not permitted" in result.stderr


def test_pause_freezes_and_exec_waits_in_the_same_cgroup(host, name):
    host.docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    directory = _directory(host.inspect(name)["State"]["Pid"])
    host.docker("exec", "-d", name, "sleep", "2000")
    host.wait_until(lambda: len((directory / "cgroup.procs").read_text().split()) == 2, "the exec'd process")
    host.docker("pause", name)
    assert "frozen 1" in (directory / "cgroup.events").read_text()
    assert "is paused" in host.docker("exec", name, "true", check=False).stderr
    host.docker("unpause", name)
    assert "frozen 0" in (directory / "cgroup.events").read_text()
    assert host.docker("exec", name, "true").returncode == 0


def test_the_oom_killer_in_an_exec_is_told_once(host, name):
    host.docker("run", "-d", "--name", name, "--memory", "16m", "--memory-swap", "16m", "busybox", "sleep", "1000")
    result = host.docker("exec", name, "sh", "-c", "head -c 64000000 /dev/zero | tail > /dev/null", check=False)
    assert result.returncode == 137
    assert host.inspect(name)["State"]["Running"] is True
    host.docker("kill", name)
    events = host.out(
        "events", "--since", "5m", "--until", "0s", "--filter", f"container={name}", "--format", "{{.Action}}"
    )
    assert "oom" in events.split()
