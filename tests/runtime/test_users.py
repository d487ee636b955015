"""USER and the two files it is looked up in, without a container."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.runtime.failure import StartError
from wherry.runtime.users import MAX_ID, User, additional_groups, home_of, read_database, resolve

PASSWD = b"""# comment
root:x:0:0:root:/root:/bin/sh
  bob:x:1000:1001:Bob:/home/bob:/bin/sh
1000:x:0:0::/trap:/bin/sh
odd
bob:x:5:5::/second:
many:x:12:12
neg:x:-5:0::/:
huge:x:4294967296:0::/:
nohome:x:14:14:::
"""
GROUP = b"""root:x:0:
staff:x:50:bob,many
empty:x:60:
late:x:70:alice,bob
4000:x:0:
bad:x:99999999999:
"""


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", User(0, 0, (), "/root")),
        ("root", User(0, 0, (), "/root")),
        ("bob", User(1000, 1001, (50, 70), "/home/bob")),
        ("1000", User(1000, 1001, (50, 70), "/home/bob")),  # the id, never the user of that name
        ("01000", User(1000, 1001, (50, 70), "/home/bob")),
        ("bob:empty", User(1000, 60, (), "/home/bob")),
        ("bob:4000", User(1000, 4000, (), "/home/bob")),
        ("bob:9", User(1000, 9, (), "/home/bob")),
        ("77", User(77, 0, (), "/")),
        ("77:88", User(77, 88, (), "/")),
        ("many", User(12, 12, (50,), "")),
        (f"{MAX_ID}:{MAX_ID}", User(MAX_ID, MAX_ID, (), "/")),
    ],
)
def test_resolve(text: str, user: User) -> None:
    assert resolve(text, PASSWD, GROUP) == user


@pytest.mark.parametrize(
    "text",
    [
        "nope",
        "bob:nope",
        "-1",
        f"{MAX_ID + 1}",
        "4294967295",
        "4294967296",
        "1:4294967296",
        "neg",
        "huge",
        "0x0",
        " 0",
        "bob:bad",
    ],
)
def test_resolve_refuses(text: str) -> None:
    with pytest.raises(StartError) as caught:
        resolve(text, PASSWD, GROUP)
    assert caught.value.kind == "InvalidArgument"


@given(st.binary(max_size=300), st.binary(max_size=300), st.text(max_size=20))
def test_no_content_gives_ids_out_of_range(passwd: bytes, group: bytes, text: str) -> None:
    try:
        user = resolve(text, passwd, group)
    except StartError:
        return
    assert all(0 <= number <= MAX_ID for number in (user.uid, user.gid, *user.groups))


def test_additional_groups() -> None:
    assert additional_groups(("staff", "9", "late"), GROUP) == (50, 9, 70)
    with pytest.raises(StartError, match="unable to find group zz: no matching entries in group file"):
        additional_groups(("zz",), GROUP)


def test_home() -> None:
    assert [home_of(uid, PASSWD) for uid in (0, 1000, 14, 99)] == ["/root", "/home/bob", "/", "/"]


def test_read_database(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_bytes(PASSWD)
    (tmp_path / "inside").symlink_to("/passwd")
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate((10 << 20) + 1)
    (tmp_path / "lines").write_bytes(b"\n" * 200_001)
    root = os.open(tmp_path, os.O_PATH)
    try:
        assert read_database(root, "/inside") == PASSWD
        assert read_database(root, "/missing") == b""
        for name in ("/dir", "/fifo", "/sparse", "/lines"):
            with pytest.raises(StartError, match=name):
                read_database(root, name)
    finally:
        os.close(root)


def test_files_of_procfs_are_not_read() -> None:
    """A link to /proc/kmsg would take the kernel's messages away from the host."""
    root = os.open("/", os.O_PATH)
    try:
        assert read_database(root, "/proc/version") == b""
    finally:
        os.close(root)
