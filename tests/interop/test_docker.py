"""The real Docker (dockerd, containerd and its shim) on our OCI runtime: `dockerd --add-runtime`."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from .lab import Lab, command_of

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(300)]


class Docker(Lab):
    """A dockerd with roots of its own whose default runtime is ours."""

    def __init__(self) -> None:
        dockerd = command_of("dockerd")
        if shutil.which("docker") is None:
            pytest.skip("the docker command is not installed")
        super().__init__()
        self.log = open(self.root / "log", "wb")  # noqa: SIM115
        self.daemon = subprocess.Popen(
            [
                *("nsenter", f"--net=/run/netns/{self.name}", *dockerd, "--host", self.address),
                *("--data-root", f"{self.root}/data", "--exec-root", f"{self.root}/exec"),
                *("--pidfile", f"{self.root}/pid", "--cgroup-parent", f"/{self.name}"),
                *("--exec-opt", "native.cgroupdriver=cgroupfs", "--add-runtime", f"wherry={self.runtime()}"),
                *("--default-runtime", "wherry"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )
        try:
            self.wait_until(self.answers, "the start of dockerd")
            self.docker("import", "-", "busybox", input=self.tar, text=False)
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        return f"unix://{self.root}/docker.sock"

    def answers(self) -> bool:
        assert self.daemon.poll() is None, (self.root / "log").read_text()[-3000:]
        return self.docker("version", check=False).returncode == 0

    def docker(self, *words: str, **options) -> subprocess.CompletedProcess:
        return self.run("docker", "--host", self.address, *words, **options)

    def out(self, *words: str) -> str:
        return str(self.docker(*words).stdout).strip()

    def inspect(self, name: str) -> dict:
        return json.loads(self.out("inspect", name))[0]

    def on_terminal(self, *words: str) -> str:
        command = f"docker --host {self.address} {' '.join(words)}"
        return str(self.run("script", "-qec", command, "/dev/null").stdout)

    def close(self) -> None:
        pidfile = self.root / "pid"
        if pidfile.exists():  # what we started may be a wrapper that does not pass signals on
            os.kill(int(pidfile.read_text()), signal.SIGTERM)
        self.daemon.wait(60)
        self.log.close()
        super().close()


@pytest.fixture(scope="module")
def docker():
    lab = Docker()
    yield lab
    for name in lab.out("ps", "-aq").split():
        lab.docker("rm", "-f", name)
    lab.close()


@pytest.fixture
def sleeper(docker, request):
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    docker.docker("run", "-d", "--name", name, "-e", "A=b", "busybox", "sleep", "1000")
    yield name
    docker.docker("rm", "-f", name, check=False)


def test_it_is_our_runtime_that_runs_it(docker, sleeper):
    shown = docker.inspect(sleeper)
    assert shown["HostConfig"]["Runtime"] == "wherry"
    (record,) = docker.root.glob(f"exec/runtime-*/moby/{shown['Id']}/*.json")
    assert json.loads(record.read_bytes())["pid"] == shown["State"]["Pid"]


def test_output_and_exit_codes(docker):
    result = docker.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3", check=False)
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 3)
    assert docker.docker("run", "-i", "--rm", "busybox", "cat", input="typed\n").stdout == "typed\n"


def test_what_can_not_run(docker):
    for program, code, text in (("nope", 127, "executable file not found in $PATH"), ("/etc", 126, "")):
        result = docker.docker("run", "--rm", "busybox", program, check=False)
        assert result.returncode == code
        assert "OCI runtime create failed: " in result.stderr
        assert text in result.stderr


def test_a_terminal(docker, sleeper):
    assert "/dev/pts/0" in docker.on_terminal("run", "--rm", "-it", "busybox", "tty")
    assert "/dev/pts/" in docker.on_terminal("exec", "-it", sleeper, "tty")


def test_exec(docker, sleeper):
    result = docker.docker("exec", sleeper, "sh", "-c", "echo out; echo err >&2; echo $A; exit 5", check=False)
    assert (result.stdout, result.stderr, result.returncode) == ("out\nb\n", "err\n", 5)
    assert docker.docker("exec", "-i", sleeper, "cat", input="in\n").stdout == "in\n"
    assert docker.out("exec", "-u", "nobody", "-w", "/etc", sleeper, "sh", "-c", "id -u; pwd") == "65534\n/etc"
    missing = docker.docker("exec", sleeper, "nope", check=False)
    assert missing.returncode == 127
    assert "OCI runtime exec failed: " in missing.stdout + missing.stderr


def test_stop_kill_restart(docker, sleeper):
    docker.docker("rm", "-f", sleeper)
    script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    docker.docker("run", "-d", "--name", sleeper, "busybox", "sh", "-c", script)
    docker.wait_until(lambda: docker.out("logs", sleeper) == "ready", "the first line")
    docker.docker("stop", sleeper)
    assert docker.inspect(sleeper)["State"]["ExitCode"] == 7
    assert docker.out("logs", sleeper) == "ready\nbye"
    docker.docker("start", sleeper)
    docker.docker("kill", "-s", "KILL", sleeper)
    assert docker.out("wait", sleeper) == "137"


def test_pause_top_and_statistics(docker, sleeper):
    docker.docker("pause", sleeper)
    assert docker.inspect(sleeper)["State"]["Paused"] is True
    assert "is paused" in docker.docker("exec", sleeper, "true", check=False).stderr
    docker.docker("unpause", sleeper)
    assert "sleep 1000" in docker.out("top", sleeper)
    assert docker.out("stats", "--no-stream", "--format", "{{.PIDs}}", sleeper) == "1"


def test_limits_and_their_update(docker, sleeper):
    docker.docker("update", "--memory", "64m", "--memory-swap", "64m", "--pids-limit", "33", sleeper)
    shown = docker.inspect(sleeper)
    for v1, v2, value in (
        ("memory/{}/memory.limit_in_bytes", "{}/memory.max", 64 << 20),
        ("pids/{}/pids.max", "{}/pids.max", 33),
    ):
        files = (Path("/sys/fs/cgroup", path.format(f"{docker.name}/{shown['Id']}")) for path in (v1, v2))
        (content,) = [path.read_text() for path in files if path.exists()]
        assert int(content) == value


def test_running_out_of_memory(docker, sleeper):
    docker.docker("rm", "-f", sleeper)
    eat = ("sh", "-c", "head -c 60000000 /dev/zero | tail -c 50000000 >/dev/null; exit 3")
    docker.docker("run", "--name", sleeper, "-m", "16m", "--memory-swap", "16m", "busybox", *eat, check=False)
    assert docker.inspect(sleeper)["State"]["OOMKilled"] is True


def test_security(docker, sleeper):
    docker.docker("rm", "-f", sleeper)
    words = ("--init=false", "-u", "nobody", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only")
    docker.docker("run", "-d", "--name", sleeper, *words, "busybox", "sleep", "1000")
    pid = docker.inspect(sleeper)["State"]["Pid"]
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert int(status["CapBnd"], 16) == 0
    assert (status["Uid"].split()[0], status["NoNewPrivs"], status["Seccomp"]) == ("65534", "1", "2")
    assert "Read-only" in docker.docker("exec", sleeper, "touch", "/x", check=False).stderr


def test_network_and_volumes(docker, sleeper):
    docker.docker("rm", "-f", sleeper)
    words = ("-p", "127.0.0.1:18080:80", "-v", f"{sleeper}:/www/volume")
    docker.docker("run", "-d", "--name", sleeper, *words, "busybox", "httpd", "-f", "-h", "/www")
    docker.wait_until(
        lambda: "hello" in docker.run("curl", "-s", "http://127.0.0.1:18080/", check=False).stdout, "the page"
    )


def test_nothing_is_left_of_a_container(docker, sleeper):
    shown = docker.inspect(sleeper)
    docker.docker("rm", "-f", sleeper)
    assert [path for path in docker.cgroups() if path.name == shown["Id"]] == []
    assert list(docker.root.glob(f"exec/runtime-*/moby/{shown['Id']}")) == []
