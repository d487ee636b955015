"""Containers run by other OCI runtimes, `docker run --runtime NAME`: the real runc and crun."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from .host import Host

SHIM = "failed to create task for container: failed to create shim task: "
UNIFIED = "/sys/fs/cgroup/unified"


class _OtherMounts:
    """A mount namespace without the v2 hierarchy of a hybrid host, which crun refuses."""

    def __init__(self) -> None:
        script = f"umount {UNIFIED}; echo; exec sleep infinity"
        self.holder = subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE)
        assert self.holder.stdout
        self.holder.stdout.readline()
        self.wrapper = ("nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", f"--wd={os.getcwd()}")

    def close(self) -> None:
        self.holder.kill()
        self.holder.communicate()


def _host(runtime: str, *flags: str):
    path = shutil.which(runtime)
    if path is None:
        pytest.skip(f"{runtime} is not installed")
    host = Host("--add-runtime", f"other={path}", *flags)
    mounts = _OtherMounts() if runtime == "crun" and os.path.ismount(UNIFIED) else None
    host.wrapper = mounts.wrapper if mounts else ()
    try:
        host.start()
        host.import_busybox()
        yield host
    finally:
        host.close()
        if mounts:
            mounts.close()


@pytest.fixture(scope="module", params=["runc", "crun"])
def other(request):
    """A host whose runtime `other` is the real runc, or crun."""
    yield from _host(request.param)


@pytest.fixture(params=["runc", "crun"])
def own(request):
    """As `other`, for tests that stop the daemon."""
    yield from _host(request.param, "--default-runtime", "other")


@pytest.fixture
def name(other, request):
    chosen = "".join(c if c.isalnum() else "-" for c in request.node.name)[:60]
    yield chosen
    other.docker("rm", "-f", chosen, check=False)


def run(host, *words, **options):
    return host.docker("run", "--runtime", "other", *words, **options)


def test_it_is_the_other_runtime_that_runs_it(other, name):
    run(other, "-d", "--name", name, "busybox", "sleep", "300")
    shown = other.inspect(name)
    assert shown["HostConfig"]["Runtime"] == "other"
    states = list(other.root.glob(f"run/containers/{shown['Id']}/state/{shown['Id']}/*"))
    assert {path.name for path in states} & {"state.json", "status"}


def test_output_and_exit_code(other):
    result = run(other, "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3", check=False)
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 3)


def test_nothing_shows_on_the_host_and_nothing_is_left(other, name):
    run(other, "-d", "--name", name, "busybox", "sleep", "300")
    container = other.inspect(name)
    pid, identity = container["State"]["Pid"], container["Id"]
    daemon = other.daemon.pid
    assert f"containers/{identity}" not in Path(f"/proc/{daemon}/mountinfo").read_text()
    assert " / / " in Path(f"/proc/{pid}/mountinfo").read_text()
    assert Path(f"/proc/{pid}/root/bin/busybox").exists()
    cgroup = Path(f"/proc/{pid}/cgroup").read_text()
    assert f"{other.cgroup}/{identity}" in cgroup
    other.docker("rm", "-f", name)
    assert not (other.root / "run/containers" / identity).exists()
    other.wait_until(lambda: not other.leaks(), "the end of everything")


@pytest.mark.parametrize(
    ("words", "runc", "crun"),
    [
        # What the command exits with comes of the error's words, as its own parser knows them.
        (["nope"], (127, 127, 'exec: "nope": executable file not found in $PATH'), (125, 127, "file `nope` not found")),
        (["/etc"], (126, 126, "permission denied"), (125, 128, "open executable: Operation not permitted")),
    ],
)
def test_what_can_not_run(other, name, request, words, runc, crun):
    result = run(other, "--name", name, "busybox", *words, check=False)
    code, recorded, text = runc if "[runc" in request.node.name else crun
    assert text in result.stderr
    assert f"{SHIM}OCI runtime create failed: " in result.stderr
    assert result.returncode == code
    shown = other.inspect(name)
    assert (shown["State"]["Status"], shown["State"]["ExitCode"]) == ("created", recorded)
    assert other.out("logs", name) == ""
    assert not (other.root / "run/containers" / shown["Id"]).exists()


def test_a_user_that_is_not_there(other, name):
    result = run(other, "--name", name, "--user", "ghost", "busybox", "true", check=False)
    assert "daemon: unable to find user ghost: no matching entries in passwd file" in result.stderr
    assert (result.returncode, other.inspect(name)["State"]["ExitCode"]) == (125, 128)


def test_input_terminal_and_size(other):
    result = run(other, "-i", "--rm", "busybox", "cat", input="typed\n")
    assert result.stdout == "typed\n"
    shown = other.run(
        *("script", "-qec", "stty rows 33 cols 77; docker run --rm -it --runtime other busybox sh -c 'tty; stty size'"),
        "/dev/null",
    ).stdout
    assert "/dev/pts/0" in shown
    assert "33 77" in shown


def test_exec(other, name):
    run(other, "-d", "--name", name, "-e", "A=b", "busybox", "sleep", "300")
    result = other.docker("exec", name, "sh", "-c", "echo out; echo err >&2; echo $A; exit 5", check=False)
    assert (result.stdout, result.stderr, result.returncode) == ("out\nb\n", "err\n", 5)
    assert other.docker("exec", "-i", name, "cat", input="in\n").stdout == "in\n"
    assert other.out("exec", "-u", "nobody", name, "id", "-u") == "65534"
    assert other.out("exec", "-w", "/etc", name, "pwd") == "/etc"
    shown = other.run("script", "-qec", f"docker exec -it {name} tty", "/dev/null").stdout
    assert "/dev/pts/" in shown
    assert other.docker("exec", name, "nope", check=False).returncode == 127
    assert "OCI runtime exec failed: " in other.docker("exec", name, "nope", check=False).stdout
    pid = other.inspect(name)["State"]["Pid"]
    assert len(other.docker("top", name).stdout.splitlines()) == 2
    left = [path.name for path in (other.root / "run/containers" / other.inspect(name)["Id"]).iterdir()]
    assert sorted(left) == ["config.json", "monitor.sock", "rootfs", "state"]
    assert pid == other.inspect(name)["State"]["Pid"]


def test_logs_attach_stop_restart(other, name):
    script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    run(other, "-d", "--name", name, "busybox", "sh", "-c", script)
    other.wait_until(lambda: other.out("logs", name) == "ready", "the first line")
    attached = other.popen("docker", "attach", "--sig-proxy=false", name)
    other.wait_until(lambda: other.out("ps", "-q"), "the container")
    other.docker("stop", name)
    attached.communicate(timeout=60)
    assert attached.returncode == 7
    assert other.inspect(name)["State"]["ExitCode"] == 7
    assert other.out("logs", name) == "ready\nbye"
    other.docker("start", name)
    assert other.inspect(name)["State"]["Running"]
    other.docker("kill", name)
    assert other.out("wait", name) == "137"


def test_pause_and_limits(other, name):
    run(other, "-d", "--name", name, "--memory", "64m", "--pids-limit", "50", "busybox", "sleep", "300")
    read = other.cgroup_files(other.inspect(name)["State"]["Pid"])
    assert read("memory/memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert read("pids/pids.max", "pids.max") == "50"
    other.docker("pause", name)
    assert other.inspect(name)["State"]["Paused"]
    other.docker("unpause", name)
    assert other.out("exec", name, "echo", "alive") == "alive"


def test_running_out_of_memory(other, name):
    script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=40; sleep 1"
    eat = ["sh", "-c", f"head -c 60000000 /dev/zero | tail -c 50000000 >/dev/null; {script}; exit 3"]
    run(other, "--name", name, "--memory", "16m", "--memory-swap", "16m", "busybox", *eat, check=False)
    assert other.inspect(name)["State"]["OOMKilled"] is True


def test_init_user_and_security(other, name):
    words = ("--init", "-u", "nobody", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--group-add", "77")
    run(other, "-d", "--name", name, *words, "--read-only", "busybox", "sleep", "300")
    pid = other.inspect(name)["State"]["Pid"]
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["Uid"].split()[0] == "65534"
    assert "77" in status["Groups"].split()
    assert int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    assert "docker-init" in Path(f"/proc/{pid}/cmdline").read_text()
    assert "nobody" not in other.out("exec", name, "sh", "-c", "echo $HOME")
    refused = other.docker("exec", name, "touch", "/x", check=False)
    assert "Read-only file system" in refused.stderr


def test_volumes_network_and_propagation(other, name):
    directory = other.root / "bind"
    directory.mkdir(exist_ok=True)
    (directory / "file").write_text("content")
    words = ("-v", f"{directory}:/bind", "-v", f"{name}:/volume", "-p", "127.0.0.1:18080:80")
    run(other, "-d", "--name", name, *words, "busybox", "httpd", "-f", "-h", "/www")
    assert other.out("exec", name, "cat", "/bind/file") == "content"
    other.wait_until(
        lambda: "hello" in other.run("curl", "-s", "http://127.0.0.1:18080/", check=False).stdout, "the page"
    )
    other.docker("rm", "-f", name)
    other.docker("volume", "rm", name)


def test_shared_memory_of_another_container(other, name):
    other.docker(
        "run", "-d", "--name", name, "--ipc", "shareable", "busybox", "sh", "-c", "echo x >/dev/shm/f; sleep 300"
    )
    other.wait_until(lambda: other.docker("exec", name, "ls", "/dev/shm/f", check=False).returncode == 0, "the file")
    assert run(other, "--rm", "--ipc", f"container:{name}", "busybox", "cat", "/dev/shm/f").stdout == "x\n"


def test_health_checks_and_copies(other, name):
    run(other, "-d", "--name", name, "--health-cmd", "true", "--health-interval", "100ms", "busybox", "sleep", "300")
    other.docker("exec", name, "sh", "-c", "echo made >/tmp/file")
    assert other.out("exec", name, "cat", "/tmp/file") == "made"


def test_restart_policy(other, name):
    run(other, "-d", "--name", name, "--restart", "on-failure:2", "busybox", "sh", "-c", "echo once; exit 4")
    other.wait_until(lambda: other.inspect(name)["RestartCount"] == 2, "two restarts")
    other.wait_until(lambda: other.inspect(name)["State"]["Status"] == "exited", "the end")
    assert other.out("logs", name) == "once\nonce\nonce"


def test_info_tells_of_it(other):
    shown = json.loads(other.out("info", "--format", "{{json .}}"))
    assert set(shown["Runtimes"]) == {"wherry", "runc", "io.containerd.runc.v2", "other"}
    own = json.loads(shown["Runtimes"]["wherry"]["status"]["org.opencontainers.runtime-spec.features"])
    assert own["linux"]["seccomp"]["enabled"] is True


def test_names_that_are_none(other, name):
    for wrong in ("nope", "/usr/bin/crun"):
        result = other.docker("create", "--runtime", wrong, "busybox", check=False)
        assert result.stderr.strip().endswith(f"unknown or invalid runtime name: {wrong}")
    result = other.docker("run", "--name", name, "--runtime", "io.containerd.other.v1", "busybox", "true", check=False)
    assert 'runtime "io.containerd.other.v1" binary not installed "containerd-shim-other-v1"' in result.stderr
    assert (result.returncode, other.inspect(name)["State"]["ExitCode"]) == (125, 128)


def test_the_daemon_is_killed_and_comes_back(own):
    script = "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done"
    own.docker("run", "-d", "--name", "box", "busybox", "sh", "-c", script)
    own.wait_until(lambda: own.out("logs", "box") == "up", "the trap")
    pid = own.inspect("box")["State"]["Pid"]
    own.stop(signal.SIGKILL)
    own.start()
    assert own.inspect("box")["State"]["Pid"] == pid
    assert own.out("exec", "box", "echo", "there") == "there"
    own.docker("stop", "box")
    assert own.inspect("box")["State"]["ExitCode"] == 9
    own.docker("start", "box")
    own.docker("rm", "-f", "box")
    assert own.leaks() == []


def test_an_exit_while_the_daemon_is_away(own):
    own.docker("run", "-d", "--name", "box", "busybox", "sh", "-c", "sleep 1; exit 6")
    record = own.root / "data/containers" / own.inspect("box")["Id"] / "exit.json"
    own.stop(signal.SIGKILL)
    own.wait_until(record.exists, "the exit record")
    own.start()
    assert own.inspect("box")["State"]["ExitCode"] == 6
    own.docker("rm", "box")
    assert own.leaks() == []


@pytest.mark.parametrize("place", ["foreign.before_create", "foreign.after_create", "foreign.before_start"])
def test_killed_while_it_makes_a_container(own, place):
    """The helper dies; what the runtime made without it is found and removed."""
    own.stop()
    own.start(failpoint=f"{place}:kill")
    result = own.docker("run", "--name", "box", "busybox", "true", check=False)
    assert result.returncode == 125
    own.stop()
    own.start()
    assert own.docker("start", "-a", "box").returncode == 0
    own.docker("rm", "box")
    assert own.leaks() == []


def test_the_monitor_is_killed(own):
    own.docker("run", "-d", "--name", "box", "busybox", "sleep", "300")
    own.docker("exec", "box", "true")  # whoever helped to make it has left: its parent is the monitor
    pid = own.inspect("box")["State"]["Pid"]
    monitor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(monitor, signal.SIGKILL)
    own.wait_until(lambda: own.inspect("box")["State"]["Status"] == "exited", "the end")
    own.docker("rm", "-f", "box")
    own.wait_until(lambda: own.leaks() == [], "the end of what the container had")


def test_a_runtime_that_is_missing(own):
    own.docker("create", "--name", "box", "busybox", "true")
    own.stop()
    own.flags = tuple(flag.replace("/runc", "/gone").replace("/crun", "/gone") for flag in own.flags)
    own.start()
    result = own.docker("start", "box", check=False)
    assert "OCI runtime create failed: unable to retrieve OCI runtime error (open " in result.stderr
    assert "/gone: no such file or directory" in result.stderr
    assert own.inspect("box")["State"]["ExitCode"] == 127


def test_reload(tmp_path):
    """SIGHUP takes over runtimes and the default."""
    runc = shutil.which("runc")
    if runc is None:
        pytest.skip("runc is not installed")
    file = tmp_path / "daemon.json"
    file.write_text("{}")
    host = Host("--config-file", str(file)).start()
    try:
        host.import_busybox()
        assert (
            "unknown or invalid runtime name: late"
            in host.docker("create", "--runtime", "late", "busybox", check=False).stderr
        )
        file.write_text(json.dumps({"runtimes": {"late": {"path": runc, "runtimeArgs": ["--debug"]}}}))
        host.daemon.send_signal(signal.SIGHUP)
        host.wait_until(lambda: "late" in host.out("info", "--format", "{{json .Runtimes}}"), "the reload")
        assert host.docker("run", "--rm", "--runtime", "late", "busybox", "echo", "ran").stdout == "ran\n"
        host.docker("create", "--name", "box", "--runtime", "late", "busybox", "true")
        file.write_text("{}")
        host.daemon.send_signal(signal.SIGHUP)
        host.wait_until(lambda: "late" not in host.out("info", "--format", "{{json .Runtimes}}"), "the reload")
        assert "unknown or invalid runtime name: late" in host.docker("start", "box", check=False).stderr
    finally:
        host.close()
