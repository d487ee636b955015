"""Many at once, and the end of the daemon in the middle of it."""

import json
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

from .host import connected
from .wire import Wire

CREATE = {"Image": "busybox", "Cmd": ["true"]}


def test_of_many_creates_of_one_name_one_succeeds(host, name):
    wire = Wire(host.address)
    with ThreadPoolExecutor(64) as pool:
        for _round in range(2):
            replies = list(
                pool.map(lambda _: wire.quietly("POST", f"/containers/create?name={name}", CREATE), range(64))
            )
            made = [reply.json()["Id"] for reply in replies if reply.status == 201]
            assert len(made) == 1
            refused = [reply for reply in replies if reply.status != 201]
            assert {reply.status for reply in refused} == {409}
            assert all(made[0] in reply.json()["message"] for reply in refused), "the holder is named"
            assert wire.quietly("DELETE", f"/containers/{name}").status == 204


def test_many_creates_of_one_volume_make_one(host, name):
    """A volume that is there is the answer, as Docker's: everybody gets the same, which goes as one."""
    wire = Wire(host.address)
    with ThreadPoolExecutor(64) as pool:
        replies = list(pool.map(lambda _: wire.quietly("POST", "/volumes/create", {"Name": name}), range(64)))
        assert {reply.status for reply in replies} == {201}
        assert len({(reply.json()["Mountpoint"], reply.json()["CreatedAt"]) for reply in replies}) == 1
        removals = list(pool.map(lambda _: wire.quietly("DELETE", f"/volumes/{name}").status, range(64)))
    assert sorted(removals) == [204] + [404] * 63


def test_a_tag_that_many_move_names_one_image(host, name):
    wire = Wire(host.address)
    repository = name.lower()
    with ThreadPoolExecutor(64) as pool:
        path = f"/images/busybox/tag?repo={repository}&tag=moved"
        assert set(pool.map(lambda _: wire.quietly("POST", path).status, range(64))) == {201}
        tags = json.loads(host.out("image", "inspect", "busybox", "--format", "{{json .RepoTags}}"))
        assert tags.count(f"{repository}:moved") == 1
        removals = list(pool.map(lambda _: wire.quietly("DELETE", f"/images/{repository}:moved").status, range(64)))
    assert sorted(removals) == [200] + [404] * 63


STREAMS = (["events"], ["logs", "-f", "talker"], ["attach", "talker"], ["exec", "talker", "sleep", "100"])


def test_streams_do_not_fall_silent_when_the_daemon_dies(own_host):
    """Those that the daemon carries end; those the monitor carries go on. None stays open and says nothing."""
    own_host.docker("run", "-d", "--name", "talker", "busybox", "sh", "-c", "while :; do echo x; sleep 0.05; done")
    clients = {words[0]: own_host.popen("docker", *words) for words in STREAMS}
    try:
        for verb in ("logs", "attach"):
            assert clients[verb].stdout.readline() == b"x\n"
        own_host.wait_until(lambda: "sleep 100" in own_host.out("top", "talker"), "the exec")
        pid = own_host.inspect("talker")["State"]["Pid"]
        own_host.stop(signal.SIGKILL)
        for verb in ("events", "logs"):
            clients[verb].communicate(timeout=60)
        own_host.start()
        shown = own_host.inspect("talker")["State"]
        assert (shown["Running"], shown["Pid"]) == (True, pid)
        assert clients["attach"].poll() is None or clients["attach"].returncode != 0
        assert "sleep 100" in own_host.out("top", "talker"), "what was executed goes on"
    finally:
        for client in clients.values():
            client.kill()
            client.communicate()


WATCHES = (["events"], ["logs", "-f", "talker"], ["wait", "talker"], ["stats", "talker"])


def test_a_daemon_asked_to_end_does_not_wait_for_those_who_watch(own_host):
    """Its clients are told at once, and the next daemon can start."""
    own_host.stop()
    own_host.flags += ("--shutdown-timeout", "1000")
    own_host.start()
    own_host.docker("run", "-d", "--name", "talker", "busybox", "sh", "-c", "while :; do echo x; sleep 0.05; done")
    clients = [own_host.popen("docker", *words) for words in WATCHES]
    try:
        own_host.wait_until(lambda: all(connected(client) for client in clients), "the clients")
        assert clients[1].stdout.readline() == b"x\n"
        assert own_host.stop() == 0
        for client in clients[:3]:
            client.communicate(timeout=60)
    finally:
        for client in clients:  # docker stats goes on asking
            client.kill()
            client.communicate()


def test_a_daemon_asked_to_end_ends_in_the_midst_of_work(own_host):
    """No reply is half made, no container either."""
    stop, strange = threading.Event(), []

    def work(number: int) -> None:
        wire = Wire(own_host.address)
        while not stop.is_set():
            try:
                made = wire.quietly("POST", f"/containers/create?name=busy{number}", CREATE)
                for method, path in (("POST", "start"), ("POST", "wait"), ("DELETE", "")):
                    reply = wire.quietly(method, f"/containers/busy{number}/{path}".rstrip("/"))
                    if reply.status >= 500 and reply.status != 503:
                        strange.append((method, path, reply))
            except (OSError, ValueError):
                return  # it is gone
            if not made.status:
                return

    with ThreadPoolExecutor(20) as pool:
        jobs = [pool.submit(work, number) for number in range(20)]
        own_host.wait_until(lambda: "busy" in own_host.out("ps", "-a"), "some work")
        assert own_host.stop(signal.SIGTERM) == 0
        stop.set()
        for job in jobs:
            job.result(60)
    assert strange == []
    own_host.start()
    for entry in json.loads(
        subprocess.check_output(["curl", "-s", "--unix-socket", own_host.address[7:], "http://d/containers/json?all=1"])
    ):
        assert entry["State"] in ("created", "running", "exited")
        own_host.docker("rm", "-f", entry["Id"])
    own_host.docker("run", "--rm", "busybox", "true")


def test_a_daemon_that_dies_at_every_start_leaves_no_more_each_time(own_host):
    own_host.docker("run", "-d", "--name", "lasting", "busybox", "sleep", "1000")
    pid = own_host.inspect("lasting")["State"]["Pid"]
    before = None
    for _ in range(5):
        own_host.stop(signal.SIGKILL)
        own_host.start()
        own_host.wait_until(lambda: own_host.docker("exec", "lasting", "true", check=False).returncode == 0, "an exec")
        found = sorted(kind.split()[0] for kind in own_host.leaks())
        before = before or found
        assert found == before
    assert own_host.inspect("lasting")["State"]["Pid"] == pid
