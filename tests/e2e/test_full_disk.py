"""The data root is full: requests are refused with the reason, what runs goes on, and room can be made."""

from pathlib import Path

import pytest

from .host import Host

SIZE_MB = 24
TALK = 'i=0; while :; do i=$((i+1)); echo "line $i xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"; done'


class SmallHost(Host):
    """A host whose data root is a small file system of its own, which only the daemon and its containers see."""

    def start(self, failpoint: str = "", may_die: bool = False) -> "SmallHost":
        data = self.root / "data"
        data.mkdir(exist_ok=True)
        mount = f"mount -t tmpfs -o size={SIZE_MB}m,mode=700 data {data}"
        self.wrapper = ("unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh")
        super().start(failpoint, may_die)
        return self

    @property
    def data(self) -> Path:
        return Path(f"/proc/{self.daemon.pid}/root{self.root}/data")

    def fill(self) -> None:
        with open(self.data / "ballast", "ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    pass

    def make_room(self) -> None:
        (self.data / "ballast").unlink()


@pytest.fixture
def small():
    host = SmallHost().start()
    host.import_busybox()
    yield host
    host.close()


def refused(host, *words):
    """The error of a command that must fail because the disk is full."""
    result = host.docker(*words, check=False)
    assert result.returncode != 0, f"{words} succeeded on a full disk"
    text = result.stderr.lower()
    assert "no space left on device" in text or "disk is full" in text, result.stderr
    assert "traceback" not in text
    return text


def test_create_is_refused_and_leaves_nothing(small):
    small.docker("create", "--name", "before", "busybox", "true")
    small.fill()
    for _ in range(3):
        refused(small, "create", "--name", "late", "-v", "vol:/data", "busybox", "true")
    assert small.out("ps", "-a", "--format", "{{.Names}}") == "before"
    assert len(list((small.data / "containers").iterdir())) == 1
    assert small.out("volume", "ls", "-q") == ""
    assert list((small.data / "volumes").iterdir()) == []
    small.make_room()
    assert small.out("run", "--rm", "--name", "late", "busybox", "echo", "fine") == "fine"


def test_start_is_refused_and_can_be_repeated(small):
    small.docker("create", "--name", "waiting", "-p", "8080:80", "busybox", "sleep", "1000")
    small.fill()
    for _ in range(3):
        refused(small, "start", "waiting")
    state = small.inspect("waiting")["State"]
    assert (state["Status"], state["Pid"]) == ("created", 0)
    assert not small.leaks()
    small.make_room()
    small.docker("start", "waiting")
    assert small.inspect("waiting")["State"]["Running"]


def test_run_does_not_hang(small):
    small.fill()
    refused(small, "run", "--rm", "busybox", "true")
    refused(small, "run", "-i", "busybox", "true")
    assert small.out("ps", "-aq") == ""


def test_what_runs_goes_on(small):
    small.docker("run", "-d", "--name", "quiet", "-i", "busybox", "cat")
    small.docker("run", "-d", "--name", "talker", "busybox", "sh", "-c", TALK)
    small.wait_until(lambda: "line 100" in small.out("logs", "talker"), "some output")
    small.fill()
    assert small.out("exec", "quiet", "echo", "inside") == "inside"
    assert small.docker("exec", "quiet", "sh", "-c", "dd if=/dev/zero of=/f bs=1M", check=False).returncode == 1
    small.out("logs", "--tail", "5", "talker")
    small.docker("kill", "talker")
    small.docker("stop", "-t", "0", "quiet")
    states = {name: small.inspect(name)["State"]["Status"] for name in ("talker", "quiet")}
    assert states == {"talker": "exited", "quiet": "exited"}


def test_removing_makes_room(small):
    small.docker("run", "-d", "--name", "big", "busybox", "sh", "-c", "dd if=/dev/zero of=/f bs=1M; sleep 1000")
    small.docker("create", "--name", "little", "busybox", "true", check=False)
    small.wait_until(
        lambda: (
            "No space" in small.docker("logs", "big", check=False).stderr
            or small.docker("exec", "big", "sh", "-c", "echo x > /g && sync", check=False).returncode != 0
        ),
        "a full disk",
    )
    small.fill()
    for name in small.out("ps", "-a", "--format", "{{.Names}}").split():
        small.docker("rm", "-f", name)
    assert small.out("ps", "-aq") == ""
    small.wait_until(lambda: not list((small.data / "trash").iterdir()), "the deletion of the files")
    small.make_room()
    assert small.out("run", "--rm", "busybox", "echo", "fine") == "fine"
    assert "Traceback" not in small.log()
