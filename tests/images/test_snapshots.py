"""Snapshot drivers: one suite for all. What a container sees must be what the layers say, whoever stacks them."""

import json
import os
import shutil
import stat
import subprocess
import sys

import pytest

from tests.images import erofslab
from tests.images.mkimg import archive, directory, file, hardlink, header, symlink
from tests.images.test_extract import unpack
from tests.mounted import detach_below
from wherry.images.archive.extract import LayerExtractor
from wherry.images.snapshots.compare import ADDED, DELETED, MODIFIED, changes, written
from wherry.images.snapshots.overlay import OverlayDriver
from wherry.images.snapshots.vfs import VfsDriver

LAYERS = [
    archive(
        directory(b"etc/", 0o755),
        file(b"etc/keep", b"1", mode=0o4755, uid=3),
        file(b"etc/gone", b"1"),
        file(b"etc/replaced", b"1"),
        directory(b"tree/sub/"),
        file(b"tree/sub/f", b"1"),
        directory(b"opaque/"),
        file(b"opaque/old", b"1"),
        directory(b"wiped/"),
        file(b"wiped/old", b"1"),
        directory(b"becomes-file/x/"),
        file(b"becomes-dir", b"1"),
        symlink(b"link", b"etc/keep"),
        file(b"h1", b"hard"),
        hardlink(b"h2", b"h1"),
    ),
    archive(
        directory(b"etc/", 0o711, uid=7),
        file(b"etc/.wh.gone"),
        file(b"etc/replaced", b"22"),
        file(b".wh.tree"),
        directory(b"opaque/"),
        file(b"opaque/.wh..wh..opq"),
        file(b"opaque/new", b"2"),
        file(b".wh.wiped"),
        directory(b"wiped/"),
        file(b"wiped/new", b"2"),
        file(b"becomes-file", b"2"),
        directory(b"becomes-dir/"),
        file(b"becomes-dir/y", b"2"),
        header(b"dev", type=b"3", device=(1, 3)),
        header(b"fifo", type=b"6"),
    ),
    archive(directory(b"tree/"), file(b"tree/again", b"3"), file(b"h2", b"other")),
]

# mounts an overlay of argv[2:] (top first) in a namespace of its own and prints what is seen there
LOOK = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
lower = sys.argv[2:]
if len(lower) == 1:
    root = lower[0]
else:
    assert libc.unshare(0x00020000) == 0
    assert libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None) == 0
    root = sys.argv[1]
    options = ("lowerdir=" + ":".join(lower)).encode()
    assert libc.mount(b"overlay", root.encode(), b"overlay", 1, options) == 0, os.strerror(ctypes.get_errno())
seen = {}
for directory, names, files in os.walk(root):
    for name in names + files:
        path = os.path.join(directory, name)
        status = os.lstat(path)
        content = ""
        if status.st_mode >> 12 == 8:
            content = open(path).read()
        elif status.st_mode >> 12 == 10:
            content = os.readlink(path)
        size = status.st_size if status.st_mode >> 12 == 8 else 0
        seen[os.path.relpath(path, root)] = [oct(status.st_mode), status.st_uid, status.st_rdev, size, content]
print(json.dumps(seen))
"""


@pytest.fixture(params=["tree", "erofs", "mixed"])
def layers(request, tmp_path):
    """The layers, top first: trees, mounted indexes, or one of these between two of those."""
    paths = []
    for number, data in enumerate(LAYERS):
        path = tmp_path / f"layer{number}"
        if request.param == "tree" or (request.param == "mixed" and number % 2):
            unpack(data, path)
        else:
            erofslab.index(data, tmp_path / f"packed{number}")
            erofslab.mount(tmp_path / f"packed{number}", path)
        paths.append(path)
    yield paths[::-1]
    detach_below(tmp_path)


def look(tmp_path, lower):
    mount = tmp_path / "mount"
    mount.mkdir(exist_ok=True)
    command = [sys.executable, "-c", LOOK, str(mount), *map(str, lower)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(params=["overlay", "vfs"])
def driver(request, tmp_path):
    return OverlayDriver() if request.param == "overlay" else VfsDriver(tmp_path / "vfs")


def test_the_merged_view(driver, layers, tmp_path):
    seen = look(tmp_path, driver.lower("sha256:" + "1" * 64, layers))
    files = {path: item[4] for path, item in seen.items() if item[0].startswith("0o10")}
    assert files == {
        "etc/keep": "1",
        "etc/replaced": "22",
        "opaque/new": "2",
        "wiped/new": "2",
        "becomes-file": "2",
        "becomes-dir/y": "2",
        "tree/again": "3",
        "h1": "hard",
        "h2": "other",
        "fifo": "",
    }
    assert seen["etc"][:2] == ["0o40711", 7]
    assert seen["etc/keep"][:2] == ["0o104755", 3]
    assert seen["link"][4] == "etc/keep"
    assert seen["dev"][2] == os.makedev(1, 3)
    assert stat.S_ISFIFO(int(seen["fifo"][0], 8))


def test_asking_again_gives_the_same_and_layers_stay_as_they_are(driver, layers, tmp_path):
    before = [sorted(os.listdir(layer)) for layer in layers]
    key = "sha256:" + "2" * 64
    first = driver.lower(key, layers)
    assert driver.lower(key, layers) == first
    assert [sorted(os.listdir(layer)) for layer in layers] == before
    driver.release(key)
    driver.release(key)
    assert driver.keys() == set()
    assert all(layer.is_dir() for layer in layers)


def test_one_layer(driver, layers, tmp_path):
    (lower,) = driver.lower("sha256:" + "3" * 64, layers[-1:])
    assert (lower / "etc/keep").read_text() == "1"
    assert os.lstat(lower / "h1").st_ino == os.lstat(lower / "h2").st_ino


def test_an_interrupted_copy_is_not_taken_for_a_whole_one(tmp_path, layers, monkeypatch):
    driver = VfsDriver(tmp_path / "vfs")

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", fail)
    with pytest.raises(OSError, match="No space left"):
        driver.lower("sha256:" + "4" * 64, layers)
    monkeypatch.undo()
    assert driver.keys() == set()
    assert os.listdir(tmp_path / "vfs") == []
    os.mkdir(tmp_path / "vfs" / ".new-killed")
    assert driver.keys() == set()
    assert os.listdir(tmp_path / "vfs") == []


def test_the_unprivileged_opaque_mark(tmp_path):
    from wherry.images.archive.extract import OPAQUE_XATTR_UNPRIVILEGED
    from wherry.images.archive.reader import TarReader
    from wherry.images.archive.sources import StreamSource

    from .mkimg import stream

    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        reader = TarReader(StreamSource(stream(archive(file(b"d/.wh..wh..opq")))))
        LayerExtractor(fd, opaque_xattr=OPAQUE_XATTR_UNPRIVILEGED).extract(reader)
    finally:
        os.close(fd)
    assert os.listxattr(tmp_path / "d") == ["user.overlay.opaque"]


def test_what_a_container_changed_in_its_copy(tmp_path, layers):
    """The cases of Docker's ChangesDirs, on a copy that `prepare` made."""
    driver = VfsDriver(tmp_path / "vfs")
    (lower,) = driver.lower("sha256:" + "5" * 64, layers)
    upper = tmp_path / "upper"
    upper.mkdir()
    driver.prepare([lower], upper)
    assert list(changes(lower, upper)) == []
    assert os.lstat(upper / "etc/keep").st_ino != os.lstat(lower / "etc/keep").st_ino
    (upper / "etc/keep").unlink()
    (upper / "etc/replaced").write_text("333")
    os.chmod(upper / "wiped", 0o700)
    (upper / "made" / "deep").mkdir(parents=True)
    (upper / "made" / "deep" / "file").write_text("four")
    shutil.rmtree(upper / "opaque")
    (upper / "opaque").write_text("a file now")
    assert [(change.path, change.kind) for change in changes(lower, upper)] == [
        ("/etc", MODIFIED),
        ("/etc/keep", DELETED),
        ("/etc/replaced", MODIFIED),
        ("/made", ADDED),
        ("/made/deep", ADDED),
        ("/made/deep/file", ADDED),
        ("/opaque", MODIFIED),
        ("/wiped", MODIFIED),
    ]
    assert written(lower, upper) == len("333" + "four" + "a file now")
