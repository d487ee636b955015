"""The daemon dies at each failpoint of its own, or a monitor at each of its: nothing is half made afterwards.

The failpoints are found in the source, so that a new one is never forgotten: it has to be passed by the steps below, or
be named by the test of its room.
"""

import re
import signal
from pathlib import Path

import pytest

from .host import Host

SOURCE = Path(__file__).parents[2] / "src" / "wherry"
TESTS = Path(__file__).parents[1]

# Rooms whose failpoints a test of theirs passes by name: the prefix of the name → that test.
ELSEWHERE = {
    "image-": "images/test_crash.py",
    "ingest-": "images/test_crash.py",
    "layer-mount": "e2e/test_layers.py",
    "layer": "images/test_crash.py",
    "load-": "images/test_crash.py",
    "save-": "images/test_crash.py",
    "pull-": "images/test_transfer_crashes.py",
    "form-": "images/test_transfer_crashes.py",
    "registry.": "images/test_transfer_crashes.py",
    "foreign.": "e2e/test_runtimes.py",
}
# Those where no step fails: the container's end is what a monitor no longer tells or cleans up.
AT_THE_END = ("monitor.before_record", "monitor.after_record", "monitor.before_unmount")


def failpoints(*rooms: str) -> list[str]:
    """The names of the failpoints in the source of these rooms."""
    text = "\n".join(path.read_text() for room in rooms for path in sorted((SOURCE / room).glob("**/*.py")))
    return sorted(set(re.findall(r'\bhit\("([^"]+)"', text)))


DAEMON = failpoints("engine", "network")
MONITOR = [point for point in failpoints("runtime") if not point.startswith("foreign.")]


def test_no_failpoint_is_forgotten():
    for point in set(failpoints(".")) - set(DAEMON) - set(MONITOR):
        tests = [test for prefix, test in ELSEWHERE.items() if point.startswith(prefix)]
        assert tests, f"{point}: no test passes it"
        assert f'"{point}' in (TESTS / tests[0]).read_text(), f"{point}: {tests[0]} does not pass it"


@pytest.fixture(scope="module")
def crashing():
    """One host for all of them: what a death leaves behind is in the way of the next."""
    host = Host().start()
    host.import_busybox()
    yield host
    host.close()


VOLUMES = ("-v", "/anonymous", "-v", "memory:/memory", "-v", "filled:/www")
PART = ("--mount", "type=volume,src=filled,dst=/page,volume-subpath=index.html")
STEPS = (
    ("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory"),
    ("create", "--name", "first", "-p", "8080:80", *VOLUMES, *PART, "busybox", "sleep", "1000"),
    ("rename", "first", "victim"),
    ("cp", "victim:/etc/passwd", "-"),
    ("start", "victim"),
    ("exec", "victim", "true"),
    ("exec", "-t", "victim", "true"),
    ("run", "--rm", "--pid", "container:victim", "busybox", "true"),
    ("cp", "/etc/hostname", "victim:/tmp/copied"),
    ("update", "--pids-limit", "50", "victim"),
    ("commit", "victim", "half"),
    ("pause", "victim"),
    ("unpause", "victim"),
    ("restart", "-t", "0", "victim"),
    ("stop", "-t", "0", "victim"),
    ("start", "victim"),
    ("kill", "victim"),
    ("wait", "victim"),
    ("rm", "-f", "-v", "victim"),
    ("volume", "create", "kept"),
    ("volume", "rm", "kept"),
)


def passes(host: Host) -> list[tuple[str, ...]]:
    """Take the steps as long as the daemon lives; those that failed."""
    failed = []
    for step in STEPS:
        if host.daemon.poll() is not None:
            break
        if host.docker(*step, check=False, text=False).returncode != 0:
            failed.append(step)
    return failed


def restart(host: Host, failpoint: str = "") -> None:
    if host.daemon.poll() is None:
        host.stop()
    host.start(failpoint, may_die=bool(failpoint))


def is_whole(host: Host, name: str) -> str:
    """What became of the container: absent (""), or in a state that it says truly and can be worked with."""
    status = host.out("ps", "-a", "--format", "{{.State}}", "--filter", f"name=^{name}$")
    assert status in ("", "created", "running", "paused", "exited")
    if not status:
        return status
    state = host.inspect(name)["State"]
    assert (state["Pid"] > 0) == (status in ("running", "paused"))
    if status == "paused":
        host.docker("unpause", name)
    elif status != "running":
        host.docker("start", name)
    assert host.out("exec", name, "echo", "taken back") == "taken back"
    return status


def is_clean(host: Host) -> None:
    """Whatever the death left can be removed, and its name, port and volumes are free again."""
    for name in ("first", "victim"):
        if is_whole(host, name):
            host.docker("rm", "-f", "-v", name)
    if host.out("images", "-q", "half"):
        host.docker("rmi", "half")
    host.docker("volume", "rm", "-f", "kept", "memory", "filled")
    host.docker("run", "--rm", "--name", "victim", "-p", "8080:80", "busybox", "true")
    host.wait_until(lambda: not host.leaks(), f"the end of {host.leaks()}")
    assert host.out("volume", "ls", "-q") == ""
    assert host.out("images", "-aq").count("\n") == 0, "busybox alone"


@pytest.mark.parametrize("point", DAEMON)
def test_a_daemon_killed_between_any_two_steps(crashing, point):
    """Absent, or created, or running and taken back; what removes can be repeated; nothing is left over."""
    restart(crashing, f"{point}:kill")
    passes(crashing)
    assert crashing.daemon.poll() is not None, f"no step passes {point}"
    assert crashing.daemon.returncode == -signal.SIGKILL
    restart(crashing)
    is_clean(crashing)


@pytest.mark.parametrize("point", MONITOR)
def test_a_monitor_killed_between_any_two_steps(crashing, point):
    """The daemon lives on, and says what did not work; nothing is left over."""
    restart(crashing, f"{point}:kill")
    failed = passes(crashing)
    assert crashing.daemon.poll() is None
    assert failed or point in AT_THE_END, f"no step passes {point}"
    is_whole_or_gone = crashing.out("ps", "-aq", "--filter", "status=removing", "--filter", "status=dead")
    assert is_whole_or_gone == ""
    restart(crashing)
    is_clean(crashing)
