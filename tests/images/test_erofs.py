"""A layer's index shows what unpacking the layer makes, and is refused for the same archives with the same words."""

import itertools
import os
import stat
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.images.erofslab import index, mounted, seen, unpack
from tests.images.mkimg import archive, directory, file, gnu_long, hardlink, header, pax, symlink
from wherry.images.erofs import Unsuitable, format
from wherry.images.erofs.layer import write_layer

pytestmark = pytest.mark.root

ACL = (
    struct.pack("<I", 2)
    + b"".join(struct.pack("<HHI", *entry) for entry in [(1, 6, -1 & 0xFFFFFFFF), (2, 7, 12), (4, 4, -1 & 0xFFFFFFFF)])
    + struct.pack("<HHI", 16, 7, 0xFFFFFFFF)
    + struct.pack("<HHI", 32, 0, 0xFFFFFFFF)
)
PLAIN_ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, 6, 0xFFFFFFFF) for tag in (1, 4, 32))
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)


def same(data: bytes, tmp_path: Path, *, directory_times: bool = True) -> object:
    """Assert that both forms come out the same; what came out, or the error."""
    with tempfile.TemporaryDirectory(dir=tmp_path) as name:
        work = Path(name)
        expected = unpack(data, work / "tree")
        result = index(data, work / "erofs")
        assert result == expected
        if type(expected) is not tuple:
            with mounted(work / "erofs") as root:
                ours = seen(root, directory_times=directory_times)
            theirs = seen(work / "tree", directory_times=directory_times)
            assert {name: (ours.get(name), theirs.get(name)) for name in ours.keys() | theirs.keys()} == {
                name: (theirs[name], theirs[name]) for name in theirs
            }
        return expected


def xattr(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    return b"SCHILY.xattr." + name, value


LONG = b"n" * 255
GOOD = {
    "attributes": [
        directory(b"d/", 0o2775, uid=5, gid=6, mtime=100),
        file(b"d/f", b"hello", mode=0o4751, uid=1000, gid=2000, mtime=1_700_000_000),
        file(b"d/big-ids", b"x", uid=(1 << 32) - 2, gid=1 << 31),
        file(b"d/old", b"x", mtime=-86400),
        pax(b"d/precise", [(b"mtime", b"1700000000.123456789")], content=b"x"),
        header(b"d/fifo", type=b"6", mode=0o622, uid=7),
        header(b"d/dev", type=b"3", mode=0o660, device=(1, 3)),
        header(b"d/blk", type=b"4", mode=0o640, device=(4000, 1_000_000)),
        file(b"d/empty"),
    ],
    "links": [
        directory(b"d/"),
        file(b"d/f", b"content"),
        symlink(b"d/l", b"../anything"),
        hardlink(b"d/h", b"d/f"),
        hardlink(b"d/hl", b"d/l"),
        hardlink(b"d/h", b"d/f"),
        gnu_long(b"K", b"t" * 4000),
        symlink(b"long", b""),
        gnu_long(b"K", b"u" * 400),
        symlink(b"middling", b""),
    ],
    "replacing": [
        file(b"a", b"1"),
        file(b"a", b"22"),
        directory(b"d/x/y/"),
        file(b"d/x/y/f", b"1"),
        hardlink(b"kept", b"d/x/y/f"),
        file(b"d", b"now a file"),
        symlink(b"s", b"elsewhere"),
        directory(b"s/"),
        file(b"s/f", b"1"),
    ],
    "directory attributes": [
        directory(b"d/", 0o700, uid=1, mtime=5),
        directory(b"d/e/", 0o700, uid=2, mtime=6),
        directory(b"d/", 0o755, uid=3, mtime=7),
    ],
    "link for a directory": [
        directory(b"target/", 0o700, uid=1, mtime=5),
        directory(b"d/", 0o711, uid=2, mtime=6),
        symlink(b"d", b"target"),
        directory(b"e/f/", 0o711, uid=2, mtime=6),
        symlink(b"e", b"e"),
    ],
    "whiteouts": [
        directory(b"d/", mtime=4),
        file(b"d/.wh.gone"),
        file(b"d/.wh..wh..opq"),
        file(b".wh.e"),
        directory(b"e/", mtime=4),
        file(b"here", b"1"),
        file(b".wh.here"),
        directory(b"f/", mtime=4),
        file(b".wh.f"),
        file(b".wh..wh.plnk/1.2", b"aufs"),
        file(b".wh.g"),
        directory(b"g/h/", mtime=4),
        directory(b"g/", mtime=4),
        header(b"by-device", type=b"3", device=(0, 0)),
    ],
    "opaque root": [file(b".wh..wh..opq"), file(b"f", b"1")],
    "xattrs": [
        pax(b"f", [xattr(b"user.one", b"1"), xattr(b"security.capability", CAPABILITY), xattr(b"trusted.t", b"")]),
        pax(b"acl", [xattr(b"system.posix_acl_access", ACL)], mode=0o641),
        pax(b"plain-acl", [xattr(b"system.posix_acl_access", PLAIN_ACL)], mode=0o604),
        pax(b"bad-acl", [xattr(b"system.posix_acl_access", ACL[:-8])], mode=0o604),
        pax(b"d/", [xattr(b"system.posix_acl_default", ACL), xattr(b"user.d", b"x" * 700)], type=b"5", mode=0o750),
        file(b"d/.wh..wh..opq"),
        pax(b"l", [xattr(b"user.no", b"1"), xattr(b"trusted.yes", b"1")], type=b"2", link=b"target"),
        pax(b"fifo", [xattr(b"user.no", b"1"), xattr(b"security.foo", b"1")], type=b"6"),
        pax(b"odd", [xattr(b"security.capability", b"12"), xattr(b"nonsense.x", b"1"), xattr(b"user.", b"1")]),
        pax(b"ours", [xattr(b"trusted.overlay.opaque", b"y"), xattr(b"user.overlay.redirect", b"/x")]),
    ],
    "links as parents": [
        directory(b"real/", mtime=4),
        symlink(b"l", b"real"),
        file(b"l/f", b"1"),
        symlink(b"up", b"../../../real/../real"),
        file(b"up/g", b"2"),
        symlink(b"absolute", b"/real"),
        file(b"absolute/h", b"3"),
        symlink(b"real/back", b".."),
        file(b"l/back/i", b"4"),
        hardlink(b"j", b"absolute/back/real/f"),
    ],
    "names": [
        *(file(bytes([first]) + b"name", b"x") for first in range(1, 256) if first != 47),
        gnu_long(b"L", LONG),
        file(b"", b"long"),
        gnu_long(b"L", b"/".join([b"d" * 200] * 15)),
        file(b"", b"deep"),
        file(b"./x/../y", b"1"),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_both_forms_are_the_same(name, tmp_path):
    assert type(same(archive(*GOOD[name]), tmp_path, directory_times=name not in ("names", "replacing"))) is not tuple


def test_directories_that_are_not_told_of(tmp_path):
    data = archive(file(b"a/b/c", b"1"), symlink(b"dangling", b"x/y/z"), file(b"dangling/f", b"2"))
    same(data, tmp_path, directory_times=False)


def test_a_directory_of_very_many(tmp_path):
    """More names than a block of entries holds, found by the kernel's binary search, each of them."""
    names = [b"%x" % (n * 2654435761 % (1 << 32)) for n in range(20_000)]
    index(archive(*(file(b"many/" + name, uid=n) for n, name in enumerate(names))), tmp_path / "erofs")
    with mounted(tmp_path / "erofs") as root:
        assert sorted(os.fsencode(name) for name in os.listdir(f"{root}/many")) == sorted(names)
        for n, name in enumerate(names):
            assert os.stat(os.fsencode(root) + b"/many/" + name).st_uid == n


BAD = {
    "outside": [file(b"../x", b"1")],
    "file as directory": [file(b"f", b"1"), file(b"f/x", b"1")],
    "link loop": [symlink(b"a", b"b"), symlink(b"b", b"a"), file(b"a/x")],
    "dangling loop": [symlink(b"a", b"a/b"), file(b"a/x")],
    "hard link to nothing": [hardlink(b"h", b"missing")],
    "hard link to the root": [hardlink(b"h", b"/")],
    "hard link to a directory": [directory(b"d/"), hardlink(b"h", b"d")],
    "hard link in its way": [file(b"a/b", b"1"), hardlink(b"a", b"a/b")],
    "link to a file as directory": [file(b"f"), symlink(b"l", b"f"), file(b"l/x")],
    "socket": [header(b"s", type=b"s")],
    "device": [header(b"d", type=b"3", device=(1 << 12, 0))],
    "owner": [file(b"f", uid=(1 << 32) - 1)],
    "whiteout of nothing": [file(b".wh.")],
    "whiteout above": [file(b"d/.wh...")],
    "root as file": [file(b".", b"1")],
    "empty link": [symlink(b"l", b"")],
    "default acl of a file": [pax(b"f", [xattr(b"system.posix_acl_default", ACL)])],
    "long link": [gnu_long(b"K", b"t" * 4096), symlink(b"long", b"")],
    "NUL in an attribute": [pax(b"f", [xattr(b"user.a\0b", b"1")])],
    "truncated": [file(b"f", b"1" * 2000)[:-600]],
}


@pytest.mark.parametrize("name", BAD)
def test_both_forms_refuse_the_same(name, tmp_path):
    data = b"".join(BAD[name]) if name == "truncated" else archive(*BAD[name])
    assert type(same(data, tmp_path)) is tuple


NAMES = st.sampled_from([b"a", b"b", b"c", b".wh.a", b".wh.b", b".wh..wh..opq", b"..", b"x" * 250])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
TARGETS = st.sampled_from([b"a", b"b", b"../a", b"/b/c", b"..", b"/", b"a/b", b"b/../c", b"nowhere/else", b"./"])
ENTRIES = st.one_of(
    st.builds(file, PATHS, st.sampled_from([b"", b"1", b"2" * 513]), mtime=st.integers(0, 9)),
    st.builds(directory, PATHS.map(lambda path: path + b"/")),
    st.builds(symlink, PATHS, TARGETS),
    st.builds(hardlink, PATHS, PATHS),
    st.builds(lambda path: header(path, type=b"6"), PATHS),
    st.builds(lambda path: header(path, type=b"3", device=(0, 0)), PATHS),
    st.builds(lambda path, value: pax(path, [xattr(b"user.x", value)]), PATHS, st.sampled_from([b"1", b"2" * 600])),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.lists(ENTRIES, max_size=12))
def test_any_archive(entries, tmp_path):
    same(archive(*entries), tmp_path, directory_times=False)


@pytest.mark.parametrize("dialect", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_what_tar_writes(dialect, tmp_path):
    tree = tmp_path / "source"
    (tree / "sub/deeper").mkdir(parents=True)
    (tree / "sub/file").write_bytes(os.urandom(5000))
    (tree / "sub/deeper/empty").touch()
    os.symlink("file", tree / "sub/link")
    os.link(tree / "sub/file", tree / "sub/deeper/hard")
    with open(tree / "sparse", "wb") as sparse:
        for offset in (1 << 16, 5 << 16, 9 << 20):
            sparse.seek(offset)
            sparse.write(os.urandom(8192))
        sparse.truncate(9 << 20 | 12345)
    if dialect != "v7":
        os.mkfifo(tree / "fifo")
    options = ["--sparse", "--xattrs"] if dialect == "posix" else ["--sparse"] if "gnu" in dialect else []
    versions = ["0.0", "0.1", "1.0"] if dialect == "posix" else [""]
    for version in versions:
        sparse_version = [f"--sparse-version={version}"] if version else []
        command = ["tar", f"--format={dialect}", *options, *sparse_version, "-C", tree, "-c", "."]
        same(subprocess.run(command, check=True, capture_output=True).stdout, tmp_path)


class FileSource:
    """A file that is not read where it need not be."""

    def __init__(self, stream):
        self._stream = stream
        self._size = os.fstat(stream.fileno()).st_size

    def read(self, limit: int) -> bytes:
        return self._stream.read(limit)

    def skip(self, length: int) -> int:
        before = self._stream.tell()
        return self._stream.seek(min(before + length, self._size)) - before


def test_a_file_of_more_than_4_GiB(tmp_path):
    """All of it a hole but its end; the tar is a sparse file as well."""
    size = (5 << 30) + 700
    tar = tmp_path / "tar"
    with open(tar, "wb") as out:
        out.write(header(b"big", raw_size=b"%011o" % size if size < 8**11 else None, size=size))
        out.seek(512 + size - 3)
        out.write(b"end" + bytes(-size % 512))
        out.write(file(b"after", b"it") + bytes(1024))
    (tmp_path / "erofs").mkdir()
    with open(tar, "rb") as stream:
        write_layer(FileSource(stream), tmp_path / "erofs/index", tmp_path / "erofs/tar", tar, lambda _: None)
    assert os.stat(tmp_path / "erofs/tar").st_ino == os.stat(tar).st_ino
    with mounted(tmp_path / "erofs") as root:
        assert os.stat(f"{root}/big").st_size == size
        with open(f"{root}/big", "rb") as big:
            big.seek(size - 5)
            assert big.read() == b"\0\0end"
        assert Path(f"{root}/after").read_bytes() == b"it"


def gnu_sparse(extents: list[tuple[int, int]], size: int, content: bytes) -> bytes:
    text = b",".join(b"%d,%d" % extent for extent in extents)
    records = [(b"GNU.sparse.map", text), (b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.name", b"f")]
    return archive(pax(b"f", records, content=content), file(b"after", b"it"))


@pytest.mark.parametrize("extents", [[(3, 10)], [(512, 100), (1024, 512)], [(n << 20, 512) for n in range(400)]])
def test_sparse_files_that_no_index_can_say(extents, tmp_path):
    """Those are left to the tree."""
    size = max(offset + length for offset, length in extents) + 1
    data = gnu_sparse(extents, size, os.urandom(sum(length for _, length in extents)))
    with pytest.raises(Unsuitable):
        index(data, tmp_path / "erofs")


@pytest.mark.parametrize(
    ("extents", "size"),
    [([], 1 << 30), ([(0, 512)], 512), ([(1 << 20, 513)], (1 << 20) + 513), ([(4096, 8192), (1 << 20, 4096)], 1 << 29)],
)
def test_sparse_files(extents, size, tmp_path):
    content = os.urandom(sum(length for _, length in extents))
    index(gnu_sparse(extents, size, content), tmp_path / "erofs")
    with mounted(tmp_path / "erofs") as root, open(f"{root}/f", "rb") as sparse:
        assert os.fstat(sparse.fileno()).st_size == size
        for offset, length in extents:
            sparse.seek(offset)
            assert sparse.read(length) == content[:length]
            content = content[length:]
        sparse.seek(0)
        if not extents or extents[0][0] > 100:
            assert sparse.read(100) == bytes(100)


def test_an_archive_without_its_end(tmp_path):
    """The last file lacks its padding, as some tools leave it."""
    data = file(b"f", b"x" * 700)[: 512 + 700]
    same(data, tmp_path)


def test_too_much_to_keep_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("wherry.images.erofs.tree._MEMORY_MAX", 10_000)
    with pytest.raises(Unsuitable, match="memory"):
        index(archive(*(file(b"f%d" % n) for n in range(100))), tmp_path / "erofs")


def test_more_attributes_than_an_inode_has_room_for(tmp_path):
    xattrs = [xattr(b"user.%05d" % n, b"v" * 16) for n in range(9500)]
    with pytest.raises(Unsuitable, match="extended attributes"):
        index(pax(b"f", xattrs) + archive(file(b"f", b"x")), tmp_path / "erofs")


def test_too_many_steps(tmp_path, monkeypatch):
    """Links to links cost time that the size of an archive does not show."""
    monkeypatch.setattr("wherry.images.erofs.tree._STEPS_MAX", 2_000)
    chain = [symlink(b"l%d" % n, b"l%d/./././." % (n - 1)) for n in range(1, 39)]
    entries = [
        directory(b"l0/"),
        *chain,
        *(file(b"l38/./d%d/../f%d" % (n, n)) for n in range(20)),
        *(hardlink(b"h%d" % n, b"l%d/f0" % n) for n in range(1, 39)),
    ]
    with pytest.raises(Unsuitable, match="steps"):
        index(archive(*entries), tmp_path / "erofs")


def test_the_checksum(tmp_path):
    """The kernel checks it: one wrong bit and nothing is mounted."""
    index(archive(file(b"f", b"1")), tmp_path / "erofs")
    image = tmp_path / "erofs/index"
    data = bytearray(image.read_bytes())
    data[1024 + 48] ^= 1
    image.write_bytes(data)
    with pytest.raises(OSError, match=r"."), mounted(tmp_path / "erofs"):
        pass


def test_crc32c():
    assert format.crc32c(b"123456789") ^ 0xFFFFFFFF == 0xE3069283


def test_every_extent_is_in_the_tar(tmp_path):
    """Nothing of an index points outside the tar or the index, whatever the archive says."""
    entries = list(itertools.chain.from_iterable(GOOD.values()))
    index(archive(*entries), tmp_path / "erofs")
    data = (tmp_path / "erofs/index").read_bytes()
    blocks = (tmp_path / "erofs/tar").stat().st_size // 512
    assert len(data) % 512 == 0
    files = 0
    for at in range(1536 + 64, len(data) - 64, 64):
        layout, _, mode, _, size, block = struct.unpack_from("<HHHHQI", data, at)
        if layout == 1 and stat.S_ISREG(mode) and size:
            files += 1
            assert block >= format.TAR_BLOCK
            assert block + -(-size // 512) <= format.TAR_BLOCK + blocks
    assert files > 200
