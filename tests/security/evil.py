"""Images that mean harm: busybox, any entries on top, any configuration; and a host tree that must stay as it is."""

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

from tests.e2e.host import busybox_tar

TOKEN = "canary-4f1c0b"


def member(name, kind=tarfile.REGTYPE, *, data=b"", to="", mode=0o755):
    """An entry of a layer."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, to, mode, len(data)
    return info, data


def link(name, to):
    """A symbolic link."""
    return member(name, tarfile.SYMTYPE, to=to)


def archive(name, members, config):
    """A docker-archive of busybox and a layer of `members`; `config` is the whole image configuration but rootfs."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    layers = [busybox_tar(), layer.getvalue()]
    digests = [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in layers]
    whole = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": digests}} | config
    manifest = [{"Config": "config.json", "RepoTags": [f"{name}:latest"], "Layers": ["0.tar", "1.tar"]}]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, content in (
            ("config.json", json.dumps(whole).encode()),
            ("0.tar", layers[0]),
            ("1.tar", layers[1]),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            info, data = member(path, data=content, mode=0o644)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def make_canary(directory: Path) -> Path:
    """A tree of the host's."""
    (directory / "dir").mkdir(parents=True)
    (directory / "file").write_text(TOKEN)
    (directory / "dir/file").write_text(TOKEN)
    os.mkfifo(directory / "fifo")
    return directory


def state(directory: Path) -> list[tuple]:
    """All that must not change in it."""
    found = []
    for path in sorted([directory, *directory.rglob("*")]):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found.append((str(path), status.st_mode, status.st_uid, status.st_mtime_ns, status.st_nlink, content))
    return found
