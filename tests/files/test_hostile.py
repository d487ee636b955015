"""Containers that work against those who copy from and to them (CVE-2018-15664, -2019-14271, -2021-41089,
-2026-41567, -2026-41568)."""

import hashlib
import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from ..e2e.host import Host, busybox_tar
from . import cases

TOKEN = "canary-4f1c9e"
ROUNDS = 150
# Exchanges a directory with links that lead out, as fast as it can.
SWAPPER = """mkdir -p /s/real /s/keep; echo inside >/s/real/file; ln -s / /s/evil; ln -s %s /s/host
while true; do mv /s/real /s/x; mv /s/host /s/real; mv /s/real /s/host; mv /s/evil /s/real; mv /s/real /s/evil
mv /s/x /s/real; done"""


@pytest.fixture(scope="module")
def host():
    ours = Host().start()
    ours.docker("import", "-", cases.IMAGE, input=busybox_tar(), text=False)
    yield ours
    ours.close()


@pytest.fixture
def canary(tmp_path):
    """A directory of the host that nobody may read or change."""
    directory = tmp_path / "canary"
    directory.mkdir(mode=0o711)
    (directory / "file").write_text(TOKEN)
    (directory / "file").chmod(0o600)
    before = fingerprint(directory)
    yield directory
    assert fingerprint(directory) == before


def fingerprint(directory: Path) -> list[object]:
    def of(path: Path) -> tuple[object, ...]:
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(status.st_mode) else ""
        return path.name, status.st_mode, status.st_uid, status.st_mtime_ns, status.st_nlink, content

    return [of(directory), *(of(path) for path in sorted(directory.iterdir()))]


@pytest.fixture
def swapper(host, canary):
    lab = cases.Lab(f"{host.root}/wherry.sock")
    lab.create("s", {"Cmd": ["sh", "-c", SWAPPER % canary]}, start=True)
    host.wait_until(lambda: lab.head("s", "/s/keep")[0] == 200, "the first round")
    yield lab
    lab.close()


def test_reading_stays_inside(swapper):
    seen = set()
    for at in range(ROUNDS):
        path = ("/s/real", "/s/real/file", "/s/real/", "/s", "/s/real/.")[at % 5]
        status, headers, data = swapper.client.call("GET", swapper._archive("s", path))
        seen.add(status)
        assert TOKEN.encode() not in data
        assert TOKEN not in str(headers)
    assert 200 in seen


def test_writing_stays_inside(swapper, canary):
    archive = cases.tar(
        cases.new("file", mode=0o777),
        {"name": "sub", "type": cases.DIRECTORY, "mode": 0o777, "uid": 5},
        cases.new("sub/file"),
        {"name": "file", "type": cases.tarfile.FIFOTYPE, "mode": 0o777},
    )
    seen = {swapper.put("s", ("/s/real", "/s/real/.")[at % 2], archive)[0] for at in range(ROUNDS)}
    assert 200 in seen
    assert sorted(os.listdir(canary)) == ["file"]


def test_export_diff_and_commit_stay_inside(swapper):
    for _ in range(10):
        _, _, data = swapper.client.call("GET", f"/containers/{swapper.ids['s']}/export")
        assert TOKEN.encode() not in data
        assert swapper.client.call("GET", f"/containers/{swapper.ids['s']}/changes")[0] == 200
    status, answer = swapper.client.json("POST", f"/commit?container={swapper.ids['s']}&pause=0")
    assert status == 201
    assert swapper.client.call("DELETE", f"/images/{answer['Id']}?force=1")[0] == 200


def test_a_volume_below_a_swapped_directory(host, canary):
    """The mount point of a volume is resolved in the root, whatever its parent has become."""
    lab = cases.Lab(f"{host.root}/wherry.sock")
    try:
        body = {"HostConfig": {"NetworkMode": "none", "Binds": ["wf-swap:/a/b/vol"]}}
        lab.create("v", body)
        link = cases.tar(
            {"name": "a", "type": cases.DIRECTORY}, {"name": "a/b", "type": cases.SYMLINK, "link": str(canary)}
        )
        lab.create("w")
        assert lab.put("w", "/", link)[0] == 200
        image = lab.client.json("POST", f"/commit?container={lab.ids['w']}&repo=wf-swap")[1]["Id"]
        lab.create("x", {**body, "Image": image})
        for name in ("v", "x"):
            assert lab.put(name, "/a/b/vol", cases.tar(cases.new("x")))[0] == 200
            assert [m[0] for m in lab.get(name, "/a/b/vol")[3]] == ["vol", "vol/x"]
        assert not [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "wf-swap" in line]
        # the other half: links of an image lead on, inside
        assert lab.put("x", "/", cases.tar({"name": "run", "type": cases.DIRECTORY, "mode": 0o755}))[0] == 200
        assert lab.put("x", "/var", cases.tar({"name": "run", "type": cases.SYMLINK, "link": "/run"}))[0] == 200
        assert lab.put("x", "/var/run", cases.tar(cases.new("pid")))[0] == 200
        assert lab.head("x", "/run/pid")[0] == 200
    finally:
        lab.close()
        lab.client.call("DELETE", "/images/wf-swap?force=1")
        lab.client.call("DELETE", "/volumes/wf-swap")


def test_nothing_of_the_container_is_run(host):
    """Decompressors and libraries with the names a careless engine would look for."""
    script = b"#!/bin/sh\necho ran >/ran\n"
    names = ("usr/bin/xz", "usr/bin/unpigz", "usr/bin/gzip", "usr/bin/zstd", "bin/gzip", "etc/ld.so.preload")
    names += ("lib/x86_64-linux-gnu/libnss_files.so.2", "usr/lib/python3/encodings/__init__.py", "sitecustomize.py")
    lab = cases.Lab(f"{host.root}/wherry.sock")
    try:
        lab.create("t", start=True)
        traps = cases.tar(*({**cases.new(name, mode=0o755), "data": script} for name in names))
        assert lab.put("t", "/", traps)[0] == 200
        archive = cases.tar(cases.new("x"))
        for data in (cases.gzip.compress(archive), cases.bz2.compress(archive), b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"):
            lab.put("t", "/tmp", data)
        lab.get("t", "/")
        lab.client.call("GET", f"/containers/{lab.ids['t']}/export")
        lab.client.call("GET", f"/containers/{lab.ids['t']}/changes")
        assert lab.head("t", "/ran")[0] == 404
    finally:
        lab.close()


def test_devices_and_pipes_are_not_opened(host):
    """A reader that opens them would hang, or worse."""
    lab = cases.Lab(f"{host.root}/wherry.sock")
    try:
        lab.create("n", start=True)
        nodes = (
            {"name": "zero", "type": cases.tarfile.CHRTYPE, "device": (1, 5), "mode": 0o666},
            {"name": "pipe", "type": cases.tarfile.FIFOTYPE, "mode": 0o666},
        )
        assert lab.put("n", "/tmp", cases.tar(*nodes))[0] == 200
        assert [m[:2] for m in lab.get("n", "/tmp")[3]] == [["tmp", "5"], ["tmp/pipe", "6"], ["tmp/zero", "3"]]
        assert lab.get("n", "/tmp/zero")[3][0][5] == 0
    finally:
        lab.close()


def test_clients_that_go_away_leave_nothing(host):
    """Half an upload, half a download: threads end, descriptors close, the container can be removed."""
    lab = cases.Lab(f"{host.root}/wherry.sock")
    try:
        lab.create("g", start=True)
        lab.sh("g", "dd if=/dev/zero of=/big bs=1M count=64 2>/dev/null")
        fds = Path(f"/proc/{host._own_pid()}/fd") if hasattr(host, "_own_pid") else Path(f"/proc/{host.daemon.pid}/fd")
        before = len(os.listdir(fds))
        for _ in range(5):
            _abandoned(host, f"GET /v1.51/containers/{lab.ids['g']}/archive?path=/big HTTP/1.1\r\nHost: x\r\n\r\n", b"")
            target = f"/v1.51/containers/{lab.ids['g']}/archive?path=/tmp"
            head = f"PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n"
            _abandoned(host, head, cases.tar(cases.new("half", data=b"z" * 50_000))[:20_000])
        host.wait_until(lambda: len(os.listdir(fds)) <= before, "the end of all descriptors")
        assert threading.active_count() >= 1
        assert lab.put("g", "/tmp", cases.tar(cases.new("whole")))[0] == 200
    finally:
        lab.close()


def _abandoned(host, head: str, body: bytes) -> None:
    with cases.socket.socket(cases.socket.AF_UNIX) as client:
        client.connect(f"{host.root}/wherry.sock")
        client.sendall(head.encode() + body)
        if not body:
            assert client.recv(100).startswith(b"HTTP/1.1 200")


def test_large_files_pass_through(host, tmp_path):
    """What goes in comes out, byte for byte, by the docker CLI and by ours; the daemon does not grow by it."""
    source = tmp_path / "big"
    source.write_bytes(os.urandom(1 << 20) * 60 + b"tail")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    host.docker("run", "-d", "--name", "large", "--net", "none", cases.IMAGE, "sleep", "1000")
    try:
        for copy in (host.docker, host.wherry):
            copy("cp", str(source), "large:/tmp/there")
            assert host.docker("exec", "large", "sha256sum", "/tmp/there").stdout.split()[0] == digest
            copy("cp", "large:/tmp/there", str(tmp_path / "back"))
            assert hashlib.sha256((tmp_path / "back").read_bytes()).hexdigest() == digest
        peak = next(
            int(line.split()[1])
            for line in Path(f"/proc/{host.daemon.pid}/status").read_text().splitlines()
            if line.startswith("VmHWM:")
        )
        assert peak < 200 << 10
    finally:
        host.docker("rm", "-f", "large")


def test_both_command_lines_do_the_same(host, tmp_path):
    """Trees out and in, with the rules for names, by docker and by wherry."""
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "file").write_text("f")
    (tree / "sub" / "deep").write_text("d")
    (tree / "link").symlink_to("file")
    os.link(tree / "file", tree / "hard")
    host.docker("run", "-d", "--name", "both", "--net", "none", cases.IMAGE, "sleep", "1000")
    arguments = [
        ("{tree}", "both:/tmp"),
        ("{tree}", "both:/tmp/new"),
        ("{tree}/.", "both:/www"),
        ("{tree}/file", "both:/www/renamed"),
        ("{tree}/file", "both:/www"),
        ("{tree}/link", "both:/www/aslink"),
        ("-L", "{tree}/link", "both:/www/asfile"),
        ("both:/tmp/tree", "{out}"),
        ("both:/tmp/tree", "{out}/renamed"),
        ("both:/tmp/tree/.", "{out}/content"),
        ("both:/tmp/tree/file", "{out}/file2"),
        ("-L", "both:/tmp/tree/link", "{out}/followed"),
        ("both:/tmp/tree/link", "{out}/link2"),
        ("both:/nope", "{out}/x"),
        ("both:/tmp", "{out}/nodir/x"),
        ("{tree}", "both:/etc/passwd"),
        ("{tree}/none", "both:/"),
        ("{tree}/file", "both:/nodir/"),
        ("{tree}/file", "both:/nodir/x"),
        ("a", "b"),
        ("both:/a", "both:/b"),
        ("both:/etc/passwd", "{out}/nodir/"),
        ("both:/tmp/tree", "{tree}/file"),
        ("-q=false", "{tree}/file", "both:/tmp"),
    ]
    try:
        results = {}
        for tool in (host.docker, host.wherry):
            out = tmp_path / "out"
            out.mkdir()
            steps = []
            for words in arguments:
                made = [word.format(tree=tree, out=out) for word in words]
                done = tool("cp", *made, check=False)
                steps.append((words, done.returncode, done.stdout, _words(done.stderr)))
            local = sorted(
                (str(p.relative_to(out)), oct(p.lstat().st_mode), p.read_text() if p.is_file() else "")
                for p in out.rglob("*")
            )
            inside = host.docker("exec", "both", "sh", "-c", "ls -lR /tmp /www").stdout
            results[tool.__name__] = (steps, local, inside)
            subprocess.run(["rm", "-r", str(out)], check=True)
            host.docker("exec", "both", "sh", "-c", "rm -rf /tmp/* /www/[a-h]* /www/l* /www/r* /www/sub")
        for ours, theirs in zip(results["wherry"][0], results["docker"][0], strict=True):
            assert ours == theirs
        assert results["wherry"][1:] == results["docker"][1:]
    finally:
        host.docker("rm", "-f", "both")


def _words(text: str) -> list[str]:
    """What a command said, without the docker CLI's log lines."""
    return [line for line in text.splitlines() if not line.startswith("time=")]
