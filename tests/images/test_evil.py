"""Archives that mean harm, by the hundred, for load and import: each is refused with a reason, or loaded and harmless.
Whichever: the store is as before, the disk space is back, nothing outside was touched and no thread is left.
"""

import gzip
import io
import os
import resource
import subprocess
import sys
import threading

import pytest

from tests.images import mkimg
from tests.images.evilcases import documents, headers, indexes, trees, truncations
from tests.images.mkimg import archive, digest, docker_archive, file, symlink
from tests.images.shop import BASE, contents, leftovers, nobody
from wherry.errors import InvalidArgument, NotFound, Unavailable

pytestmark = pytest.mark.root


def check(store, paths, act) -> str:
    """Do it; the refusal, "" for none. Nothing is left of it after what it made is removed."""
    threads = threading.active_count()
    try:
        act()
        said = ""
    except (InvalidArgument, NotFound, Unavailable) as error:
        said = str(error)
        assert said
        assert store.list(all=True) == []
    for image in store.list(all=True):
        store.lower_dirs(image)
        store.remove(image.id, force=True, users=nobody)
    assert contents(paths) == ([], [])
    assert leftovers(paths) == []
    assert threading.active_count() == threads
    return said


@pytest.mark.parametrize("kind", [truncations, documents, indexes, headers], ids=lambda kind: kind.__name__)
def test_loads(store, paths, canary, kind):
    cases = list(kind())
    taken = []
    for name, data in cases:
        try:
            if not check(store, paths, lambda data=data: store.load(io.BytesIO(data))):
                taken.append(name)
        except BaseException as error:
            raise AssertionError(name) from error
    if kind is truncations:
        assert taken == []
    assert len(cases) > 25
    assert len(taken) < len(cases) // 2


def test_trees(store, paths, canary):
    """As a layer, as the layer above one that has the link, and as an import, compressed or not."""
    cases = list(trees(canary))
    assert len(cases) > 120
    lower = archive(symlink(b"a", canary.encode()))
    for name, data in cases:
        try:
            check(store, paths, lambda data=data: store.load(io.BytesIO(docker_archive([data]))))
            check(store, paths, lambda data=data: store.load(io.BytesIO(docker_archive([lower, data]))))
            check(store, paths, lambda data=data: store.import_(io.BytesIO(gzip.compress(data))))
        except BaseException as error:
            raise AssertionError(name) from error


def test_many_layers_and_images_need_few_open_files(store, paths):
    """One archive must not use up what the whole engine has: 300 layers that nobody wants, 300 images of one layer."""
    configs = [mkimg.config([BASE], author=str(n)) for n in range(300)]
    data = docker_archive(
        [BASE],
        manifest=[{"Config": f"c{n}", "Layers": ["l0/layer.tar"]} for n in range(300)],
        extra=[
            *(file(b"c%d" % n, config) for n, config in enumerate(configs)),
            *(file(b"x%d" % n, archive(file(b"%d" % n, b"x"))) for n in range(300)),
        ],
    )
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 150, before[1]))
    try:
        assert len(store.load(io.BytesIO(data))) == 300
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert contents(paths)[1] == [digest(BASE)[7:]]
    assert leftovers(paths) == []


BOMBS = """
import gzip, io, lzma, os, sys, threading
from tests.images import mkimg, shop
from wherry.errors import InvalidArgument, NotFound, Unavailable
from wherry.images.archive.compression import zstd
from wherry.store.paths import Paths
paths = Paths(sys.argv[1] + "/data", sys.argv[1] + "/exec")
paths.create()
store = shop.reopen(paths)
before = os.statvfs(paths.data_root).f_bfree
zeros = bytes(1 << 20)
def repeated(compress, count):
    return compress(zeros) * count
huge = mkimg.header(b"zeros", raw_size=b"%011o" % (7 << 30))
pad = lambda data: data + bytes(-len(data) % 512)
bombs = {
    "gzip": gzip.compress(huge) + repeated(gzip.compress, 6000),
    "zstd": zstd.compress(huge) + repeated(zstd.compress, 6000),
    "xz": lzma.compress(huge) + repeated(lzma.compress, 2000),
    "nested": gzip.compress(gzip.compress(huge) + repeated(gzip.compress, 2000)),
    "sparse": mkimg.archive(mkimg.header(b"s", type=b"S", raw_size=b"00000000000", magic=b"ustar  \\0")),
    "pax size": mkimg.pax(b"x", [(b"size", b"9223372036854775807")]),
    "pax records": mkimg.pax(b"x", [(b"k%d" % n, b"v") for n in range(60_000)]),
    "long names": b"".join(mkimg.gnu_long(b"L", b"n" * 1_000_000) + mkimg.file(b"x") for _ in range(20)),
    "many entries": b"".join(mkimg.file(b"f%d" % n) for n in range(20_000)),
    "window": b"\\x28\\xb5\\x2f\\xfd\\x00\\xf8" + bytes(100),
    "dictionary": lzma.compress(b"x" * 1000, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30, "preset": 0}]),
}
for name, layer in bombs.items():
    for act in (
        lambda: store.load(io.BytesIO(mkimg.docker_archive([shop.BASE], blobs=[layer]))),
        lambda: store.load(io.BytesIO(layer)),
        lambda: store.import_(io.BytesIO(layer)),
    ):
        try:
            act()
            print(name, "was taken")
        except (InvalidArgument, NotFound, Unavailable) as error:
            print(name, "refused:", error)
        for image in store.list(all=True):
            store.remove(image.id, force=True, users=shop.nobody)
        assert shop.contents(paths) == ([], []) and shop.leftovers(paths) == [], name
after = os.statvfs(paths.data_root).f_bfree
print("blocks", before - after)
with open("/proc/self/status") as status:  # ru_maxrss would be that of the process we were forked from
    peak = next(line.split()[1] for line in status if line.startswith("VmHWM:"))
print("megabytes", int(peak) >> 10)
"""


def test_bombs_cost_neither_memory_nor_disk(tmp_path):
    """CVE-2017-14992 and its kind, on a file system of their own: RSS stays small, and all blocks come back."""
    script = f"""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x00020000) == 0
assert libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None) == 0
assert libc.mount(b"tmpfs", sys.argv[1].encode(), b"tmpfs", 0, b"size=400m") == 0
{BOMBS}"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    command = [sys.executable, "-c", script, str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    *said, blocks, megabytes = result.stdout.splitlines()
    assert int(blocks.split()[1]) < 64, "but for the database's own"
    assert int(megabytes.split()[1]) < 200
    refused = {line.split(" refused:")[0] for line in said if " refused:" in line}
    assert refused == {line.split(" refused:")[0].removesuffix(" was taken") for line in said}
