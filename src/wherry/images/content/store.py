"""Blobs by digest: `content/` is an OCI image layout (image-spec `image-layout.md`), complete and readable by other
tools at any time.

    oci-layout            {"imageLayoutVersion": "1.0.0"}
    index.json            one descriptor per tag, named by org.opencontainers.image.ref.name in full
                          (`docker.io/library/x:latest`), and one per untagged image
    blobs/sha256/<hex>    verified, synced, then renamed here; never changed
    ingest/<random>       on their way in; garbage when no load runs
    ingest/partial-<hex>  what came of the blob <hex> before a pull was interrupted: the next one goes on from there

`index.json` is derived from the database, which is the truth; it is rewritten after each change and at start.
"""

import os
import secrets
import time
from collections.abc import Container, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from wherry.errors import Internal, NotFound
from wherry.images import oci
from wherry.images.content.ingest import Ingest
from wherry.images.references import check_digest
from wherry.store.atomic import write_file
from wherry.store.paths import Paths

_PARTIAL = "partial-"
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class ContentStore:
    """The blobs of one data root. Thread-safe: names are unique and renames atomic."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        layout = paths.oci_layout
        if not layout.exists():
            write_file(layout, _LAYOUT, mode=0o600)

    def path(self, digest: str) -> Path:
        """Where the blob `digest` lies or would lie. Raises `InvalidArgument` for anything but a sha256 digest."""
        algorithm, _, value = check_digest(digest).partition(":")
        if algorithm != "sha256":
            raise NotFound(f"content {digest}: only sha256 is stored")
        return self._paths.blobs / value

    def has(self, digest: str) -> bool:
        """Whether the blob is here."""
        return self.path(digest).exists()

    def read(self, digest: str, limit: int) -> bytes:
        """A small blob whole. Raises `NotFound` when it is not here, `Internal` when it is longer than `limit`."""
        try:
            with open(self.path(digest), "rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            raise NotFound(f"content {digest}: not found") from None
        if len(data) > limit:
            raise Internal(f"content {digest}: larger than {limit} bytes")
        return data

    def open(self, digest: str) -> BinaryIO:
        """The blob as an unbuffered file. Raises FileNotFoundError."""
        return open(self.path(digest), "rb", buffering=0)

    def size(self, digest: str) -> int:
        """The blob's size in bytes. Raises FileNotFoundError."""
        return self.path(digest).stat().st_size

    def new_ingest(self) -> Ingest:
        """Begin a blob."""
        return Ingest(self._paths.ingest / secrets.token_hex(8))

    def partial(self, digest: str) -> Path:
        """Where the blob `digest` grows that may be interrupted and gone on with; one at a time."""
        return self._paths.ingest / (_PARTIAL + self.path(digest).name)

    def drop_partials(self, busy: Container[str], *, age_s: float = 0, total: int = 0) -> int:
        """Delete what interrupted pulls left, except of the digests in `busy`: what is older than `age_s` seconds, and
        the oldest of the rest until they have no more than `total` bytes. Returns the bytes deleted."""
        found = []
        for name in os.listdir(self._paths.ingest):
            if name.startswith(_PARTIAL) and f"sha256:{name.removeprefix(_PARTIAL)}" not in busy:
                with suppress(FileNotFoundError):
                    status = (self._paths.ingest / name).stat()
                    found.append((status.st_mtime, status.st_size, name))
        dropped = kept = 0
        for changed, size, name in sorted(found, reverse=True):
            if kept + size <= total and changed >= time.time() - age_s:
                kept += size
                continue
            (self._paths.ingest / name).unlink(missing_ok=True)
            dropped += size
        return dropped

    def add(self, data: bytes) -> Ingest:
        """Take in a small blob whole: a finished ingest, to be published with others."""
        ingest = self.new_ingest()
        try:
            ingest.append(data)
            ingest.finish()
        except BaseException:
            ingest.discard()
            raise
        return ingest

    def publish(self, ingests: Iterable[Ingest]) -> None:
        """Give finished ingests their names. Their bytes must be on disk (see `snapshots.sync`); the names are only
        after `sync_directory(paths.blobs)`."""
        for ingest in ingests:
            target = self.path(ingest.digest)
            ingest.close()
            if ingest.path.exists():
                os.rename(ingest.path, target)

    def delete(self, digest: str) -> None:
        """Remove a blob; one that is gone already is no error."""
        self.path(digest).unlink(missing_ok=True)

    def digests(self) -> list[str]:
        """All blobs here."""
        return [f"sha256:{name}" for name in os.listdir(self._paths.blobs) if len(name) == 64]

    def clear_ingest(self) -> None:
        """Remove what interrupted loads left, but for what a pull can go on with; nothing may be loading."""
        for name in os.listdir(self._paths.ingest):
            if not name.startswith(_PARTIAL):
                (self._paths.ingest / name).unlink()

    def write_index(self, manifests: list[oci.Descriptor]) -> None:
        """Replace `index.json`; it is durable after the return."""
        index = oci.Index(manifests=manifests, schema_version=2, media_type=oci.INDEX)
        path = self._paths.image_index
        data = oci.encode(index)
        if not path.exists() or path.read_bytes() != data:
            write_file(path, data, mode=0o600)
