"""The OCI command line: life cycle, output, refusals."""

import json
import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from wherry.runtime import oci_cli
from wherry.runtime.oci_cli import Usage, parse

from .lab import Lab


def test_parse() -> None:
    table = oci_cli.COMMANDS["exec"]
    values, rest = parse(["-t", "-e", "A=1", "--env=B=2", "--cwd", "/x", "box", "sh", "-c", "exit"], table)
    assert values == {"tty": True, "env": ["A=1", "B=2"], "cwd": "/x"}
    assert rest == ["box", "sh", "-c", "exit"]
    assert parse(["--detach=false", "--", "-x"], table) == ({"detach": False}, ["-x"])
    for wrong in (["--nope"], ["--cwd"]):
        with pytest.raises(Usage):
            parse(wrong, table)


@pytest.mark.root
def test_life_cycle(lab: Lab, tmp_path: Path) -> None:
    mark = lab.rootfs / "ran"
    lab.process["args"] = ["sh", "-c", "touch /ran; sleep 1000"]
    lab.config["annotations"] = {"key": "value"}
    assert lab.create().code == 0
    state = lab.info()
    assert state["status"] == "created"
    assert state["ociVersion"] == "1.2.0"
    assert state["id"] == lab.id
    assert state["bundle"] == str(lab.directory)
    assert state["annotations"] == {"key": "value"}
    assert not mark.exists()
    assert "container with given ID already exists" in lab.create().err
    assert lab.cli("start", lab.id).code == 0
    assert lab.info()["status"] == "running"
    assert "already running" in lab.cli("start", lab.id).err
    assert f"cannot delete container {lab.id} that is not stopped: running" in lab.cli("delete", lab.id).err
    assert lab.cli("pause", lab.id).code == 0
    assert lab.info()["status"] == "paused"
    assert lab.cli("resume", lab.id).code == 0
    assert [row["id"] for row in json.loads(lab.cli("list", "-f", "json").out)] == [lab.id]
    assert lab.cli("list", "-q").out == f"{lab.id}\n"
    assert "sleep 1000" in lab.cli("ps", lab.id).out
    assert lab.cli("kill", lab.id, "KILL").code == 0
    deadline = time.monotonic() + 60
    while lab.info()["status"] != "stopped":
        assert time.monotonic() < deadline
    assert lab.info()["pid"] == 0
    assert "container not running" in lab.cli("kill", lab.id).err
    assert lab.cli("delete", lab.id).code == 0
    assert mark.exists()
    assert "container does not exist" in lab.cli("state", lab.id).err
    assert not os.path.exists(f"/sys/fs/cgroup/pids/wherry-test/{lab.id}")
    assert os.listdir(lab.state) == []


@pytest.mark.root
def test_force_deletes_what_runs_and_what_is_not_there(lab: Lab) -> None:
    pid = lab.start_sleeping()
    assert lab.cli("delete", "--force", lab.id).code == 0
    assert not os.path.exists(f"/proc/{pid}/exe") or not os.path.realpath(f"/proc/{pid}/exe")
    assert lab.cli("delete", "--force", lab.id).code == 0
    assert lab.cli("delete", lab.id).code == 1


@pytest.mark.root
def test_created_container_can_be_deleted(lab: Lab) -> None:
    assert lab.create("true").code == 0
    assert lab.cli("delete", lab.id).code == 0


@pytest.mark.root
def test_pid_that_is_another_process_by_now_is_left_alone(lab: Lab) -> None:
    """State outlives its process; the pid is given to somebody else."""
    pid = lab.start_sleeping()
    with subprocess.Popen(["sleep", "100"]) as innocent:
        path = lab.state / lab.id / "state.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "pid": innocent.pid}))
        assert lab.info()["status"] == "stopped"
        assert lab.cli("kill", lab.id, "KILL").code == 1
        assert lab.cli("delete", "--force", lab.id).code == 0
        assert innocent.poll() is None
        innocent.kill()
    assert not os.path.exists(f"/proc/{pid}/root/bin")


@pytest.mark.root
def test_kill_all_reaches_every_process(lab: Lab) -> None:
    lab.process["args"] = ["sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000"]
    assert lab.create().code == 0
    assert lab.cli("start", lab.id).code == 0
    deadline = time.monotonic() + 60
    while len(json.loads(lab.cli("ps", "-f", "json", lab.id).out)) < 2:
        assert time.monotonic() < deadline
    assert lab.cli("kill", "--all", lab.id, "9").code == 0
    while lab.info()["status"] != "stopped":
        assert time.monotonic() < deadline


@pytest.mark.root
def test_pid_file_and_run_detached(lab: Lab, tmp_path: Path) -> None:
    lab.process["args"] = ["sleep", "1000"]
    lab.write()
    with open(os.devnull, "r+b") as null:
        command = lab.command("run", "-d", "--pid-file", str(tmp_path / "pid"), "-b", str(lab.directory), lab.id)
        subprocess.run(command, check=True, stdin=null, stdout=null, stderr=null, timeout=60)
    assert int((tmp_path / "pid").read_text()) == lab.info()["pid"]


@pytest.mark.root
def test_exit_codes_of_run(lab: Lab) -> None:
    assert lab.sh("exit 7").code == 7
    assert lab.sh("kill -9 $$; exit 3").code == 3  # init ignores what it does not handle
    lab.drop_namespace("pid")
    assert lab.sh("kill -9 $$").code == 137


@pytest.mark.root
def test_update_changes_limits(lab: Lab) -> None:
    lab.start_sleeping()
    assert lab.cli("update", "--pids-limit", "17", lab.id).code == 0
    assert lab.cli("update", "-r", "-", lab.id, stdin=b'{"memory": {"limit": 33554432}}').code == 0
    base = "/sys/fs/cgroup/{}/wherry-test/" + lab.id
    if os.path.exists(base.format("pids")):
        assert Path(base.format("pids"), "pids.max").read_text() == "17\n"
        assert Path(base.format("memory"), "memory.limit_in_bytes").read_text() == "33554432\n"
    stats = json.loads(lab.cli("events", "--stats", lab.id).out)
    assert stats["type"] == "stats"
    assert stats["data"]["pids"]["limit"] == 17


@pytest.mark.root
def test_log_file_as_callers_read_it(lab: Lab, tmp_path: Path) -> None:
    lab.process["args"] = ["nope"]
    lab.write()
    log = tmp_path / "log.json"
    result = lab.cli("--log", str(log), "--log-format", "json", "create", "-b", str(lab.directory), lab.id)
    assert result.code == 1
    (entry,) = map(json.loads, log.read_text().splitlines())
    assert entry["level"] == "error"
    assert entry["msg"] == 'exec: "nope": executable file not found in $PATH'


@pytest.mark.root
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--systemd-cgroup", "list"), "--systemd-cgroup is not supported"),
        (("checkpoint", "x"), "checkpoint and restore are not supported"),
        (("restore", "x"), "checkpoint and restore are not supported"),
        (("state", "../etc"), "invalid container ID format"),
        (("state", ".."), "invalid container ID format"),
        (("nonsense",), "no such command"),
        (("create", "-b", "/does/not/exist", "x"), "config.json not found"),
        (("kill", "x", "NOSUCH"), "unknown signal"),
    ],
)
def test_refusals(lab: Lab, arguments: tuple[str, ...], text: str) -> None:
    result = lab.cli(*arguments)
    assert result.code == 1
    assert text in result.err


@pytest.mark.root
@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"linux": {"intelRdt": {"closID": "x"}}}, "linux.intelRdt is not supported"),
        ({"linux": {"cgroupsPath": "a.slice:b:c"}}, "systemd slice"),
        ({"ociVersion": "2.0.0"}, "unsupported ociVersion"),
    ],
)
def test_configurations_that_are_refused(lab: Lab, change: dict[str, object], text: str) -> None:
    linux = change.pop("linux", {})
    lab.config.update(change)
    lab.linux.update(linux)  # type: ignore[call-overload]
    assert text in lab.run("true").err


@pytest.mark.root
def test_spec_makes_a_bundle_that_runs(lab: Lab) -> None:
    assert lab.cli("spec", "-b", str(lab.directory)).code == 0
    assert "Remove it first" in lab.cli("spec", "-b", str(lab.directory)).err
    config = json.loads((lab.directory / "config.json").read_text())
    config["process"]["terminal"] = False
    config["process"]["args"] = ["echo", "it runs"]
    (lab.directory / "config.json").write_text(json.dumps(config))
    result = lab.cli("run", "-b", str(lab.directory), lab.id)
    assert result.out == "it runs\n", result.err


@pytest.mark.root
def test_features(lab: Lab) -> None:
    features = json.loads(lab.cli("features").out)
    assert "time" in features["linux"]["namespaces"]
    assert {"rro", "idmap", "rprivate", "tmpcopyup"} <= set(features["mountOptions"])


@pytest.mark.root
def test_creator_that_dies_leaves_no_process(lab: Lab) -> None:
    """Killed between fork and ready, with init stuck: delete finds the half-made container by its record."""
    lab.process["args"] = ["sleep", "1000"]
    lab.write()
    env = {**os.environ, "WHERRY_FAILPOINT": "runtime-before-pivot:sleep=1000"}
    creator = subprocess.Popen(lab.command("create", "-b", str(lab.directory), lab.id), env=env)
    deadline = time.monotonic() + 60
    while not (pids := lab_pids(lab)):
        assert time.monotonic() < deadline
    creator.kill()
    creator.wait()
    assert lab.cli("delete", "--force", lab.id).code == 0
    assert not any(os.path.exists(f"/proc/{pid}/root/bin") for pid in pids)
    assert not os.path.exists(f"/sys/fs/cgroup/pids/wherry-test/{lab.id}")


def lab_pids(lab: Lab) -> list[int]:
    path = Path(f"/sys/fs/cgroup/pids/wherry-test/{lab.id}/cgroup.procs")
    try:
        return [int(line) for line in path.read_text().split()]
    except FileNotFoundError:
        return []


def _told_through_pidfd_socket(lab: Lab, path: str, *arguments: str) -> tuple[bytes, int]:
    """What a command sends to its --pidfd-socket: the kind of process, and a descriptor of it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, open(os.devnull, "r+b") as null:
        listener.bind(path)
        listener.listen()
        listener.settimeout(60)
        subprocess.run(lab.command(*arguments), stdin=null, stdout=null, stderr=null, timeout=60, check=True)
        connection, _ = listener.accept()
        with connection:
            kind, (pidfd,), _, _ = socket.recv_fds(connection, 64, 1)
    os.unlink(path)
    return kind, pidfd


def _pid_of(pidfd: int) -> int:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines())
    return int(fields["Pid"])


@pytest.mark.root
def test_pidfd_socket(lab: Lab) -> None:
    lab.process["args"] = ["sleep", "1000"]
    lab.write()
    path = str(lab.directory / "pidfd.sock")
    kind, pidfd = _told_through_pidfd_socket(
        lab, path, "create", "-b", str(lab.directory), "--pidfd-socket", path, lab.id
    )
    assert (kind, _pid_of(pidfd)) == (b"standard", lab.info()["pid"])
    assert lab.cli("start", lab.id).code == 0
    pid_file = lab.directory / "pid"
    kind, joined = _told_through_pidfd_socket(
        *(lab, path, "exec", "-d", "--pidfd-socket", path, "--pid-file", str(pid_file), lab.id, "sleep", "1000"),
    )
    assert (kind, _pid_of(joined)) == (b"setns", int(pid_file.read_text()))
    signal.pidfd_send_signal(joined, signal.SIGKILL)
    assert select.select([joined], [], [], 10)[0]
    os.close(joined)
    os.close(pidfd)


@pytest.mark.root
def test_pidfd_socket_that_nobody_listens_on(lab: Lab) -> None:
    lab.write()
    path = str(lab.directory / "nobody.sock")
    result = lab.cli("create", "-b", str(lab.directory), "--pidfd-socket", path, lab.id)
    assert result.code == 1
    assert f"pidfd socket {path}: no such file or directory" in result.err
    assert "container does not exist" in lab.cli("state", lab.id).err


@pytest.mark.root
@pytest.mark.parametrize("own", [True, False])
def test_the_session_keyring_is_its_own_or_the_callers(lab: Lab, own: bool) -> None:
    """/proc/keys names the keyrings that a process possesses."""
    lab.config["linux"]["maskedPaths"] = []
    assert lab.create("sleep", "1000", options=() if own else ("--no-new-keyring",)).code == 0
    assert lab.cli("start", lab.id).code == 0
    keys = lab.cli("exec", lab.id, "cat", "/proc/keys").out
    assert (f"_ses.{lab.id}" in keys) is own


@pytest.mark.root
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU allows no choice")
@pytest.mark.parametrize("final", [False, True])
def test_exec_cpu_affinity(lab: Lab, final: bool) -> None:
    lab.start_sleeping()
    first, *_, last = sorted(os.sched_getaffinity(0))
    affinity = {"initial": str(first)} | ({"final": str(last)} if final else {})
    process = lab.directory / "process.json"
    args = ["grep", "Cpus_allowed_list", "/proc/self/status"]
    process.write_text(json.dumps({"args": args, "cwd": "/", "env": ["PATH=/bin"], "execCPUAffinity": affinity}))
    allowed = lab.cli("exec", lab.id, *args).out
    result = lab.cli("exec", "--process", str(process), lab.id)
    assert result.out == (f"Cpus_allowed_list:\t{last}\n" if final else allowed)


@pytest.mark.root
def test_exec_begins_on_the_initial_cpus(lab: Lab) -> None:
    """The runtime itself moves there, and forks the process there."""
    lab.start_sleeping()
    first = min(os.sched_getaffinity(0))
    process = lab.directory / "process.json"
    asked = {"args": ["sleep", "1000"], "cwd": "/", "env": ["PATH=/bin"], "execCPUAffinity": {"initial": str(first)}}
    process.write_text(json.dumps(asked))
    runtime = subprocess.Popen(lab.command("exec", "--process", str(process), lab.id))
    try:
        deadline = time.monotonic() + 60
        while len(lab.cli("ps", "-f", "json", lab.id).out.split(",")) < 2:
            assert time.monotonic() < deadline
        assert os.sched_getaffinity(runtime.pid) == {first}
    finally:
        runtime.terminate()
        runtime.wait()


@pytest.mark.root
def test_impossible_initial_cpus_are_refused(lab: Lab) -> None:
    lab.start_sleeping()
    process = lab.directory / "process.json"
    asked = {"args": ["true"], "cwd": "/", "env": ["PATH=/bin"], "execCPUAffinity": {"initial": "8000"}}
    process.write_text(json.dumps(asked))
    result = lab.cli("exec", "--process", str(process), lab.id)
    assert result.code == 1
    assert "execCPUAffinity.initial '8000': invalid argument" in result.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list", "-f", "bad"), "invalid format option"),
        (("ps", "-f", "bad", "{id}"), "invalid format option"),
        (("ps", "{id}", "-o", "comm"), "couldn't find PID field in ps output"),
        (("ps", "{id}", "--bad"), "exit status 1: error: unknown gnu long option"),
        (("update", "--l3-cache-schema", "L3:0=f", "{id}"), "Intel RDT/CAT: l3 cache schema is not enabled"),
        (("update", "--mem-bw-schema", "MB:0=5", "{id}"), "Intel RDT/MBA: memory bandwidth schema is not enabled"),
        (("update", "--memory", "bad", "{id}"), "invalid value for memory: invalid size: 'bad'"),
        (("update", "--memory-swap", "1x", "{id}"), "invalid value for memory-swap: invalid size: '1x'"),
        (("update", "--cpu-share", "-1", "{id}"), "invalid value for cpu-share: strconv.ParseUint: parsing"),
        (("update", "--cpu-quota", "x", "{id}"), "invalid value for cpu-quota: strconv.ParseInt: parsing"),
        (("update", "--pids-limit", "x", "{id}"), 'invalid value "x" for flag -pids-limit: parse error'),
        (("update", "-r", "/dev/null", "{id}"), "EOF"),
    ],
)
def test_bad_values_are_refused_in_runcs_words(lab: Lab, words: tuple[str, ...], said: str) -> None:
    lab.start_sleeping()
    result = lab.cli(*(word.format(id=lab.id) for word in words))
    assert result.code == 1
    assert said in result.err + result.out


def test_ps_is_the_hosts_ps_and_an_update_may_name_nothing(lab: Lab) -> None:
    pid = lab.start_sleeping()
    assert lab.cli("ps", lab.id, "-o", "pid,comm").out.split() == ["PID", "COMMAND", str(pid), "sleep"]
    heading, row = lab.cli("ps", lab.id).out.splitlines()
    assert heading.split()[:3] == ["UID", "PID", "PPID"]
    assert row.split()[:2] == ["root", str(pid)]
    assert row.endswith("sleep 1000")
    assert lab.cli("update", lab.id).code == 0
    assert lab.cli("update", "--memory", "64.5m", lab.id).code == 0
