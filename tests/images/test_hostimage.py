"""Images of this host's programs: what is in them runs in a root of its own, and the same goes in twice alike."""

import io
import json
import os
import subprocess
import sys
import tarfile

import pytest

from tests.images.mkimg import stream
from wherry.hostimage import build_archive, elf
from wherry.hostimage.collect import Collector, MissingError, applets
from wherry.hostimage.libraries import Finder, configured_directories
from wherry.hostimage.tree import Tree

EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}


def build(*programs, **options):
    out = io.BytesIO()
    build_archive(out, "host/test:1", list(programs), environment=EPOCH, **options)
    return out.getvalue()


@pytest.fixture
def run_in(store, tmp_path):
    """Run a command with the image's (only) layer as its root."""

    def run(data, *command):
        (image,) = store.load(stream(data))
        (root,) = store.lower_dirs(image)
        script = "import os,sys; os.chroot(sys.argv[1]); os.chdir('/'); os.execv(sys.argv[2], sys.argv[2:])"
        result = subprocess.run(
            [sys.executable, "-c", script, root, *command], capture_output=True, text=True, timeout=60, env={}
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


def test_a_dynamic_program_runs(run_in):
    listing = run_in(build("ls"), "/bin/ls", "-a", "/").split()
    assert {"etc", "tmp", "usr", "proc", "dev"} <= set(listing)


def test_a_script_brings_its_interpreters(run_in, tmp_path):
    script = tmp_path / "hello"
    script.write_text("#!/usr/bin/env sh\necho hello from $0\n")
    script.chmod(0o755)
    assert run_in(build(str(script)), str(script)) == f"hello from {script}\n"


def test_python_with_its_standard_library(run_in):
    program = "import ssl, sqlite3, json, ctypes, lzma, zlib; print(json.dumps(1 + 1))"
    data = build(python=True)
    (interpreter,) = config(data)["config"]["Cmd"]
    assert run_in(data, interpreter, "-c", program) == "2\n"
    names = members(data)
    assert not [name for name in names if "/test/" in name or "__pycache__" in name or "site-packages" in name]


def layer_of(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tarfile.open(fileobj=io.BytesIO(tar.extractfile("layer.tar").read()))


def members(data):
    return {member.name: member for member in layer_of(data)}


def config(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        (item,) = json.load(tar.extractfile("manifest.json"))
        return json.load(tar.extractfile(item["Config"]))


def test_the_same_files_give_the_same_archive():
    first = build("ls", with_paths=["/etc/ld.so.conf.d"])
    assert build("ls", with_paths=["/etc/ld.so.conf.d"]) == first
    assert {member.mtime for member in members(first).values()} == {1_700_000_000}
    assert {(member.uid, member.gid) for member in members(first).values()} == {(0, 0)}
    assert config(first)["created"] == "2023-11-14T22:13:20Z"
    without = io.BytesIO()
    build_archive(without, "host/test:1", ["ls"], environment={})
    again = io.BytesIO()
    build_archive(again, "host/test:1", ["ls"], environment={})
    assert without.getvalue() == again.getvalue()


def test_links_on_the_way_are_kept(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("x")
    (tmp_path / "a").symlink_to("real")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    tree = Tree()
    assert tree.take(f"{tmp_path}/b/file") == f"{tmp_path}/real/file"
    kinds = {os.path.relpath(path, tmp_path): node.kind for path, node in tree.nodes.items() if path > str(tmp_path)}
    assert kinds == {"a": "link", "b": "link", "real": "directory", "real/file": "file"}
    os.symlink("loop", tmp_path / "loop")
    with pytest.raises(OSError, match="symbolic links"):
        tree.take(f"{tmp_path}/loop")


def test_essentials():
    names = members(build("ls"))
    assert names["tmp"].mode == 0o1777
    assert layer_of(build("ls")).extractfile("etc/passwd").read().startswith(b"root:x:0:0:")
    assert {"etc/group", "etc/nsswitch.conf", "proc", "sys", "dev"} <= set(names)


def test_busybox_gets_its_applets(tmp_path):
    table = b"\0[\0[[\0acpid\0cat\0ls\0sh\0zcat\0\0other\0"
    box = tmp_path / "busybox"
    box.write_bytes(b"some code" + table)
    box.chmod(0o755)
    assert applets(str(box)) == ["[", "[[", "acpid", "cat", "ls", "sh", "zcat"]
    tree = Tree()
    Collector(tree).program(str(box))
    assert tree.nodes["/bin/zcat"].target == str(box)


def test_what_is_missing_is_named(tmp_path):
    for program in ("no-such-program", str(tmp_path / "nothing")):
        with pytest.raises(MissingError, match="no such program"):
            build(program)
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(MissingError, match="/no/such/interpreter"):
        build(str(script))
    with pytest.raises(MissingError, match="not on this host"):
        build("ls", with_paths=["/no/such/path"])
    with pytest.raises(MissingError, match=r"needs lib.*which is not on this host"):
        Collector(Tree(), Finder([str(tmp_path)])).program("ls")


def test_nothing_is_executed(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("executed")

    for name in ("system", "posix_spawn", "fork", "execv", "execve"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    build("ls")


def test_damaged_elf_files_are_none(tmp_path):
    with open("/bin/ls", "rb") as file:
        data = file.read(4096)
    assert elf.read("/bin/ls").interpreter
    assert elf.read("/bin/ls").needed
    for cut in range(0, 600, 13):
        (tmp_path / "cut").write_bytes(data[:cut])
        elf.read(tmp_path / "cut")
    for at in range(16, 600):
        mutant = bytearray(data)
        mutant[at] ^= 0xFF
        (tmp_path / "mutant").write_bytes(mutant)
        elf.read(tmp_path / "mutant")


def test_search_paths(tmp_path):
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "ld.so.conf").write_text("include conf.d/*.conf\n/opt/lib # comment\nrelative\n")
    (tmp_path / "conf.d" / "a.conf").write_text("/first\n")
    (tmp_path / "conf.d" / "loop.conf").write_text(f"include {tmp_path}/ld.so.conf\n")
    found = configured_directories(str(tmp_path / "ld.so.conf"))
    assert found[0] == "/first"
    assert found[-1] == "/opt/lib"
    assert "relative" not in found


def test_a_file_that_is_no_program_is_refused(tmp_path):
    (tmp_path / "notes").write_text("not to be run")
    with pytest.raises(MissingError, match="notes: not executable: a file that is no program goes in by --with"):
        Collector(Tree()).program(str(tmp_path / "notes"))
