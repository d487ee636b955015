"""Layers and images on their way into the store.

An `IncomingLayer` is a blob that arrives (`Ingest`) and the thread that unpacks it meanwhile. `Incoming` owns all of
one load's: it makes them, hands the finished ones over, and clears away the rest whatever happens.
"""

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol

from wherry.errors import InvalidArgument, WherryError
from wherry.images import oci
from wherry.images.archive.reader import Source, TarReader
from wherry.images.archive.rules import Unpacked
from wherry.images.archive.sources import HashedSource, open_plain
from wherry.images.content.ingest import Ingest, Tail
from wherry.images.content.store import ContentStore
from wherry.images.erofs import Unsuitable
from wherry.images.records import LayerRow
from wherry.images.references import Reference
from wherry.images.snapshots.base import SpaceGuard
from wherry.images.snapshots.layers import LayerStore

log = logging.getLogger(__name__)

_WORKERS_MAX = 4
# Layers that were received and wait to be unpacked, each with an open file.
_IN_FLIGHT_MAX = 64
_MEDIA_SUFFIX = {"": "", "gzip": "+gzip", "zstd": "+zstd", "bzip2": "+bzip2", "xz": "+xz"}


class UnpackedLayer(NamedTuple):
    """A layer that was unpacked: `diff_id`, `size` unpacked, the compression of its blob."""

    diff_id: str
    size: int
    compression: str


class IncomingLayer:
    """A layer being received by one thread and unpacked by another."""

    def __init__(self, ingest: Ingest, path: Path, unpacking: "Future[UnpackedLayer]") -> None:
        self.ingest = ingest
        self.path = path
        self._unpacking = unpacking

    def result(self) -> UnpackedLayer:
        """Wait until it is unpacked. Raises what went wrong: `InvalidArgument` for a bad archive, OSError."""
        return self._unpacking.result()

    def broken_host(self) -> BaseException | None:
        """The error that makes it useless to go on (no space, IO), if there was one by now."""
        if not self._unpacking.done():
            return None
        error = self._unpacking.exception()
        return None if error is None or isinstance(error, InvalidArgument) else error

    def row(self) -> LayerRow:
        """The layer as the database will know it."""
        unpacked = self.result()
        return LayerRow(unpacked.diff_id, unpacked.size, self.ingest.digest)

    def descriptor(self) -> oci.Descriptor:
        """The layer as a manifest lists it."""
        suffix = _MEDIA_SUFFIX[self.result().compression]
        return oci.Descriptor(oci.LAYER + suffix, self.ingest.digest, self.ingest.size)


class NewImage(NamedTuple):
    """An image ready to be added: documents as bytes, layers lowest first, names in full."""

    id: str
    config: bytes
    manifest: bytes
    manifest_type: str
    layers: list[LayerRow]
    names: list[Reference]
    parent: str = ""


class Arrived(Protocol):
    """What was received and unpacked for images, ready to be taken into the store."""

    def document(self, data: bytes) -> Ingest:
        """Take in a config or manifest."""
        ...

    def take(self, wanted_blobs: set[str], wanted_layers: set[str]) -> tuple[list[Ingest], dict[str, Path]]:
        """Hand over the finished blobs and trees that are wanted, one of each."""
        ...


def unpack(layers: LayerStore, ingest: Ingest, path: Path) -> UnpackedLayer:
    """Unpack a layer into `path` while its blob arrives. Raises `InvalidArgument` for a bad archive, OSError."""
    if layers.indexes:
        try:
            return _read(ingest, lambda plain, blob: layers.index(plain, path, blob))
        except Unsuitable as reason:
            log.info("a layer is unpacked as a tree: %s", reason)

    def as_tree(plain: Source, _blob: Path | None) -> Unpacked:
        reader = TarReader(plain)
        unpacked = layers.unpack(reader, path)
        reader.drain()
        return unpacked

    return _read(ingest, as_tree)


def _read(ingest: Ingest, work: Callable[[Source, Path | None], Unpacked]) -> UnpackedLayer:
    """Unpack a blob by `work(plain bytes, the file of just these if there is one)`, which reads to their end."""
    plain, compression = open_plain(Tail(ingest))
    hashed = HashedSource(plain) if compression else None
    unpacked = work(hashed or plain, None if compression else ingest.path)
    # an uncompressed layer's blob is the layer: hashed once, by the thread that receives it
    diff_id = hashed.digest if hashed else ingest.digest
    return UnpackedLayer(diff_id, unpacked.size, compression)


class Incoming:
    """All that one load brings in. A context manager: what was not handed over is gone after it."""

    def __init__(self, content: ContentStore, layers: LayerStore, where: Path) -> None:
        """`where`: a path on the file system that fills."""
        self._content = content
        self._layers = layers
        self._space = SpaceGuard(where)
        workers = min(_WORKERS_MAX, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="unpack")
        self._slots = threading.Semaphore(_IN_FLIGHT_MAX)
        self._all: list[IncomingLayer] = []
        self._documents: list[Ingest] = []

    def __enter__(self) -> "Incoming":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for layer in self._all:
            if not layer.ingest.digest:
                layer.ingest.fail(error or InvalidArgument("the load was given up"))
        self._pool.shutdown(wait=True, cancel_futures=True)
        for layer in self._all:
            layer.ingest.discard()
            self._layers.discard(layer.path)
        for document in self._documents:
            document.discard()

    def layer(self, pieces: Callable[[Callable[[bytes | memoryview], None]], None]) -> IncomingLayer:
        """Receive one layer: `pieces(append)` is called to hand in all its bytes. Returns when they are in; the
        unpacking may go on."""
        self._check_host()
        self._slots.acquire()  # before it can wait for itself
        try:
            ingest, path = self._begin()
        except BaseException:
            self._slots.release()
            raise
        unpacking = self._pool.submit(unpack, self._layers, ingest, path)
        unpacking.add_done_callback(lambda _: self._slots.release())
        layer = IncomingLayer(ingest, path, unpacking)
        self._all.append(layer)

        def append(data: bytes | memoryview) -> None:
            self._space(len(data))
            ingest.append(data)

        pieces(append)
        ingest.finish()
        unpacking.add_done_callback(lambda _: ingest.close())
        return layer

    def _begin(self) -> tuple[Ingest, Path]:
        ingest = self._content.new_ingest()
        try:
            return ingest, self._layers.begin()
        except BaseException:
            ingest.discard()
            raise

    def _check_host(self) -> None:
        for layer in self._all:
            error = layer.broken_host()
            if error is not None:
                raise error

    def document(self, data: bytes) -> Ingest:
        """Take in a config or manifest."""
        ingest = self._content.add(data)
        ingest.close()
        self._documents.append(ingest)
        return ingest

    def take(self, wanted_blobs: set[str], wanted_layers: set[str]) -> tuple[list[Ingest], dict[str, Path]]:
        """Hand over the finished blobs and trees that are wanted, one of each."""
        blobs: dict[str, Ingest] = {}
        trees: dict[str, Path] = {}
        for ingest in [*self._documents, *(layer.ingest for layer in self._all)]:
            if ingest.digest in wanted_blobs:
                blobs.setdefault(ingest.digest, ingest)
        for layer in self._all:
            try:
                diff_id = layer.result().diff_id
            except (WherryError, OSError):
                continue  # no image has it, or the load would have failed
            if diff_id in wanted_layers:
                trees.setdefault(diff_id, layer.path)
        return list(blobs.values()), trees
