"""Log files of real containers: cleared while they are written and followed, and on a disk that stalls."""

import os
import threading
from pathlib import Path

import pytest

# Each number is in the pipe before the next one begins; "go" in /tmp makes it end.
COUNT = 'n=0; until [ -e /tmp/go ]; do n=$((n+1)); echo "line $n"; done; echo "last $n"'


def files(host, name):
    log = Path(host.inspect(name)["LogPath"])
    return sorted(p.name for p in log.parent.iterdir() if p.name.startswith(log.name))


def numbers(text):
    return [int(line.split()[1]) for line in text.splitlines()]


OPTIONS = {
    "json-file": ("json-file", "--log-opt", "max-size=200k", "--log-opt", "max-file=9"),
    "local": ("local", "--log-opt", "max-size=200k", "--log-opt", "max-file=9"),
    "non-blocking": ("json-file", "--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=64m"),
}


@pytest.mark.parametrize("driver", OPTIONS)
def test_clearing_what_is_written_loses_nothing_written_later(host, name, driver):
    host.docker("run", "-d", "--name", name, "--log-driver", *OPTIONS[driver], "busybox", "sh", "-c", COUNT)
    host.wait_until(lambda: "line 3000\n" in host.docker("logs", name).stdout, "output", 30)
    floor = 0
    for _ in range(3):
        seen = numbers(host.docker("logs", "--tail", "1", name).stdout)[0]
        assert host.wherry("logs", "--clear", name).stdout == ""
        shown = []
        while not shown:
            shown = numbers(host.docker("logs", name).stdout)
        assert shown[0] > seen >= floor
        assert shown == list(range(shown[0], shown[0] + len(shown)))
        floor = shown[0]
    host.docker("exec", name, "touch", "/tmp/go")
    host.docker("wait", name)
    left = host.docker("logs", name).stdout
    count = numbers(left)
    assert left.endswith(f"last {count[-1]}\n")
    if driver == "json-file":  # the others may have lost their oldest to rotation: only the end is known
        assert count[-1] == count[-2]
    assert count[:-1] == list(range(count[0], count[-1] + 1))


def test_a_follower_sees_only_what_comes_later(host, name):
    script = "echo old; for next in new newest; do until [ -e /tmp/$next ]; do sleep 0.1; done; echo $next; done"
    host.docker("run", "-d", "--name", name, "busybox", "sh", "-c", script)
    host.wait_until(lambda: host.docker("logs", name).stdout == "old\n", "the first line")
    follower = host.popen("docker", "logs", "-f", name, stdout=-1, text=True)
    assert follower.stdout.readline() == "old\n"
    for said in ("new", "newest"):
        host.wherry("logs", "--clear", name)
        assert host.docker("logs", name).stdout == ""
        host.docker("exec", name, "touch", f"/tmp/{said}")
        assert follower.stdout.readline() == f"{said}\n"
        assert host.docker("logs", name).stdout == f"{said}\n"
    assert follower.communicate(timeout=60)[0] == ""


def test_a_container_that_ended(host, name):
    script = "for i in $(seq 9000); do echo line $i; done"
    host.docker(
        "run", "--name", name, *("--log-opt", "max-size=50k", "--log-opt", "max-file=4"), "busybox", "sh", "-c", script
    )
    assert len(files(host, name)) == 4
    host.wherry("logs", "--clear", name)
    assert len(files(host, name)) == 1
    assert host.docker("logs", name).stdout == ""
    host.docker("start", "-a", name)
    assert host.docker("logs", "-n", "1", name).stdout == "line 9000\n"


def test_what_has_no_log(host, name):
    host.docker("create", "--name", name, "busybox", "true")
    host.wherry("logs", "--clear", name)
    host.docker("rm", name)
    host.docker("run", "--name", name, "--log-driver", "none", "busybox", "echo", "x")
    refused = host.wherry("logs", "--clear", name, check=False)
    assert refused.returncode == 1
    assert f"cannot clear the log of container {name}: driver none keeps none here" in refused.stderr
    assert host.api("DELETE", f"/containers/{name}/logs")[0] == 400
    assert host.api("DELETE", "/containers/nobody/logs")[0] == 404
    both = host.wherry("logs", "--clear", "-f", name, check=False)
    assert "--clear and --follow cannot be used together" in both.stderr


def stalled(host, name, *options):
    """A container whose log file is a FIFO that nobody reads; its output is 3 MB."""
    host.docker(
        "create", "--name", name, *options, "busybox", "sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x | fold -w 99"
    )
    host.docker("start", name)
    host.docker("wait", name)
    log = Path(host.inspect(name)["LogPath"])
    log.unlink()
    os.mkfifo(log)
    return log


def test_a_disk_that_stalls_does_not_stall_a_container_that_need_not_wait(host, name):
    log = stalled(host, name, "--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=100k")
    host.docker("start", name)
    assert host.docker("wait", name, timeout=60).stdout == "0\n"
    log.unlink()


def test_one_that_waits_is_stalled_by_the_same_disk(host, name):
    log = stalled(host, name)
    host.docker("start", name)
    reader = os.open(log, os.O_RDONLY)
    assert os.read(reader, 8) == b'{"log":"'
    assert host.inspect(name)["State"]["Running"]
    drain = threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(reader, 65536), b"")])
    drain.start()
    assert host.docker("wait", name, timeout=60).stdout == "0\n"
    drain.join()
    os.close(reader)
    log.unlink()
