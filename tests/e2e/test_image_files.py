"""`image flatten`, `diff` and `tree` on a real engine, and a name that docker's own grammar must not take for them."""

import io
import json
import tarfile

import pytest

from tests.e2e.host import Host
from tests.images import mkimg
from tests.images.mkimg import archive, digest, directory, docker_archive, file, hardlink, pax, symlink

BASE = archive(
    directory(b"etc/"),
    file(b"etc/same", b"equal", mtime=1000),
    file(b"etc/gone", b"12345"),
    file(b"etc/mode", b"m", mode=0o600),
    directory(b"old/"),
    file(b"old/a", b"1" * 1000),
    file(b"old/b", b"2" * 500),
    directory(b"dir/"),
    file(b"dir/x", b"first", mtime=7),
)
TOP = archive(
    file(b"etc/.wh.gone"),
    file(b".wh.old"),
    pax(
        b"new",
        [(b"SCHILY.xattr.user.note", b"kept"), (b"mtime", b"12.345678901"), (b"SCHILY.xattr.security.capability",
          b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")],
        content=b"n" * 2000, mode=0o4755, uid=12, gid=34,
    ),
    hardlink(b"hard", b"new"),
    symlink(b"link", b"/etc/same"),
    directory(b"dir/", mode=0o700),
    file(b"dir/.wh..wh..opq"),
    file(b"dir/x", b"other", mtime=7),  # of the same size and time
)  # fmt: skip


@pytest.fixture
def images(host):
    """files:base, and files:top on it."""
    for name, layers in (("files:base", [BASE]), ("files:top", [BASE, TOP])):
        config = mkimg.config(layers, config={"Cmd": ["/new"], "Labels": {"kept": "yes"}, "Env": ["A=1"]})
        host.docker("load", input=docker_archive(layers, [name], config_data=config), text=False)
    yield
    host.docker("rmi", "-f", "files:base", "files:top", "files:flat", check=False)


def test_diff_tells_paths_kinds_and_sizes(host, images):
    out = host.wherry("image", "diff", "files:base", "files:top").stdout
    assert out.splitlines() == [
        "C /dir",
        "C /dir/x (5B)",
        "C /etc",
        "D /etc/gone (5B)",
        "A /hard (2kB)",
        "A /link (9B)",
        "A /new (2kB)",
        "D /old (1.5kB)",
    ]
    back = host.wherry("image", "diff", "--format", "{{.Kind}}{{.Path}}={{.Bytes}}", "files:top", "files:base").stdout
    assert {"A/old=0", "A/old/a=1000", "A/etc/gone=5", "D/new=2000"} <= set(back.split())
    assert host.wherry("image", "diff", "files:top", "files:top").stdout == ""
    first = json.loads(
        host.wherry("image", "diff", "--format", "json", "files:base", "files:top").stdout.splitlines()[1]
    )
    assert first == {"Bytes": 5, "Kind": "C", "Path": "/dir/x", "Size": "5B"}
    assert "No such image: nosuch:latest" in host.wherry("image", "diff", "files:base", "nosuch", check=False).stderr


def test_flatten_keeps_files_and_configuration_in_one_layer(host, images):
    made = host.wherry("image", "flatten", "-t", "files:flat", "files:top").stdout.strip()
    assert host.wherry("image", "flatten", "files:top").stdout.strip() == made, "equal files, equal image"
    flat, top = host.inspect("files:flat"), host.inspect("files:top")
    assert flat["Id"] == made
    assert len(flat["RootFS"]["Layers"]) == 1
    assert {key: flat[key] for key in ("Config", "Architecture", "Os", "Created")} == {
        key: top[key] for key in ("Config", "Architecture", "Os", "Created")
    }
    (step,) = host.api("GET", "/images/files:flat/history")[1]
    assert (step["CreatedBy"], step["Comment"]) == ("wherry image flatten", f"of {top['Id']}")
    assert host.wherry("image", "diff", "files:top", "files:flat").stdout == ""
    saved = host.docker("save", "files:flat", text=False).stdout
    with tarfile.open(fileobj=io.BytesIO(saved)) as outer:
        (item,) = json.load(outer.extractfile("manifest.json"))
        with tarfile.open(fileobj=outer.extractfile(item["Layers"][0])) as layer:
            members = {member.name: member for member in layer}
    assert sorted(members) == ["dir", "dir/x", "etc", "etc/mode", "etc/same", "hard", "link", "new"]
    assert members["new"].type == tarfile.LNKTYPE
    assert members["hard"].pax_headers["SCHILY.xattr.user.note"] == "kept"
    assert "SCHILY.xattr.security.capability" in members["hard"].pax_headers
    assert members["hard"].pax_headers["mtime"] == "12.345678901"
    assert (members["hard"].mode, members["hard"].uid, members["hard"].gid) == (0o4755, 12, 34)
    assert members["dir"].mode == 0o700


def test_tree_says_who_shares_layers(host, images):
    lines = host.wherry("image", "tree", "files:top").stdout.splitlines()
    assert lines[0].startswith("files:top (")
    assert lines[0].endswith(") 3.53kB, 2.014kB of its own")
    assert lines[1] == f"├── {digest(BASE)[7:19]} 1.516kB, shared with files:base"
    assert lines[2] == f"└── {digest(TOP)[7:19]} 2.014kB"
    found = [json.loads(line) for line in host.wherry("image", "tree", "--format", "json").stdout.splitlines()]
    (top,) = [each for each in found if each["Names"] == ["files:top"]]
    assert [layer["SharedBy"] for layer in top["Layers"]] == [["files:base"], []]
    assert "No such image" in host.wherry("image", "tree", "nosuch", check=False).stderr


def test_images_called_like_our_routes(host, images):
    """The extensions take no name away from Docker's routes."""
    for name in ("layers:latest", "changes", "x/flatten:1", "get/changes"):
        host.docker("tag", "files:base", name)
        assert host.inspect(name)["Id"] == host.inspect("files:base")["Id"]
        assert host.out("history", "-q", name)
        host.docker("rmi", name)


def test_without_overlay(tmp_path):
    own = Host("--storage-driver", "vfs").start()
    try:
        for name, layers in (("files:base", [BASE]), ("files:top", [BASE, TOP])):
            own.docker("load", input=docker_archive(layers, [name], config_data=mkimg.config(layers)), text=False)
        lines = own.wherry("image", "diff", "files:base", "files:top").stdout.splitlines()
        assert {"D /etc/gone (5B)", "C /dir/x (5B)", "A /new (2kB)"} <= set(lines)
        own.wherry("image", "flatten", "-t", "files:flat", "files:top")
        assert own.wherry("image", "diff", "files:top", "files:flat").stdout == ""
        own.docker("rmi", "files:base", "files:top", "files:flat")
        assert own.layers() == []
    finally:
        own.close()
