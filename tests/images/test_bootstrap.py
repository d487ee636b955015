"""Base images of a distribution's packages; the tools that fetch those are played, since no test leaves the machine."""

import io
import json
import os
import stat
import tarfile

import pytest

from tests.images.shop import load
from wherry.hostimage.bootstrap import BootstrapError, Wanted, bootstrap, parse_name

# What the real ones do with the arguments they get here: a tar to standard output, a tree in a directory.
MMDEBSTRAP = """#!/bin/sh
echo "$@" > "$SAID"
echo "I: running apt-get update..." >&2
case "$*" in
*nosuch*) echo "E: no Release file" >&2; exit 25 ;;
*unsigned*) echo "W: The repository is not signed: NO_PUBKEY 871920D1991BC93C" >&2; exit 25 ;;
esac
exec tar -C "$TREE" --sort=name --mtime=@1000 --owner=0 --group=0 --numeric-owner -c .
"""
DEBOOTSTRAP = """#!/bin/sh
echo "$@" > "$SAID"
echo "I: Retrieving InRelease"
for root; do case "$root" in /*) break ;; esac; done
cp -a "$TREE/." "$root"
mkdir -p "$root/var/log/apt" "$root/var/cache/apt/archives" "$root/var/lib/apt/lists/partial"
for junk in var/log/bootstrap.log var/log/apt/term.log var/cache/apt/archives/x.deb var/lib/apt/lists/y; do
    date +%N > "$root/$junk"
done
"""


@pytest.fixture
def tools(tmp_path):
    """A function that makes tools, and the environment in which nothing else is found but the shell's own."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "tree/etc").mkdir(parents=True)
    (tmp_path / "tree/etc/os-release").write_text("ID=debian\n")
    os.symlink("etc/os-release", tmp_path / "tree/release")
    os.mknod(tmp_path / "tree/socket", stat.S_IFSOCK)
    os.utime(tmp_path / "tree/etc/os-release", (5000, 5000))
    for name in ("sh", "tar", "cp", "mkdir", "date", "cat"):
        os.symlink(f"/usr/bin/{name}", tmp_path / "bin" / name)
    environment = {"PATH": str(tmp_path / "bin"), "TREE": str(tmp_path / "tree"), "SAID": str(tmp_path / "said")}

    def make(**scripts):
        for name, script in scripts.items():
            (tmp_path / "bin" / name).write_text(script)
            (tmp_path / "bin" / name).chmod(0o755)
        return environment

    return make


def made(environment, wanted, monkeypatch):
    """(archive, id, what was told) of one image."""
    monkeypatch.setenv("PATH", environment["PATH"])
    out, told = io.BytesIO(), []
    image_id = bootstrap(out, wanted, "debian:bookworm", told.append, environment=environment)
    return out.getvalue(), image_id, told


@pytest.mark.parametrize(
    "text", ["debian", "debian:", ":bookworm", "debian:-x", "debian:a b", "debian:../x", "a:b:c", ""]
)
def test_what_is_no_release(text):
    with pytest.raises(BootstrapError, match="as in debian:bookworm"):
        parse_name(text)


def test_names():
    assert parse_name("debian:bookworm") == ("debian", "bookworm")
    assert parse_name("ubuntu:noble-updates") == ("ubuntu", "noble-updates")


def test_mmdebstrap_makes_an_image(tools, store, tmp_path, monkeypatch):
    environment = tools(mmdebstrap=MMDEBSTRAP, debootstrap="#!/bin/sh\nexit 1\n") | {"SOURCE_DATE_EPOCH": "1700000000"}
    wanted = Wanted("debian", "bookworm", "http://mirror/x", "apt", ["curl", "less"], ["A::B false"])
    data, image_id, _ = made(environment, wanted, monkeypatch)
    expected = (
        "--variant=apt --format=tar --include=curl --include=less --aptopt=A::B false -- bookworm - http://mirror/x"
    )
    assert (tmp_path / "said").read_text().strip() == expected
    assert made(environment, wanted, monkeypatch)[:2] == (data, image_id), "the same again, to the bit"
    (image,), _ = load(store, data)
    assert image.id == image_id
    assert image.repo_tags == ["debian:bookworm"]
    assert image.created == "2023-11-14T22:13:20Z"
    assert image.config["Cmd"] == ["bash"]
    assert image.history[0].created_by == "wherry image bootstrap debian:bookworm"
    with open(f"{store.lower_dirs(image)[0]}/etc/os-release") as file:
        assert file.read() == "ID=debian\n"


def test_debootstrap_makes_one_where_that_is_not_there(tools, monkeypatch, store):
    environment = tools(debootstrap=DEBOOTSTRAP) | {"SOURCE_DATE_EPOCH": "3000"}
    data, image_id, told = made(environment, Wanted("debian", "bookworm", include=["a", "b"]), monkeypatch)
    assert told == ["I: Retrieving InRelease"]
    assert made(environment, Wanted("debian", "bookworm"), monkeypatch)[1] == image_id, "logs and caches are left out"
    with tarfile.open(fileobj=io.BytesIO(data)) as outer:
        (item,) = json.load(outer.extractfile("manifest.json"))
        with tarfile.open(fileobj=outer.extractfile(item["Layers"][0])) as layer:
            members = {member.name: member for member in layer}
    assert {"etc/os-release", "release", "var/log/apt", "var/cache/apt/archives"} <= set(members)
    assert not {"socket", "var/log/bootstrap.log", "var/log/apt/term.log", "var/lib/apt/lists/y"} & set(members)
    assert max(member.mtime for member in members.values()) <= 3000
    load(store, data)


def test_failures_say_what_to_do(tools, monkeypatch):
    with pytest.raises(BootstrapError, match="apt-get install mmdebstrap"):
        made(tools(), Wanted("debian", "bookworm"), monkeypatch)
    environment = tools(mmdebstrap=MMDEBSTRAP)
    with pytest.raises(BootstrapError, match=r"mmdebstrap failed:\n.*\n  E: no Release file"):
        made(environment, Wanted("debian", "nosuch"), monkeypatch)
    with pytest.raises(BootstrapError, match="install its keyring package"):
        made(environment, Wanted("debian", "unsigned"), monkeypatch)
    with pytest.raises(ValueError, match="invalid literal"):
        made(environment | {"SOURCE_DATE_EPOCH": "x"}, Wanted("debian", "bookworm"), monkeypatch)
    os.unlink(f"{environment['PATH']}/mmdebstrap")
    with pytest.raises(BootstrapError, match="takes no apt options"):
        made(tools(debootstrap=DEBOOTSTRAP), Wanted("debian", "x", apt_options=["A"]), monkeypatch)
