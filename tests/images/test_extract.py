"""Unpacking layers: what good archives become, and that evil ones reach nothing outside (a canary tree watches)."""

import errno
import itertools
import os
import stat

import pytest

from tests.images import mkimg
from tests.images.mkimg import archive, directory, file, hardlink, header, symlink
from wherry.errors import InvalidArgument
from wherry.images.archive.extract import LayerExtractor
from wherry.images.archive.reader import Limits, TarReader
from wherry.images.archive.sources import StreamSource


def unpack(data, target, limits=None):
    os.makedirs(target, exist_ok=True)
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return LayerExtractor(fd).extract(TarReader(StreamSource(mkimg.stream(data)), limits))
    finally:
        os.close(fd)


def names(root):
    return sorted(
        os.path.relpath(os.path.join(directory, name), root)
        for directory, directories, files in os.walk(root)
        for name in [*directories, *files]
    )


def read(path):
    return path.read_bytes()


# what good archives become


def test_files_get_content_mode_owner_time(tmp_path):
    result = unpack(
        archive(
            directory(b"d/", 0o2775, uid=5, gid=6, mtime=100),
            file(b"d/f", b"hello", mode=0o4751, uid=1000, gid=2000, mtime=1_700_000_000),
            file(b"d/open", b"", mode=0o666),
            symlink(b"d/l", b"../anything"),
            hardlink(b"d/h", b"d/f"),
            header(b"d/fifo", type=b"6", mode=0o622, uid=7),
            header(b"d/dev", type=b"3", mode=0o660, device=(1, 3)),
            header(b"d/blk", type=b"4", mode=0o640, device=(8, 17)),
        ),
        tmp_path,
    )
    status = os.lstat(tmp_path / "d/f")
    assert stat.S_IMODE(status.st_mode) == 0o4751
    assert (status.st_uid, status.st_gid, status.st_mtime, status.st_nlink) == (1000, 2000, 1_700_000_000, 2)
    assert read(tmp_path / "d/h") == b"hello"
    assert stat.S_IMODE(os.lstat(tmp_path / "d/open").st_mode) == 0o666
    above = os.lstat(tmp_path / "d")
    assert (stat.S_IMODE(above.st_mode), above.st_uid, above.st_gid, above.st_mtime) == (0o2775, 5, 6, 100)
    assert os.readlink(tmp_path / "d/l") == "../anything"
    assert os.lstat(tmp_path / "d/open").st_gid == 0  # the set-group-id directory gave nothing away
    fifo, dev, blk = (os.lstat(tmp_path / "d" / name) for name in ("fifo", "dev", "blk"))
    assert stat.S_ISFIFO(fifo.st_mode)
    assert (fifo.st_mode & 0o777, fifo.st_uid) == (0o622, 7)
    assert (stat.S_ISCHR(dev.st_mode), dev.st_rdev) == (True, os.makedev(1, 3))
    assert (stat.S_ISBLK(blk.st_mode), blk.st_rdev) == (True, os.makedev(8, 17))
    assert result.size == len("hello") + len("../anything")


@pytest.mark.parametrize("kind", ["pax", "gnu"])
def test_a_long_name_whose_beginning_ends_with_a_slash_is_a_file(tmp_path, kind):
    """The header has the first hundred bytes of the name, which here look like a directory's."""
    name = b"d" * 99 + b"/file"
    if kind == "pax":
        entry = mkimg.pax(name[:100], [(b"path", name)], content=b"content")
    else:
        entry = mkimg.gnu_long(b"L", name) + header(name[:100], content=b"content", magic=b"ustar  \0")
    unpack(archive(entry, file(b"after", b"it"), header(b"old/", type=b"0")), tmp_path)
    assert read(tmp_path / os.fsdecode(name)) == b"content"
    assert read(tmp_path / "after") == b"it"
    assert (tmp_path / "old").is_dir()


def test_the_root_keeps_dockers_attributes(tmp_path):
    root = tmp_path / "root"
    os.mkdir(root, 0o755)
    unpack(archive(directory(b"./", 0o700, uid=9, mtime=1), file(b"./a", b"x")), root)
    assert stat.S_IMODE(os.lstat(root).st_mode) == 0o755
    assert os.lstat(root).st_uid == 0


def test_missing_parents_are_made_plain(tmp_path):
    unpack(archive(file(b"a/b/c", b"x")), tmp_path)
    status = os.lstat(tmp_path / "a/b")
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o755, 0)


def test_later_entries_take_the_place_of_earlier_ones(tmp_path):
    unpack(
        archive(
            directory(b"d/", 0o700),
            file(b"d/x", b"1"),
            file(b"d", b"now a file"),
            file(b"f", b"1"),
            file(b"f", b"22"),
            file(b"l", b"1"),
            symlink(b"l", b"f"),
            symlink(b"m", b"f"),
            directory(b"m/", 0o711),
            file(b"m/y", b"3"),
            directory(b"keep/"),
            file(b"keep/z", b"4"),
            directory(b"keep/", 0o701),
        ),
        tmp_path,
    )
    assert read(tmp_path / "d") == b"now a file"
    assert read(tmp_path / "f") == b"22"
    assert os.readlink(tmp_path / "l") == "f"
    assert read(tmp_path / "m/y") == b"3"
    assert read(tmp_path / "keep/z") == b"4"
    assert stat.S_IMODE(os.lstat(tmp_path / "keep").st_mode) == 0o701


def test_a_file_takes_the_place_of_a_tree_deeper_than_recursion_goes(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    unpack(archive(file(b"d", b"now a file")), tmp_path)
    assert read(tmp_path / "d") == b"now a file"


@pytest.mark.parametrize(
    "entries",
    [
        [directory(b"run/"), symlink(b"var/run", b"/run"), file(b"var/run/x", b"1")],
        [symlink(b"var/run", b"/run"), file(b"var/run/x", b"1")],  # dangling when needed
        [directory(b"run/"), symlink(b"var/run", b"../../../run"), file(b"var/run/x", b"1")],
        [symlink(b"a", b"/run"), symlink(b"b", b"a"), file(b"b/x", b"1")],
    ],
)
def test_links_of_the_archive_are_followed_inside_it(tmp_path, entries):
    root = tmp_path / "root"
    unpack(archive(*entries), root)
    assert read(root / "run/x") == b"1"


def test_absolute_hard_link_targets_mean_the_root(tmp_path):
    unpack(archive(file(b"a/f", b"1"), hardlink(b"b", b"/a/f"), hardlink(b"c", b"./a/../a/f")), tmp_path)
    assert os.lstat(tmp_path / "a/f").st_nlink == 3


def test_extended_attributes_but_not_overlays_own(tmp_path):
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    unpack(
        archive(
            mkimg.pax(
                b"f",
                [
                    (b"SCHILY.xattr.security.capability", capability),
                    (b"SCHILY.xattr.trusted.overlay.opaque", b"y"),
                    (b"SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                    (b"SCHILY.xattr.user.overlay.metacopy", b""),
                    (b"SCHILY.xattr.user.note", b"a=b\n\0c"),
                ],
                content=b"x",
                uid=1,
                mode=0o4755,
            ),
            mkimg.pax(b"d/", [(b"SCHILY.xattr.trusted.overlay.opaque", b"y")], type=b"5", mode=0o755),
        ),
        tmp_path,
    )
    assert sorted(os.listxattr(tmp_path / "f")) == ["security.capability", "user.note"]
    assert os.getxattr(tmp_path / "f", "security.capability") == capability
    assert os.getxattr(tmp_path / "f", "user.note") == b"a=b\n\0c"
    assert stat.S_IMODE(os.lstat(tmp_path / "f").st_mode) == 0o4755
    assert os.listxattr(tmp_path / "d") == []


# dialects


def test_long_names_of_every_dialect(tmp_path):
    deep = b"/".join([b"d" * 30] * 8)
    unpack(
        archive(
            mkimg.gnu_long(b"L", deep + b"/gnu") + header(b"short", content=b"1", magic=b"ustar  \0"),
            mkimg.gnu_long(b"K", b"t" * 300) + header(b"gnulink", type=b"2", link=b"t", magic=b"ustar  \0"),
            mkimg.pax(b"short", [(b"path", deep + b"/pax")], content=b"2"),
            mkimg.pax(b"paxlink", [(b"linkpath", b"u" * 300)], type=b"2"),
            header(b"ustar", prefix=deep[:154], content=b"3"),
            header(b"v7", magic=b"", content=b"4"),
            header(b"v7dir/", magic=b"", type=b"\0"),
            header(b"g", type=b"g", content=b"19 comment=anything\n"),
        ),
        tmp_path,
    )
    base = tmp_path / os.fsdecode(deep)
    assert [read(base / "gnu"), read(base / "pax"), read(tmp_path / "v7")] == [b"1", b"2", b"4"]
    assert read(tmp_path / os.fsdecode(deep[:154]) / "ustar") == b"3"
    assert os.readlink(tmp_path / "gnulink") == "t" * 300
    assert os.readlink(tmp_path / "paxlink") == "u" * 300
    assert (tmp_path / "v7dir").is_dir()


def test_numbers_beyond_octal_and_fractions_of_seconds(tmp_path):
    unpack(
        archive(
            header(b"big", uid=4_000_000_000, gid=3_000_000),
            header(b"before", mtime=-86_400),
            mkimg.pax(b"pax", [(b"mtime", b"1.25"), (b"uid", b"3000000"), (b"gid", b"7")]),
            mkimg.pax(b"old", [(b"mtime", b"-1.5")]),
        ),
        tmp_path,
    )
    big = os.lstat(tmp_path / "big")
    assert (big.st_uid, big.st_gid) == (4_000_000_000, 3_000_000)
    assert os.lstat(tmp_path / "before").st_mtime == -86_400
    pax = os.lstat(tmp_path / "pax")
    assert (pax.st_mtime_ns, pax.st_uid, pax.st_gid) == (1_250_000_000, 3_000_000, 7)
    assert os.lstat(tmp_path / "old").st_mtime_ns == -1_500_000_000


def sparse_archives():
    """The same file, 1 MiB with "ab" at 4096 and "c" at its end, in the four formats."""
    real, extents, content = 1 << 20, [(4096, 2), ((1 << 20) - 1, 1)], b"abc"
    size, pairs = str(real).encode(), [str(n).encode() for extent in extents for n in extent]
    old = bytearray(header(b"s", type=b"S", content=content, magic=b"ustar  \0"))
    old[386 : 386 + 48] = mkimg.pack_extents(extents)
    old[483:495] = b"%011o\0" % real
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old[:512])
    numbers = [
        (key, value)
        for offset, length in zip(pairs[::2], pairs[1::2], strict=True)
        for key, value in ((b"GNU.sparse.offset", offset), (b"GNU.sparse.numbytes", length))
    ]
    body = (b"2\n" + b"\n".join(pairs) + b"\n").ljust(512, b"\0") + content
    name = (b"GNU.sparse.name", b"s")
    (b"GNU.sparse.map", b",".join(pairs))
    return {
        "gnu": bytes(old),
        "0.0": mkimg.pax(b"x", [(b"GNU.sparse.size", size), *numbers, (b"path", b"s")], content=content),
        "0.1": mkimg.pax(
            b"x", [(b"GNU.sparse.size", size), (b"GNU.sparse.map", b",".join(pairs)), name], content=content
        ),
        "1.0": mkimg.pax(
            b"x",
            [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), name, (b"GNU.sparse.realsize", size)],
            content=body,
        ),
    }


@pytest.mark.parametrize("kind", ["gnu", "0.0", "0.1", "1.0"])
def test_sparse_files(tmp_path, kind):
    unpack(archive(sparse_archives()[kind], file(b"next", b"n")), tmp_path)
    data = read(tmp_path / "s")
    assert len(data) == 1 << 20
    assert (data[4096:4098], data[-1:], data.strip(b"\0")[:2]) == (b"ab", b"c", b"ab")
    assert data.count(b"\0") == len(data) - 3
    assert os.lstat(tmp_path / "s").st_blocks * 512 < 1 << 17
    assert read(tmp_path / "next") == b"n"


# whiteouts


def test_whiteouts_in_overlays_form(tmp_path):
    unpack(
        archive(
            file(b".wh.gone"),
            file(b"d/.wh..wh..opq"),
            file(b"d/new", b"1"),
            file(b"e/.wh.dir"),
            directory(b"e/dir/"),
            file(b"e/dir/new", b"2"),
            file(b"f/kept", b"3"),
            file(b"f/.wh.kept"),
            directory(b"g/sub/"),
            file(b"g/.wh.sub"),
            file(b".wh.implied"),
            file(b"implied/new", b"4"),
            file(b".wh..wh.plnk/1.2"),
        ),
        tmp_path,
    )
    gone = os.lstat(tmp_path / "gone")
    assert (stat.S_ISCHR(gone.st_mode), gone.st_rdev) == (True, 0)
    for path in ("d", "e/dir", "g/sub", "implied"):
        assert os.getxattr(tmp_path / path, "trusted.overlay.opaque") == b"y", path
    assert read(tmp_path / "e/dir/new") == b"2"
    assert read(tmp_path / "f/kept") == b"3"
    assert not [name for name in names(tmp_path) if ".wh.." in name]


@pytest.mark.parametrize("name", [b".wh.", b".wh..", b".wh...", b"d/.wh..", b"d/.wh...", b"x/../.wh.."])
def test_whiteouts_of_nothing_and_of_parents_are_refused(tmp_path, name):
    root = tmp_path / "root"
    (tmp_path / "bystander").write_text("x")
    with pytest.raises(InvalidArgument):
        unpack(archive(directory(b"d/"), file(b"d/f", b"1"), file(name)), root)
    assert (root / "d/f").exists()
    assert (tmp_path / "bystander").exists()


# evil

EIB8 = (1 << 63) - 1
FIRST = {
    "symlink": lambda name, target: symlink(name, target),
    "hardlink": lambda name, target: hardlink(name, target),
}
TARGETS = {
    "absolute": "{canary}",
    "dotdot": "../../../../../../../../../../../..{canary}",
    "a/../..": "a/../../../../../../../../../../..{canary}",
    "proc": "/proc/self/root{canary}",
    "proc-relative": "../../../../../../../../proc/self/root{canary}",
    "dangling": "/no/such{canary}",
}
SECOND = {
    "file-through": lambda: file(b"evil/file", b"OVERWRITTEN"),
    "file-over": lambda: file(b"evil", b"OVERWRITTEN"),
    "new-file": lambda: file(b"evil/planted", b"OVERWRITTEN"),
    "directory": lambda: directory(b"evil/dir/", 0o777, uid=1234, mtime=99),
    "directory-over": lambda: directory(b"evil/", 0o777, uid=1234, mtime=99),
    "chmod": lambda: file(b"evil/exe", b"", mode=0o7777, uid=1234, mtime=99),
    "xattr": lambda: mkimg.pax(b"evil/file", [(b"SCHILY.xattr.user.evil", b"1")], content=b"x"),
    "fifo": lambda: header(b"evil/fifo", type=b"6", mode=0o777),
    "device": lambda: header(b"evil/dir/inner", type=b"3", device=(1, 3)),
    "symlink": lambda: symlink(b"evil/dir/inner", b"/etc/passwd"),
    "hardlink-from": lambda: hardlink(b"stolen", b"evil/file"),
    "hardlink-over": lambda: file(b"mine", b"m") + hardlink(b"evil/file", b"mine"),
    "whiteout": lambda: file(b"evil/.wh.file"),
    "whiteout-link": lambda: file(b".wh.evil"),
    "opaque": lambda: file(b"evil/.wh..wh..opq"),
    "deep": lambda: file(b"evil/dir/../file", b"OVERWRITTEN"),
}


@pytest.mark.parametrize(
    ("first", "target", "second"), list(itertools.product(FIRST, TARGETS, SECOND)), ids=lambda value: value
)
def test_nothing_outside_is_touched_through_links(tmp_path, canary, first, target, second):
    for aim in (canary, f"{canary}/file", f"{canary}/dir"):
        root = tmp_path / aim.replace("/", "_")
        where = TARGETS[target].format(canary=aim).encode()
        data = archive(directory(b"a/"), FIRST[first](b"evil", where), SECOND[second]())
        try:
            unpack(data, root)
        except InvalidArgument:
            pass
        for directory_path, _, files in os.walk(root):
            for name in files:
                path = os.path.join(directory_path, name)
                if stat.S_ISREG(os.lstat(path).st_mode):
                    with open(path, "rb") as opened:
                        assert b"canary" not in opened.read(), f"{path} leaks the host's file"


@pytest.mark.parametrize(
    "blocks",
    [
        [symlink(b"x/escape", b"../.."), symlink(b"a", b"x/escape"), file(b"a/absolute/file", b"E")],
        [symlink(b"up", b".."), symlink(b"up/up2", b".."), file(b"up/up2/planted", b"E")],
        [symlink(b"l", b"."), file(b"l/l/l/l/f", b"1")],
    ],
    ids=["chain", "nested", "loop"],
)
def test_chains_of_links_stay_inside(tmp_path, blocks):
    root = tmp_path / "in" / "root"
    try:
        unpack(archive(*blocks), root)
    except InvalidArgument:
        pass
    assert [name for name in names(tmp_path) if not name.startswith("in/root")] == ["in"]


@pytest.mark.parametrize(
    "name",
    [b"../planted", b"a/../../planted", b"/../planted", b"a/b/../../../planted", b"..", b"./../planted"],
)
@pytest.mark.parametrize("kind", [b"0", b"5", b"2", b"1", b"6", b"3"])
def test_names_outside_are_refused(tmp_path, name, kind):
    root = tmp_path / "in" / "root"
    with pytest.raises(InvalidArgument, match="outside of the root"):
        unpack(archive(file(b"f", b"x"), header(name, type=kind, link=b"f")), root)
    assert names(tmp_path) == ["in", "in/root", "in/root/f"]


@pytest.mark.parametrize("target", [b"../../../etc/passwd", b"", b"/", b"missing", b"dir"])
def test_hard_links_to_what_is_not_a_file_of_ours(tmp_path, target):
    with pytest.raises((InvalidArgument, OSError)):
        unpack(archive(directory(b"dir/"), hardlink(b"h", target)), tmp_path)


@pytest.mark.parametrize("kind", [b"0", b"1", b"2", b"3", b"6"])
@pytest.mark.parametrize("name", [b"", b".", b"./", b"/", b"a/.."])
def test_the_root_stays_a_directory(tmp_path, kind, name):
    if kind == b"0" and name.endswith(b"/"):
        return  # that is a directory, in the oldest dialect
    with pytest.raises(InvalidArgument):
        unpack(archive(header(name, type=kind, link=b"/tmp")), tmp_path)


def test_a_mode_on_a_link_changes_nothing_behind_it(tmp_path, canary):
    link = header(b"evil", type=b"2", link=f"{canary}/exe".encode(), mode=0o7777, uid=99)
    second = header(b"hard", type=b"1", link=b"evil", mode=0o7777, uid=99)
    unpack(archive(link, second), tmp_path)
    assert os.path.islink(tmp_path / "hard")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(file(b"f", b"x" * 100)[:300], id="truncated header"),
        pytest.param(file(b"f", b"x" * 1000)[:700], id="truncated content"),
        pytest.param(header(b"f", checksum=1), id="checksum"),
        pytest.param(header(b"f", raw_size=b"\xff" * 12), id="negative size"),
        pytest.param(header(b"f", raw_size=b"\x80" + b"\xff" * 11), id="size beyond 63 bits"),
        pytest.param(header(b"f", raw_size=b"12x4"), id="size no number"),
        pytest.param(header(b"f", raw_size=b"99"), id="size no octal"),
        pytest.param(header(b"f", type=b"Q"), id="unknown type"),
        pytest.param(header(b"x", type=b"x", content=b"5 a=b\nrubbish"), id="pax"),
        pytest.param(header(b"x", type=b"x", content=b"999999999999999999999 a=b\n"), id="pax length"),
        pytest.param(header(b"x", type=b"x", content=b"-5 a=b\n"), id="pax negative"),
        pytest.param(header(b"x", type=b"x", content=b"0 a=b\n"), id="pax zero"),
        pytest.param(mkimg.pax(b"f", [(b"size", b"9223372036854775808")]), id="pax size 2^63"),
        pytest.param(mkimg.pax(b"f", [(b"size", b"-1")]), id="pax size negative"),
        pytest.param(mkimg.pax(b"f", [(b"path", b"a\0b")]), id="pax NUL"),
        pytest.param(header(b"L", type=b"L", raw_size=b"77777777777"), id="huge long name"),
        pytest.param(header(b"x", type=b"x", raw_size=b"77777777777"), id="huge pax"),
        pytest.param(file(b"f", b"") + bytes(512) + file(b"g"), id="data after a zero block"),
        pytest.param(mkimg.pax(b"f", [(b"path", b"d/" * 300 + b"f")]), id="deep"),
        pytest.param(mkimg.pax(b"f", [(b"path", b"n" * 256)]), id="name too long"),
        pytest.param(
            mkimg.pax(
                b"f", [(b"GNU.sparse.map", b"0,9223372036854775807"), (b"GNU.sparse.size", b"9223372036854775807")]
            ),
            id="sparse 8 EiB",
        ),
        pytest.param(
            mkimg.pax(b"f", [(b"GNU.sparse.map", b"5,2,1,1"), (b"GNU.sparse.size", b"10")], content=b"abc"),
            id="overlap",
        ),
        pytest.param(mkimg.pax(b"f", [(b"GNU.sparse.map", b"1"), (b"GNU.sparse.size", b"10")]), id="odd map"),
        pytest.param(header(b"f", type=b"3", device=(4096, 0)), id="device number"),
        pytest.param(b"not a tar at all" * 64, id="text"),
    ],
)
def test_damaged_archives_end_in_one_kind_of_error(tmp_path, data):
    with pytest.raises(InvalidArgument):
        unpack(data + bytes(1024) if not data.startswith(b"not") and len(data) % 512 == 0 else data, tmp_path)


def test_sparse_promises_are_held_against_the_limits(tmp_path):
    records = [(b"GNU.sparse.map", b"0,1"), (b"GNU.sparse.size", str(1 << 60).encode())]
    with pytest.raises(InvalidArgument, match="unpacks to more than"):
        unpack(archive(mkimg.pax(b"f", records, content=b"x")), tmp_path)
    assert names(tmp_path) == []


def test_limits_on_entries_and_content(tmp_path):
    with pytest.raises(InvalidArgument, match="more than 3 entries"):
        unpack(archive(*[file(b"f%d" % n) for n in range(4)]), tmp_path, Limits(entries=3))
    with pytest.raises(InvalidArgument, match="more than the 9 bytes"):
        unpack(archive(file(b"a", b"12345"), file(b"b", b"12345")), tmp_path, Limits(content=9))


def test_many_directories_do_not_use_up_descriptors(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    last = mkimg.pax(b"f", [(b"path", b"/".join([b"d"] * 200) + b"/f")], content=b"x")
    unpack(archive(*[file(b"d%d/e/f" % n, b"x") for n in range(300)], last), tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before
    assert len([name for name in names(tmp_path) if name.endswith("/e/f")]) == 300


def test_no_space_names_the_file(tmp_path):
    class Full(OSError):
        pass

    def spend(length):
        raise Full(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        reader = TarReader(StreamSource(mkimg.stream(archive(file(b"f", b"x")))))
        with pytest.raises(OSError, match=r'No space left on device.*"f"') as caught:
            LayerExtractor(fd, spend=spend).extract(reader)
    finally:
        os.close(fd)
    assert caught.value.errno == errno.ENOSPC
