"""Hosts without overlay: the whole life of a container on vfs, and data roots that change from one to the other."""

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from .host import Host


@pytest.fixture(scope="module")
def vfs_host():
    own = Host("--storage-driver", "vfs").start()
    own.import_busybox()
    yield own
    own.close()


def test_docker_says_which_driver(vfs_host):
    assert vfs_host.out("info", "--format", "{{.Driver}} {{json .DriverStatus}}") == "vfs null"
    assert vfs_host.out("image", "inspect", "busybox", "-f", "{{json .GraphDriver}}") == '{"Data":null,"Name":"vfs"}'
    vfs_host.docker("create", "--name", "shown", "busybox", "true")
    assert vfs_host.out("inspect", "-f", "{{json .GraphDriver}}", "shown") == '{"Data":null,"Name":"vfs"}'


def test_containers_have_copies_of_their_own(vfs_host):
    out = vfs_host.out
    vfs_host.docker(
        "run", "--name", "one", "busybox", "sh", "-c", "rm /www/index.html; echo mine > /www/new; stat -f -c %T /"
    )
    assert "overlay" not in out("logs", "one").splitlines()[0]
    assert out("run", "--rm", "busybox", "cat", "/www/index.html") == "hello from inside"
    vfs_host.docker("start", "-a", "one", check=False)
    assert out("ps", "-as", "--filter", "name=one", "--format", "{{.Size}}").startswith("5B (virtual")
    vfs_host.docker("rm", "one")


def test_the_root_can_be_read_only_and_execs_share_it(vfs_host):
    failed = vfs_host.docker("run", "--rm", "--read-only", "busybox", "touch", "/x", check=False)
    assert "Read-only file system" in failed.stderr
    vfs_host.docker("run", "-d", "--name", "execs", "busybox", "sleep", "100")
    vfs_host.docker("exec", "execs", "touch", "/made")
    assert vfs_host.out("exec", "execs", "ls", "/made") == "/made"
    assert vfs_host.out("exec", "execs", "mount").splitlines()[0].split()[2] == "/"


def test_they_are_found_again_after_a_restart(vfs_host):
    vfs_host.docker("run", "-d", "--name", "lives", "busybox", "sh", "-c", "echo a > /f; sleep 100")
    vfs_host.docker("create", "--name", "waits", "busybox", "cat", "/www/index.html")
    vfs_host.stop()
    vfs_host.start()
    assert vfs_host.out("exec", "lives", "cat", "/f") == "a"
    assert vfs_host.out("start", "-a", "waits") == "hello from inside"


def test_removing_the_image_removes_its_copy(vfs_host):
    vfs_host.import_busybox("other")
    vfs_host.docker("tag", "other", "other:2")
    copies = vfs_host.root / "data" / "vfs"
    vfs_host.docker("create", "--name", "user", "other", "true")
    vfs_host.docker("rm", "user")
    before = set(os.listdir(copies))
    identifier = vfs_host.out("image", "inspect", "other", "-f", "{{.Id}}").removeprefix("sha256:")
    assert identifier in before
    vfs_host.docker("rmi", "-f", identifier)
    assert set(os.listdir(copies)) == before - {identifier}


def test_a_full_copy_that_fails_leaves_nothing(vfs_host):
    """The container's directory is where the copy goes: make that impossible."""
    containers = vfs_host.root / "data" / "containers"
    before = set(os.listdir(containers))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(containers)], check=True)
    try:
        failed = vfs_host.docker("create", "--name", "toolarge", "busybox", "true", check=False)
        assert failed.returncode == 1
        assert "no space left on device" in failed.stderr.lower()
        assert os.listdir(containers) == []
    finally:
        subprocess.run(["umount", "-l", str(containers)], check=True)
    assert set(os.listdir(containers)) == before
    vfs_host.docker("create", "--name", "toolarge", "busybox", "true")


@contextmanager
def on_overlay(host, scratch):
    """The host's data root as it looks in a container: an overlay, whose upper layer is thrown away at the end."""
    data = host.root / "data"
    data.mkdir(exist_ok=True)
    for name in ("upper", "work"):
        (scratch / name).mkdir()
    options = f"lowerdir={data},upperdir={scratch}/upper,workdir={scratch}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(data)], check=True)
    try:
        yield
    finally:
        if host.daemon and host.daemon.poll() is None:
            host.stop()
        subprocess.run(["umount", "-l", str(data)], check=True)


def test_a_data_root_on_overlay_falls_back_and_says_so(tmp_path):
    host = Host()
    with on_overlay(host, tmp_path):
        host.start()
        assert host.log().count("overlay does not work on") == 1
        assert "--storage-driver vfs" in host.log()
        host.import_busybox()
        assert host.out("info", "-f", "{{.Driver}}") == "vfs"
        assert "WARNING: overlay does not work on " in host.docker("info").stderr
        assert host.out("run", "--rm", "busybox", "echo", "runs") == "runs"
        host.stop()
        host.flags = (*host.flags, "--storage-driver", "overlay2")
        host.start(may_die=True)
        assert "error initializing graphdriver: driver not supported: overlay2: " in host.log()
        host.flags = host.flags[:-2]
    host.start()
    host.close()


def test_containers_of_overlay_on_a_host_that_lost_it(tmp_path):
    host = Host().start()
    host.import_busybox()
    host.docker("create", "--name", "stacked", "busybox", "cat", "/www/index.html")
    host.stop()
    with on_overlay(host, tmp_path):
        host.start()
        assert "made with storage driver overlay2, these containers cannot be started: stacked" in host.log()
        failed = host.docker("start", "stacked", check=False)
        assert "was created with storage driver overlay2, which does not work here: " in failed.stderr
        assert host.inspect("stacked")["State"]["Status"] == "created"
    host.start()
    assert host.out("start", "-a", "stacked") == "hello from inside"
    host.close()


def test_a_data_root_that_changes_drivers():
    host = Host("--storage-driver", "overlay2").start()
    host.import_busybox()
    host.docker("create", "--name", "stacked", "busybox", "cat", "/www/index.html")
    host.stop()
    host.flags = (*host.flags[:-1], "vfs")
    host.start()
    host.docker("create", "--name", "copied", "busybox", "cat", "/www/index.html")
    assert host.out("start", "-a", "stacked") == "hello from inside"  # vfs was wished for; overlay works all the same
    host.stop()
    host.flags = (*host.flags[:-1], "overlay2")
    host.start()
    assert not Path(host.root / "data" / "vfs").exists()
    assert host.out("start", "-a", "copied") == "hello from inside"
    assert host.out("inspect", "-f", "{{.Driver}}", "stacked", "copied").split() == ["overlay2", "vfs"]
    host.close()
