"""Processes that join a running container."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wherry.runtime import wire
from wherry.runtime.exec import Joiner
from wherry.runtime.failure import StartError

from .lab import Lab

pytestmark = pytest.mark.root


def test_joins_every_namespace_and_the_root(lab: Lab) -> None:
    lab.linux["namespaces"].append({"type": "cgroup"})
    pid = lab.start_sleeping()
    (lab.rootfs / "marker").write_text("inside")
    script = "for n in pid net ipc uts mnt cgroup; do readlink /proc/self/ns/$n; done; cat /marker; hostname"
    result = lab.cli("exec", lab.id, "sh", "-c", script)
    *namespaces, last = result.out.splitlines()
    theirs = [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("pid", "net", "ipc", "uts", "mnt", "cgroup")]
    assert namespaces == theirs
    assert last == "insidebox" or (namespaces, last) == (theirs, "insidebox")


def test_exit_code_and_streams(lab: Lab) -> None:
    lab.start_sleeping()
    result = lab.cli("exec", lab.id, "sh", "-c", "cat; echo err >&2; exit 9", stdin=b"given")
    assert result == (9, "given", "err\n")
    assert lab.cli("exec", lab.id, "sh", "-c", "kill -9 $$").code == 137


def test_options(lab: Lab) -> None:
    lab.start_sleeping()
    result = lab.cli(
        *("exec", "--cwd", "/tmp", "-e", "A=x y", "--user", "1000:7", "-g", "44", "-g", "55", lab.id),
        *("sh", "-c", "pwd; echo $A; id -u; id -g; id -G; echo $HOME"),
    )
    assert result.out.splitlines() == ["/tmp", "x y", "1000", "7", "7 44 55", "/home/bob"]


def test_capabilities_and_no_new_privileges(lab: Lab) -> None:
    lab.start_sleeping()
    status = lab.cli("exec", lab.id, "cat", "/proc/self/status").out
    assert re.search(r"CapEff:\s+00000000a80425fb", status)
    assert re.search(r"CapInh:\s+0+\n", status)
    status = lab.cli("exec", "--cap", "CAP_SYS_PTRACE", "--no-new-privs", lab.id, "cat", "/proc/self/status").out
    assert re.search(r"CapEff:\s+00000000a80c25fb", status)
    assert re.search(r"NoNewPrivs:\s+1", status)


def test_seccomp_applies(lab: Lab) -> None:
    lab.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    }
    lab.start_sleeping()
    assert "No space left" in lab.cli("exec", lab.id, "mkdir", "/x").err


def forbid(lab: Lab, *names: str) -> None:
    lab.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": list(names), "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    }


CLONES = ("clone", "clone3", "fork", "vfork")


@pytest.mark.parametrize("no_new_privileges", [False, True])
@pytest.mark.parametrize("user", ["0", "1000"])
def test_a_filter_that_lets_nobody_be_born_is_loaded_last(lab: Lab, user: str, no_new_privileges: bool) -> None:
    lab.process["noNewPrivileges"] = no_new_privileges
    forbid(lab, *CLONES, "setsid")
    lab.start_sleeping()
    status = lab.cli("exec", "--user", user, lab.id, "cat", "/proc/self/status")
    assert status.code == 0, status.err
    assert re.search(r"Seccomp:\s+2\nSeccomp_filters:\s+1", status.out)
    assert re.search(rf"NoNewPrivs:\s+{int(no_new_privileges)}", status.out)
    assert re.search(r"CapBnd:\s+00000000a80425fb", status.out)
    assert re.search(rf"CapEff:\s+00000000{'a80425fb' if user == '0' else '00000000'}", status.out)
    refused = lab.cli("exec", "--user", user, lab.id, "sh", "-c", "true | true")
    assert "No space left" in refused.err


def test_a_filter_that_comes_last_needs_privileges_that_no_tracer_gets_at(lab: Lab) -> None:
    forbid(lab, *CLONES)
    for kind in ("bounding", "effective", "permitted"):
        lab.process["capabilities"][kind].append("CAP_SYS_PTRACE")
    lab.start_sleeping()
    refused = lab.cli("exec", lab.id, "true")
    assert refused.code == 255
    assert "privileges that a container with CAP_SYS_PTRACE can get at" in refused.err
    assert lab.cli("exec", "--no-new-privs", lab.id, "true").code == 0


@pytest.mark.parametrize("filtered", [False, True])
def test_a_scheduler_that_children_do_not_inherit(lab: Lab, tmp_path: Path, filtered: bool) -> None:
    if filtered:
        forbid(lab, "mkdir", "sched_setattr")
    lab.start_sleeping()
    process = lab.process | {"args": ["sleep", "1000"]}
    process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
    (tmp_path / "process").write_text(json.dumps(process))
    with open(os.devnull, "r+b") as null:
        words = ("exec", "-d", "--process", str(tmp_path / "process"), "--pid-file", str(tmp_path / "pid"), lab.id)
        subprocess.run(lab.command(*words), check=True, stdin=null, stdout=null, stderr=null, timeout=60)
    pid = int((tmp_path / "pid").read_text())
    assert os.sched_getscheduler(pid) == os.SCHED_BATCH | os.SCHED_RESET_ON_FORK
    assert os.getpriority(os.PRIO_PROCESS, pid) == 7
    assert re.search(r"CapEff:\s+00000000a80425fb", Path(f"/proc/{pid}/status").read_text())


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (["nope"], 'exec: "nope": executable file not found in $PATH'),
        (["/x"], 'exec: "/x": stat /x: no such file or directory'),
        (["/etc/passwd"], 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_program_that_is_not_there(lab: Lab, command: list[str], text: str) -> None:
    lab.start_sleeping()
    result = lab.cli("exec", lab.id, *command)
    assert result.code == 255
    assert text in result.err.replace("\\", "")


def test_working_directory_must_exist(lab: Lab) -> None:
    lab.start_sleeping()
    result = lab.cli("exec", "--cwd", "/nowhere", lab.id, "true")
    assert 'chdir to cwd ("/nowhere") set in config.json failed: no such file or directory' in result.err.replace(
        "\\", ""
    )


def test_detached_with_pid_file_and_process_file(lab: Lab, tmp_path: Path) -> None:
    lab.start_sleeping()
    process = {**lab.process, "args": ["sleep", "1000"]}
    import json

    (tmp_path / "process.json").write_text(json.dumps(process))
    with open(os.devnull, "r+b") as null:
        command = lab.command(
            "exec", "-d", "--pid-file", str(tmp_path / "pid"), "--process", str(tmp_path / "process.json"), lab.id
        )
        subprocess.run(command, check=True, stdin=null, stdout=null, stderr=null, timeout=60)
    pid = int((tmp_path / "pid").read_text())
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\0001000\0"
    assert f"/wherry-test/{lab.id}" in Path(f"/proc/{pid}/cgroup").read_text()
    assert Path(f"/proc/{pid}/fd").exists()
    assert sorted(os.listdir(f"/proc/{pid}/fd"), key=int) == ["0", "1", "2"]


def test_terminal(lab: Lab, tmp_path: Path) -> None:
    lab.start_sleeping()
    path = str(tmp_path / "console.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        with open(os.devnull, "r+b") as null:
            command = lab.command("exec", "-d", "-t", "--console-socket", path, lab.id, "sh", "-c", "tty; cat")
            subprocess.run(command, check=True, stdin=null, stdout=null, stderr=null, timeout=60)
        connection, _ = listener.accept()
        with connection:
            _, (master,), _, _ = socket.recv_fds(connection, 100, 1)
    output = b""
    while not output.endswith(b"\n"):
        output += os.read(master, 100)
    assert output == b"/dev/pts/0\r\n"
    os.close(master)


def test_foreground_passes_signals_on(lab: Lab) -> None:
    lab.start_sleeping()
    command = lab.command(
        "exec", lab.id, "sh", "-c", "trap 'exit 42' TERM; echo ready; while true; do sleep 0.05; done"
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout
        assert running.stdout.readline() == b"ready\n"
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 42


def test_stopped_and_paused_containers_are_refused(lab: Lab) -> None:
    lab.start_sleeping()
    assert lab.cli("pause", lab.id).code == 0
    assert "cannot exec in a paused container" in lab.cli("exec", lab.id, "true").err
    assert lab.cli("resume", lab.id).code == 0
    assert lab.cli("exec", lab.id, "true").code == 0
    lab.cli("kill", lab.id, "KILL")
    deadline = time.monotonic() + 60
    while lab.info()["status"] != "stopped":
        assert time.monotonic() < deadline
    assert "cannot exec in a stopped container" in lab.cli("exec", lab.id, "true").err


def command_line(pid: int) -> bytes:
    """Of a process that may have ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def test_a_process_that_sets_up_is_not_seen_by_the_container(lab: Lab) -> None:
    with _held(lab, "runtime-joined") as joiner:
        assert _inner_pid(joiner) is None


def test_joining_process_gives_nothing_to_the_container(lab: Lab) -> None:
    """While it has joined and has not executed yet, the joiner holds nothing of the host, and nobody without
    CAP_SYS_PTRACE in the host's user namespace may look at it (CVE-2016-9962, CVE-2024-21626)."""
    with _held(lab, "runtime-inside") as joiner:
        inner = _inner_pid(joiner)
        script = "for l in fd/0 fd/3 fd/4 fd/5 fd/6 root exe cwd; do readlink $1/$l; done; ls $1/root/; cat $1/environ"
        seen = lab.cli("exec", lab.id, "sh", "-c", script, "sh", f"/proc/{inner}")
        held = [os.readlink(f"/proc/{joiner}/fd/{fd}") for fd in os.listdir(f"/proc/{joiner}/fd")]
    assert seen.out == ""
    assert seen.err.count("ermission denied") == 2, seen.err
    inherited = [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)]
    assert all(target.startswith(("socket:", "/dev/null")) or target in inherited for target in held), held


def test_a_pid_that_is_taken_is_refused() -> None:
    joiner = Joiner(lambda link: link.send(wire.FORKED, {"pid": os.getpid(), "warnings": []}, [0]), lambda _: True)
    before = len(os.listdir("/proc/self/fd"))
    select.select([joiner], [], [])
    try:
        with pytest.raises(StartError, match="another's pid"):
            joiner.look()
        assert joiner.process is None
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        joiner.end()
        joiner.reap()


@contextmanager
def _held(lab: Lab, point: str) -> Iterator[int]:
    """The host's pid of a process that joins and waits at `point`."""
    lab.start_sleeping()
    wait = "echo $PPID >/joined; until test -e /go; do sleep 0.01; done"
    command = lab.command("exec", lab.id, "true")
    with subprocess.Popen(command, env={**os.environ, "WHERRY_FAILPOINT": f"{point}:exec={wait}"}) as client:
        deadline = time.monotonic() + 60
        while not (lab.rootfs / "joined").exists():
            assert time.monotonic() < deadline
        host = [int(line) for line in lab.cli("ps", "-f", "json", lab.id).out.strip("[]\n").split(",")]
        joining = [pid for pid in host if b"python" in command_line(pid)]
        try:
            yield next(pid for pid in joining if point == "runtime-joined" or _inner_pid(pid) is not None)
        finally:
            (lab.rootfs / "go").touch()
    assert client.returncode == 0


def _inner_pid(pid: int) -> int | None:
    """The pid in the container; None for a process that is not in its PID namespace."""
    found = re.search(r"NSpid:\s+\d+\s+(\d+)\n", Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) if found else None
