"""The archives that `cp` makes of local files, and what it makes of archives, where headers have no room."""

import io
import os
import tarfile

import pytest

from wherry.cli.localtar import pack, unpack

CAPABILITY = bytes.fromhex("01000002ff040000ff000000000000fe00000000")
LONG = "n" * 150


@pytest.fixture
def tree(tmp_path):
    """Files that a plain header cannot describe."""
    top = tmp_path / "tree"
    (top / ("d" * 90) / ("e" * 90)).mkdir(parents=True)
    (top / ("d" * 90) / ("e" * 90) / LONG).write_text("deep")
    (top / LONG).write_text("long")
    os.link(top / LONG, top / "zhard")
    (top / "link").symlink_to(LONG)
    (top / "ümlaut").write_text("x")
    (top / os.fsdecode(b"bad\xff")).write_text("x")
    (top / "owned").write_text("x")
    os.chown(top / "owned", 3_000_000, 4_000_000)
    (top / "capable").write_text("x")
    os.setxattr(top / "capable", "security.capability", CAPABILITY)
    (top / "past").write_text("x")
    os.utime(top / "past", ns=(0, -1_500_000_000))
    return top


def test_what_has_no_room_in_a_header(tree):
    with tarfile.open(fileobj=io.BytesIO(b"".join(pack(str(tree), "x")))) as archive:
        members = {member.name: member for member in archive}
    assert f"x/{'d' * 90}/{'e' * 90}/{LONG}" in members
    assert members[f"x/{LONG}"].size == 4
    assert (members["x/zhard"].islnk(), members["x/zhard"].linkname) == (True, f"x/{LONG}")
    assert members["x/link"].linkname == LONG
    assert {"x/ümlaut", os.fsdecode(b"x/bad\xff")} <= set(members)
    assert (members["x/owned"].uid, members["x/owned"].gid) == (3_000_000, 4_000_000)
    kept = members["x/capable"].pax_headers["SCHILY.xattr.security.capability"]
    assert kept.encode("utf-8", "surrogateescape") == CAPABILITY
    assert members["x/past"].mtime == -2  # the second it was in, as Docker has it


def test_a_tree_comes_back_as_it_was(tree, tmp_path):
    data = io.BytesIO(b"".join(pack(str(tree), "tree")))
    (tmp_path / "back").mkdir()
    unpack(data.read, str(tmp_path / "back"), None)
    back = tmp_path / "back/tree"
    assert sorted(os.walk(back))[0][1:] == sorted(os.walk(tree))[0][1:]
    assert (back / ("d" * 90) / ("e" * 90) / LONG).read_text() == "deep"
    assert os.path.samefile(back / "zhard", back / LONG)
    assert os.readlink(back / "link") == LONG
    assert os.getxattr(back / "capable", "security.capability") == CAPABILITY
    assert (back / "owned").stat().st_uid == os.geteuid()
    assert (back / "past").stat().st_mtime_ns == -2_000_000_000


def archive_of(**pax):
    """An archive of one file with such extended headers."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("f")
        info.pax_headers = pax
        archive.addfile(info)
    return io.BytesIO(out.getvalue())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1700000000.123456789", 1_700_000_000_123_456_789),
        ("1700000000.5", 1_700_000_000_500_000_000),
        ("1700000000.1234567899", 1_700_000_000_123_456_789),
        ("-1.5", -1_500_000_000),
        ("12", 12_000_000_000),
    ],
)
def test_times_are_exact(tmp_path, text, expected):
    unpack(archive_of(mtime=text).read, str(tmp_path), None)
    assert (tmp_path / "f").stat().st_mtime_ns == expected


def test_an_engine_sets_no_attributes_of_the_host(tmp_path):
    pax = {f"SCHILY.xattr.{name}": "y" for name in ("trusted.overlay.opaque", "security.selinux", "user.mine")}
    unpack(archive_of(**pax).read, str(tmp_path), None)
    assert not {"trusted.overlay.opaque", "security.selinux"} & set(os.listxattr(tmp_path / "f"))
