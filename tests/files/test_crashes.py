"""A daemon that is killed in the middle of copying or committing: nothing half-made stays, the container goes on."""

import signal
from pathlib import Path

import pytest

from ..e2e.host import Host, busybox_tar
from . import cases

WORK = "while :; do echo x >>/beat; sleep 0.02; done"


@pytest.fixture(scope="module")
def host():
    ours = Host().start()
    ours.docker("import", "-", cases.IMAGE, input=busybox_tar(), text=False)
    yield ours
    ours.close()


@pytest.fixture
def lab(host):
    lab = cases.Lab(f"{host.root}/wherry.sock")
    yield lab
    lab.close()


def beats_again(host, container: str) -> None:
    """The container is not paused, by what we say and by what it does."""
    assert host.inspect(container)["State"]["Status"] == "running"
    before = host.out("exec", container, "wc", "-c", "/beat")
    host.wait_until(lambda: host.out("exec", container, "wc", "-c", "/beat") != before, "the next beat")


def blobs(host) -> list[str]:
    content = host.root / "data"
    return sorted(str(path) for path in content.rglob("sha256/*") if path.is_file())


def restart(host, failpoint: str = "") -> None:
    assert host.daemon
    if host.daemon.poll() is None:
        host.stop()
    host.start(failpoint)


def fails(call) -> None:
    with pytest.raises((ConnectionError, OSError, cases.http.client.HTTPException)):
        call()


@pytest.mark.parametrize("state", ["running", "created"])
def test_killed_in_a_commit(host, lab, state):
    lab.create("c", {"Cmd": ["sh", "-c", WORK]}, start=state == "running")
    container = lab.ids["c"]
    assert lab.put("c", "/", cases.tar(cases.new("planted")))[0] == 200
    before = blobs(host), host.out("images", "-aq")
    assert before[0]
    restart(host, "engine.commit.paused:kill")
    fails(lambda: lab.client.json("POST", f"/commit?container={container}&repo=half"))
    assert host.daemon.wait(60) == -signal.SIGKILL
    restart(host)
    assert (blobs(host), host.out("images", "-aq")) == before
    if state == "running":
        beats_again(host, container)
    status, answer = lab.client.json("POST", f"/commit?container={container}&repo=whole")
    assert status == 201, answer
    if state == "running":
        beats_again(host, container)
    host.docker("rmi", "whole")
    assert (blobs(host), host.out("images", "-aq")) == before


def test_ended_in_a_commit(host, lab):
    """A daemon that is told to end keeps nobody paused either."""
    lab.create("c", {"Cmd": ["sh", "-c", WORK]}, start=True)
    restart(host, "engine.commit.paused:raise")
    status, _ = lab.client.json("POST", f"/commit?container={lab.ids['c']}")
    assert status == 500
    beats_again(host, lab.ids["c"])
    restart(host)
    beats_again(host, lab.ids["c"])


def test_who_pauses_it_decides(host, lab):
    """A pause that somebody asked for outlives the daemon and a commit."""
    lab.create("c", {"Cmd": ["sh", "-c", WORK]}, start=True)
    lab.post("c", "pause")
    assert lab.client.json("POST", f"/commit?container={lab.ids['c']}&repo=of-a-paused")[0] == 201
    host.stop(signal.SIGKILL)
    restart(host)
    assert host.inspect(lab.ids["c"])["State"]["Status"] == "paused"
    lab.post("c", "unpause")
    beats_again(host, lab.ids["c"])
    host.docker("rmi", "of-a-paused")


@pytest.mark.parametrize("point", ["engine.copy.resolved", "engine.view.resolved"])
@pytest.mark.parametrize("state", ["running", "created"])
def test_killed_in_a_copy(host, lab, point, state):
    body = {"Cmd": ["sh", "-c", WORK], "HostConfig": {"NetworkMode": "none", "Binds": ["wf-crash:/vol"]}}
    lab.create("c", body, start=state == "running")
    restart(host, f"{point}:kill")
    fails(lambda: lab.put("c", "/vol", cases.tar(cases.new("x"))))
    assert host.daemon.wait(60) == -signal.SIGKILL
    restart(host)
    assert "wf-crash" not in Path("/proc/self/mountinfo").read_text()
    assert [member[0] for member in lab.get("c", "/vol")[3]] == ["vol"]  # nothing was unpacked
    assert lab.put("c", "/vol", cases.tar(cases.new("x")))[0] == 200
    if state == "created":
        lab.post("c", "start")
    host.wait_until(lambda: lab.sh("c", "cat /vol/x") == "new", "the copied file")
    beats_again(host, lab.ids["c"])
    lab.close()
    lab.ids.clear()
    host.docker("volume", "rm", "wf-crash")
