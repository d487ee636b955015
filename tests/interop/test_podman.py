"""The real Podman (and conmon) on our OCI runtime: `podman --runtime`."""

import json
import shlex
from pathlib import Path

import pytest

from .lab import Lab, command_of

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(300)]


class Podman(Lab):
    """Podman with roots of its own; there is no daemon."""

    def __init__(self) -> None:
        words = command_of("podman")
        super().__init__()
        self.words = [
            *("nsenter", f"--net=/run/netns/{self.name}", *words, "--root", f"{self.root}/data"),
            *("--runroot", f"{self.root}/run", "--tmpdir", f"{self.root}/tmp"),
            *("--runtime", self.runtime(), "--cgroup-manager", "cgroupfs"),
        ]
        try:
            self.podman("import", "-", "localhost/busybox", input=self.tar, text=False)
        except BaseException:
            self.close()
            raise

    def podman(self, *words: str, **options):
        return self.run(*self.words, *words, **options)

    def launch(self, *words: str, **options):
        """`podman run` without network: what sets one up is no part of a runtime."""
        return self.podman("run", "--network", "none", "--cgroup-parent", f"/{self.name}", *words, **options)

    def out(self, *words: str) -> str:
        return str(self.podman(*words).stdout).strip()

    def inspect(self, name: str) -> dict:
        return json.loads(self.out("inspect", name))[0]

    def on_terminal(self, *words: str) -> str:
        return str(self.run("script", "-qec", shlex.join([*self.words, *words]), "/dev/null").stdout)

    def close(self) -> None:
        self.podman("rm", "--all", "--force", "--time", "0", check=False)
        super().close()


@pytest.fixture(scope="module")
def podman():
    lab = Podman()
    yield lab
    lab.close()


@pytest.fixture
def sleeper(podman, request):
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    podman.launch("-d", "--name", name, "-e", "A=b", "busybox", "sleep", "1000", capture_output=False)
    yield name
    podman.podman("rm", "-f", "-t", "0", name, check=False)


def test_it_is_our_runtime_that_runs_it(podman, sleeper):
    shown = podman.inspect(sleeper)
    assert shown["OCIRuntime"].endswith("wherry-runtime")
    assert shown["State"]["Status"] == "running"
    assert "wherry-runtime" in podman.out("info", "--format", "{{.Host.OCIRuntime.Path}}")


def test_output_and_exit_codes(podman):
    result = podman.launch("--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3", check=False)
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 3)
    assert podman.launch("-i", "--rm", "busybox", "cat", input="typed\n").stdout == "typed\n"


def test_what_can_not_run(podman):
    for program, code in (("nope", 127), ("/etc", 126)):
        result = podman.launch("--rm", "busybox", program, check=False)
        assert result.returncode == code, result.stderr


def test_a_terminal(podman, sleeper):
    words = ("run", "--network", "none", "--cgroup-parent", f"/{podman.name}", "--rm", "-it", "busybox", "tty")
    assert "/dev/pts/0" in podman.on_terminal(*words)
    assert "/dev/pts/" in podman.on_terminal("exec", "-it", sleeper, "tty")


def test_exec(podman, sleeper):
    result = podman.podman("exec", sleeper, "sh", "-c", "echo out; echo err >&2; echo $A; exit 5", check=False)
    assert (result.stdout, result.stderr, result.returncode) == ("out\nb\n", "err\n", 5)
    assert podman.podman("exec", "-i", sleeper, "cat", input="in\n").stdout == "in\n"
    assert podman.out("exec", "-u", "nobody", "-w", "/etc", sleeper, "sh", "-c", "id -u; pwd") == "65534\n/etc"
    assert podman.podman("exec", sleeper, "nope", check=False).returncode == 127


def test_stop_kill_restart(podman, sleeper):
    podman.podman("rm", "-f", "-t", "0", sleeper)
    script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    podman.launch("-d", "--name", sleeper, "busybox", "sh", "-c", script, capture_output=False)
    podman.wait_until(lambda: podman.out("logs", sleeper) == "ready", "the first line")
    podman.podman("stop", sleeper)
    assert podman.inspect(sleeper)["State"]["ExitCode"] == 7
    podman.podman("start", sleeper)
    podman.podman("kill", "-s", "KILL", sleeper)
    assert podman.out("wait", sleeper) == "137"


def test_pause_top_and_statistics(podman, sleeper):
    podman.podman("pause", sleeper)
    assert podman.inspect(sleeper)["State"]["Status"] == "paused"
    podman.podman("unpause", sleeper)
    assert "sleep 1000" in podman.out("top", sleeper)
    assert podman.out("stats", "--no-stream", "--format", "{{.PIDs}}", sleeper) == "1"


def test_limits_and_their_update(podman, sleeper):
    podman.podman("update", "--memory", "64m", "--pids-limit", "33", sleeper)
    (pids, *_) = [path for path in podman.cgroups() if (path / "pids.max").exists() and "libpod-" in path.name]
    assert (pids / "pids.max").read_text() == "33\n"
    limits = [p / f for p in podman.cgroups() for f in ("memory.limit_in_bytes", "memory.max") if "libpod-" in p.name]
    assert [path.read_text() for path in limits if path.exists()] == [f"{64 << 20}\n"]


def test_running_out_of_memory(podman, sleeper):
    podman.podman("rm", "-f", "-t", "0", sleeper)
    eat = ("sh", "-c", "exec tail -c 50000000 /dev/zero")
    result = podman.launch("--name", sleeper, "-m", "16m", "--memory-swap", "16m", "busybox", *eat, check=False)
    assert result.returncode == 137
    assert podman.inspect(sleeper)["State"]["OOMKilled"] is True


def test_security(podman, sleeper):
    podman.podman("rm", "-f", "-t", "0", sleeper)
    words = ("-u", "nobody", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only")
    podman.launch("-d", "--name", sleeper, *words, "busybox", "sleep", "1000", capture_output=False)
    lines = Path(f"/proc/{podman.inspect(sleeper)['State']['Pid']}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert int(status["CapBnd"], 16) == 0
    assert (status["Uid"].split()[0], status["NoNewPrivs"], status["Seccomp"]) == ("65534", "1", "2")
    assert "Read-only" in podman.podman("exec", sleeper, "touch", "/x", check=False).stderr


def test_nothing_is_left_of_a_container(podman, sleeper):
    podman.podman("rm", "-f", "-t", "0", sleeper)
    assert [path for path in podman.cgroups() if "libpod-" in path.name] == []
    assert podman.out("ps", "-aq") == ""
