"""Layers that are mounted: who mounts them when, and that nothing of them stays."""

import gzip
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.images.mkimg import docker_archive
from tests.mounted import detach_below, mounted_below
from wherry.images.snapshots.choice import erofs_problem

from .host import Host, busybox_tar

pytestmark = pytest.mark.skipif(bool(erofs_problem(Path("/tmp"))), reason="no EROFS here")


@pytest.fixture
def host():
    host = Host("--storage-opt", "overlay2.layers=erofs").start()
    host.import_busybox()
    yield host
    host.close()


def layers(host) -> list[str]:
    """The names of the mounted layers."""
    return [os.path.basename(point) for point in mounted_below(host.root / "run" / "layers")]


def layer_of(host, image: str = "busybox") -> str:
    [diff_id] = json.loads(host.out("image", "inspect", "-f", "{{json .RootFS.Layers}}", image))
    return diff_id.removeprefix("sha256:")


def shell(host, container: str, command: str) -> str:
    return host.out("exec", container, "sh", "-c", command)


def test_a_layer_is_mounted_once_for_all_containers(host):
    assert layers(host) == []
    assert host.inspect("busybox")["GraphDriver"]["Data"]["UpperDir"].endswith(f"/run/layers/{layer_of(host)}")
    assert layers(host) == []
    for name in ("c1", "c2"):
        host.docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    assert layers(host) == [layer_of(host)]
    assert shell(host, "c1", "echo changed > /www/index.html; cat /www/index.html") == "changed"
    assert shell(host, "c2", "cat /www/index.html") == "hello from inside"
    assert host.out("diff", "c1") == "C /www\nC /www/index.html"
    assert not (host.root / "data/layers" / layer_of(host)).exists()


def test_a_file_stays_the_same_when_it_is_changed(host):
    """Its identity outlives the copy to the container's own layer, and its hard links share it."""
    host.docker("run", "-d", "--name", "c1", "busybox", "sleep", "1000")
    before = shell(host, "c1", "stat -c %d:%i /etc/group")
    links = shell(host, "c1", "ln /etc/group /etc/group2; echo >> /etc/group; stat -c %d:%i /etc/group /etc/group2")
    assert links.split() == [before, before]


def test_the_tar_is_the_blob(host):
    """An uncompressed layer takes its space once."""
    packed = host.root / "data/layers" / f"{layer_of(host)}.erofs"
    assert (
        os.stat(packed / "layer.tar").st_ino == os.stat(host.root / "data/content/blobs/sha256" / layer_of(host)).st_ino
    )


def test_a_removed_image_is_unmounted(host):
    host.docker("run", "--name", "c1", "busybox", "true")
    assert layers(host) == [layer_of(host)]
    host.docker("rm", "c1")
    host.docker("rmi", "busybox")
    assert layers(host) == []
    assert os.listdir(host.root / "data/layers") == os.listdir(host.root / "run/layers") == []


def test_a_stopping_daemon_unmounts_what_nothing_uses(host):
    host.docker("run", "--name", "done", "busybox", "true")
    host.stop()
    assert layers(host) == []
    host.start()
    host.docker("run", "-d", "--name", "on", "busybox", "sleep", "1000")
    [mounted] = mounted_below(host.root / "run/layers")
    device = os.stat(mounted).st_dev
    host.stop()
    assert mounted_below(host.root / "run/layers") == [mounted]
    host.start()
    host.docker("start", "-a", "done")
    assert os.stat(mounted).st_dev == device
    host.docker("rm", "-f", "on")


def test_a_killed_daemon_leaves_its_mounts_to_the_next(host):
    host.docker("run", "-d", "--name", "on", "busybox", "sleep", "1000")
    [mounted] = mounted_below(host.root / "run/layers")
    device = os.stat(mounted).st_dev
    host.stop(signal.SIGKILL)
    host.start()
    assert shell(host, "on", "cat /www/index.html") == "hello from inside"
    host.docker("run", "--rm", "busybox", "true")
    assert os.stat(mounted).st_dev == device


@pytest.mark.parametrize("kept", ["mount points", "nothing"])
@pytest.mark.parametrize("first", [("start", "-a"), ("diff",), ("export",)])
def test_what_a_boot_took_is_mounted_again(host, kept, first):
    """Before a container starts, and for those who look into one that does not run."""
    host.docker("run", "--name", "ran", "busybox", "sh", "-c", "echo x > /new")
    layer = layer_of(host)
    host.stop(signal.SIGKILL)
    detach_below(host.root / "run/layers")
    assert os.listdir(host.root / "run/layers") == [layer]
    if kept == "nothing":
        os.removedirs(host.root / "run/layers" / layer)
    host.start()
    assert layers(host) == []
    host.docker(*first, "ran", text=False)
    assert layers(host) == [layer]
    assert host.out("diff", "ran") == "A /new"


def test_another_exec_root(host):
    """Records name the directories of the engine that made them."""
    host.docker("create", "--name", "c1", "busybox", "cat", "/www/index.html")
    host.stop()
    os.rename(host.root / "run", host.root / "old")
    host.start()
    assert host.out("start", "-a", "c1") == "hello from inside"


def test_both_forms_in_one_image(host):
    """A data root goes on with the layers it has, whatever form new ones get."""
    host.docker("run", "--name", "c1", "busybox", "sh", "-c", "echo tree > /second; rm /www/index.html")
    host.stop()
    flags, host.flags = host.flags, (*host.flags[:-1], "overlay2.layers=tree")
    host.start()
    host.docker("commit", "c1", "both")
    below, above = host.inspect("both")["RootFS"]["Layers"]
    assert (host.root / "data/layers" / above.partition(":")[2]).is_dir()
    assert (host.root / "data/layers" / f"{below.partition(':')[2]}.erofs").is_dir()
    assert host.out("run", "--rm", "both", "sh", "-c", "cat /second; ls /www") == "tree"
    host.flags = flags


def test_a_loaded_archive(host):
    """A compressed layer has its tar beside its blob; one that is here already, however it came, is not made again."""
    plain = busybox_tar() + bytes(10240)
    host.docker("load", input=docker_archive([plain], ["first:1"], blobs=[gzip.compress(plain)]), text=False)
    packed = host.root / "data/layers" / f"{layer_of(host, 'first:1')}.erofs"
    index = (packed / "index").stat().st_ino
    assert (packed / "layer.tar").read_bytes() == plain
    assert (packed / "layer.tar").stat().st_nlink == 1
    host.docker("load", input=docker_archive([plain], ["second:1"]), text=False)
    assert (packed / "index").stat().st_ino == index
    for image in ("first:1", "second:1"):
        assert host.out("run", "--rm", image, "cat", "/www/index.html") == "hello from inside"


@pytest.mark.parametrize("point", ["layer-mount:kill", "layers-commit:kill", "layer-trash:kill"])
def test_killed_at(host, point):
    """The next daemon has nothing half done."""
    host.stop()
    host.start(point)
    host.docker("run", "--rm", "busybox", "true", check=False)
    if host.daemon.poll() is None:
        host.docker("import", "-", "second", input=busybox_tar() + bytes(512), text=False, check=False)
    if host.daemon.poll() is None:
        host.docker("rmi", "second", "busybox", check=False)
    host.daemon.wait(10)
    host.start()
    host.import_busybox("third")
    assert host.out("run", "--rm", "third", "cat", "/www/index.html") == "hello from inside"
    assert [name for name in os.listdir(host.root / "data/layers") if name.startswith(".")] == []


def test_refused():
    """What is asked for and cannot be is an error, not the other form."""
    for flags, words in (
        (["--storage-opt", "overlay2.size=1G"], "unknown option overlay2.size"),
        (["--storage-opt", "overlay2.layers=squashfs"], "there are erofs, tree"),
        (["--storage-driver", "vfs", "--storage-opt", "overlay2.layers=erofs"], "vfs: unknown option"),
    ):
        host = Host(*flags)
        try:
            host.start(may_die=True)
            assert words in host.log()
        finally:
            subprocess.run(["ip", "netns", "del", host.netns], check=True)
            super(Host, host).close()
