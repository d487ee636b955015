"""Whatever goes wrong in the engine, a client is told and comes back."""

import os
import re
import signal
from pathlib import Path

import pytest

from .host import connected

LIMIT_S = 60


def points():
    source = Path(__file__).parents[2] / "src" / "wherry" / "engine"
    found = set(re.findall(r'hit\("(engine\.(?:start|exit|remove|stop)\.[a-z_]+)"\)', _text(source)))
    assert len(found) > 10
    return sorted(found)


def _text(source: Path) -> str:
    return "\n".join(path.read_text() for path in source.glob("*.py"))


@pytest.mark.parametrize("point", points())
def test_a_defect_anywhere_hangs_no_client(own_host, point):
    host = own_host
    host.stop()
    host.start(failpoint=f"{point}:raise")
    for words in (
        ("run", "--rm", "-i", "--name", "one", "busybox", "echo", "out"),
        ("run", "--name", "two", "busybox", "true"),
        ("run", "-d", "--name", "three", "busybox", "sleep", "1000"),
        ("stop", "-t", "0", "three"),
        ("rm", "-f", "two", "three"),
    ):
        host.docker(*words, check=False, timeout=LIMIT_S, stdin=-3)
    left = host.out("ps", "-aq").split()
    if left:
        host.docker("rm", "-f", *left, timeout=LIMIT_S)
    assert host.out("run", "--rm", "busybox", "echo", "fine", timeout=LIMIT_S) == "fine"


def test_wait_and_attach_end_with_the_daemon_and_can_be_asked_again(own_host):
    host = own_host
    script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"
    host.docker("run", "-d", "--name", "job", "busybox", "sh", "-c", script)
    host.wait_until(lambda: host.out("logs", "job") == "up", "the trap")
    waiting = host.popen("docker", "wait", "job")
    host.wait_until(lambda: connected(waiting), "the client")
    host.stop(signal.SIGKILL)
    _, told = waiting.communicate(timeout=LIMIT_S)
    assert waiting.returncode != 0
    assert told
    host.start()
    host.docker("kill", "-s", "TERM", "job")
    assert host.out("wait", "job", timeout=LIMIT_S) == "7"
    assert host.out("wait", "job", timeout=LIMIT_S) == "7"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_whose_daemon_goes_away_ends_and_its_container_is_removed(own_host, how):
    host = own_host
    script = "echo up; exec sleep 1000"
    running = host.popen("docker", "run", "--rm", "-i", "--name", "job", "busybox", "sh", "-c", script)
    assert running.stdout.readline() == b"up\n"
    pid = host.inspect("job")["State"]["Pid"]
    assert host.stop(how) is not None
    os.kill(pid, signal.SIGKILL)
    running.communicate(timeout=LIMIT_S)
    host.wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the container")
    host.start()
    host.wait_until(lambda: host.out("ps", "-aq") == "", "the removal")
    host.wait_until(lambda: not host.leaks(), "the end of everything")


def test_a_client_that_is_killed_leaves_its_container(own_host):
    host = own_host
    for flags in (("-i",), ("-it",)):
        client = host.popen(
            "script", "-qec", f"docker run {flags[0]} --name job busybox sleep 1000", "/dev/null", stdin=-1
        )
        host.wait_until(lambda: host.out("ps", "-q", "--filter", "name=job"), "the start")
        client.kill()
        client.communicate()
        assert host.out("exec", "job", "echo", "alive", timeout=LIMIT_S) == "alive"
        host.docker("kill", "job", timeout=LIMIT_S)
        host.docker("rm", "job", timeout=LIMIT_S)


def test_attach_ends_when_the_container_does(own_host):
    host = own_host
    host.docker("run", "-di", "--name", "job", "busybox", "sh", "-c", "while :; do echo up; sleep 0.05; done")
    clients = [host.popen("docker", "attach", "job", stdin=-1) for _ in range(3)]
    assert {client.stdout.readline() for client in clients} == {b"up\n"}
    host.docker("kill", "job")
    for client in clients:
        client.communicate(timeout=LIMIT_S)
        assert client.returncode == 137
