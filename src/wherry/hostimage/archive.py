"""A docker-archive with one image of one layer, written without an engine."""

import hashlib
import io
import json
import platform
import tarfile
import time
from typing import IO, Any, BinaryIO

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}


class HashedFile(io.RawIOBase):
    """A file that hashes what is written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> str:
        """The digest of all that was written, "sha256:…"."""
        return f"sha256:{self._hash.hexdigest()}"

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self._file.write(data)


def image_config(diff_id: str, config: dict[str, Any], created_by: str, moment: int) -> bytes:
    """The JSON of an image of one layer for this machine; `moment` in Unix seconds."""
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
    machine = platform.machine()
    document = {
        "architecture": _MACHINES.get(machine, machine),
        "config": config,
        "created": created,
        "history": [{"created": created, "created_by": created_by}],
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    return json.dumps(document, separators=(",", ":")).encode()


def write_archive(out: BinaryIO, name: str, layer: IO[bytes], size: int, config: bytes, moment: int) -> str:
    """Write the image called `name` to `out`; `layer` is read from where it stands. Returns the image's id."""
    digest = hashlib.sha256(config).hexdigest()
    config_name = f"{digest}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    members: tuple[tuple[str, int, IO[bytes]], ...] = (
        ("layer.tar", size, layer),
        (config_name, len(config), io.BytesIO(config)),
        ("manifest.json", len(manifest), io.BytesIO(manifest)),
    )
    # GNU: a layer may be larger than ustar's 8 GiB
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT) as tar:
        for member, length, content in members:
            info = tarfile.TarInfo(member)
            info.size = length
            info.mtime = moment
            tar.addfile(info, content)
    return f"sha256:{digest}"
