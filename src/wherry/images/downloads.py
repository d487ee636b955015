"""Layers on their way from registries: each is fetched once, whoever and however many want it.

A `Download` receives its blob in one of a few threads (`max-concurrent-downloads`, in all), hashing while it writes,
and is unpacked by another thread meanwhile. Pulls join it and leave it; when the last one leaves before the end it is
broken off. What came until then stays in `ingest/partial-<hex>`, after a crash as well, and is the beginning of the
next try: read and hashed again, so that nothing depends on what it is. Such rests are dropped when they are old, when
they are many, and by a prune of images.
"""

import errno
import logging
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from wherry import failpoint
from wherry.errors import InvalidArgument, Unavailable
from wherry.images import progress
from wherry.images.content.ingest import Ingest
from wherry.images.content.store import ContentStore
from wherry.images.incoming import UnpackedLayer, unpack
from wherry.images.oci import Descriptor
from wherry.images.pool import Pool
from wherry.images.progress import Report
from wherry.images.snapshots.base import SpaceGuard
from wherry.images.snapshots.layers import LayerStore
from wherry.registry.blobs import BlobReader
from wherry.registry.cancel import Cancellation, Cancelled
from wherry.registry.repository import Repository

log = logging.getLogger(__name__)

CONCURRENT = 3
_UNPACKERS_MORE = 2  # than fetchers, each of which keeps one waiting: for what has arrived
_PIECE = 1 << 20
_PARTIAL_MIN = 1 << 20
_PARTIAL_AGE_S = 3 * 24 * 3600
_PARTIALS_TOTAL = 10 << 30


Open = Callable[[Cancellation], Repository]
"""Turns to the repository of one pull, for as long as a download lasts."""


class _Arriving(Ingest):
    """A partial blob that tells how far its reader is."""

    def __init__(self, path: Path, read_to: Callable[[int], None]) -> None:
        super().__init__(path, partial=True)
        self._read_to = read_to

    def read_at(self, offset: int, limit: int) -> bytes:
        self._read_to(offset)
        return super().read_at(offset, limit)


class Download:
    """One layer being fetched and unpacked, for all pulls that have joined it; made by `Downloads.join`.

    `done` has the unpacked layer, whose `ingest` and `path` the pulls may then publish, or what went wrong, nothing
    being left then."""

    def __init__(
        self,
        descriptor: Descriptor,
        content: ContentStore,
        layers: LayerStore,
        where: Path,
        failed: "Callable[[Download], None]",
    ) -> None:
        """`failed` is called when all is cleared away, before `done` tells."""
        self.digest = descriptor.digest
        self.size = descriptor.size
        self.done: Future[UnpackedLayer] = Future()
        self.watchers: list[Report] = []
        self.ingest: Ingest
        self.path: Path
        self._content = content
        self._layers = layers
        self._failed = failed
        self._space = SpaceGuard(where)
        self._cancellation = Cancellation()
        self._unpacking: Future[UnpackedLayer] | None = None
        self._fetching: Future[None] | None = None
        self.fetched = False
        self._useless = False  # what came is not worth keeping
        self._pace = progress.Pace()
        self._last: dict[str, Any] | None = None
        self._saying = threading.Lock()

    # for those who watch

    def watch(self, report: Report) -> None:
        """Tell `report` how far it is, and all that happens from now on."""
        with self._saying:
            self.watchers.append(report)
            if self._last is not None:
                report(self._last)

    def unwatch(self, report: Report) -> None:
        """Tell `report` no more."""
        with self._saying:
            self.watchers.remove(report)

    def say(self, step: dict[str, Any]) -> None:
        """Tell all who watch."""
        with self._saying:
            self._last = step
            for report in self.watchers:
                report(step)

    # the work

    def start(self, fetchers: Pool, unpackers: Pool, open_: Open) -> None:
        """Fetch it in one of the threads `fetchers`."""
        self._fetching = fetchers.submit(lambda: self._run(open_, unpackers))

    def cancel(self) -> None:
        """Break it off. `done` is over soon."""
        self._cancellation.cancel()
        if self._fetching is not None and self._fetching.cancel():
            self._end(Cancelled())
        elif self.fetched and not self.done.done():
            self.ingest.fail(Cancelled())

    def _run(self, open_: Open, unpackers: Pool) -> None:
        try:
            self._fetch(open_, unpackers)
        except BaseException as error:
            self._fail(error)

    def _fetch(self, open_: Open, unpackers: Pool) -> None:
        self._cancellation.check()
        taken_up = self._receive(open_, unpackers)
        if taken_up and self.ingest.digest != self.digest:  # what was left of an earlier try was no good
            self._give_up(Cancelled())
            self._receive(open_, unpackers)
        if self.ingest.digest != self.digest:
            self._useless = True
            raise InvalidArgument(f"filesystem layer verification failed for digest {self.digest}")
        self.say(progress.layer("Download complete", self.digest))
        self.fetched = True
        assert self._unpacking
        self._unpacking.add_done_callback(self._unpacked)

    def _begin(self, unpackers: Pool) -> Ingest:
        """Open the blob, and have it unpacked as it comes."""
        self._unpacking = None
        with ExitStack() as undo:
            path = self._layers.begin()
            undo.callback(self._layers.discard, path)
            ingest = _Arriving(self._content.partial(self.digest), self._extracting)
            undo.callback(ingest.close)
            self._unpacking = unpackers.submit(partial(unpack, self._layers, ingest, path))
            undo.pop_all()
        self.ingest, self.path = ingest, path
        return ingest

    def _receive(self, open_: Open, unpackers: Pool) -> int:
        """Take in the whole blob; returns how much of it was here before."""
        ingest = self._begin(unpackers)
        taken_up = ingest.take_up(self.size)
        failpoint.hit("pull-taken-up")
        if taken_up < self.size:
            with (
                closing(open_(self._cancellation)) as repository,
                closing(repository.blob(self.digest, self.size, taken_up, self._waits)) as blob,
            ):
                self._copy(blob, ingest)
        self.say(progress.layer("Verifying Checksum", self.digest))
        ingest.finish()
        return taken_up

    def _copy(self, blob: BlobReader, ingest: Ingest) -> None:
        while data := blob.read(_PIECE):
            self._space(len(data))
            ingest.append(data)
            failpoint.hit("pull-piece")
            if self._pace():
                self.say(progress.moving("Downloading", self.digest, ingest.size, self.size))
            self._check_unpacking()

    def _waits(self, seconds: float) -> None:
        unit = "second" if round(seconds) == 1 else "seconds"
        self.say(progress.layer(f"Retrying in {round(seconds)} {unit}", self.digest))

    def _check_unpacking(self) -> None:
        """Stop when the disk does not take the layer. One that is no archive is received none the less: that its digest
        is wrong, if it is, says more."""
        if self._unpacking is not None and self._unpacking.done():
            error = self._unpacking.exception()
            if error is not None and not isinstance(error, InvalidArgument):
                raise error

    def _extracting(self, offset: int) -> None:
        if self.fetched and self._pace():
            self.say(progress.moving("Extracting", self.digest, offset, self.size))

    # the end

    def _unpacked(self, unpacking: "Future[UnpackedLayer]") -> None:
        error = Cancelled() if unpacking.cancelled() else unpacking.exception()
        if self._cancellation.cancelled:
            error = Cancelled()
        if error is not None:
            self._useless = isinstance(error, InvalidArgument)
            self._fail(error)
            return
        try:
            self.say(progress.moving("Extracting", self.digest, self.size, self.size))
            self.say(progress.layer("Pull complete", self.digest))
        finally:
            self.done.set_result(unpacking.result())

    def _fail(self, error: BaseException) -> None:
        self._useless = self._useless or _is_full(error)
        try:
            if self._unpacking is not None:
                self._give_up(error)
        finally:
            self._end(error)

    def _end(self, error: BaseException) -> None:
        self._failed(self)
        with suppress(InvalidStateError):  # cancelled twice
            self.done.set_exception(error)

    def _give_up(self, error: BaseException) -> None:
        """Stop the unpacking and clear away; what came of the blob stays if it may be of use."""
        self.ingest.fail(error)
        if self._unpacking is not None and not self._unpacking.cancel():
            wait([self._unpacking])
        useful = self.ingest.size >= _PARTIAL_MIN and self.ingest.digest in ("", self.digest) and not self._useless
        self.release(keep=useful)

    def release(self, *, keep: bool = False) -> None:
        """Clear away what was not published. What the disk does not let go of is left to the next start."""
        try:
            try:
                self.ingest.close()
                if not keep:
                    self.ingest.discard()
            finally:
                self._layers.discard(self.path)
        except OSError as error:
            log.warning("layer %s: what came of it cannot be deleted: %s", self.digest, error)


class Downloads:
    """All downloads of one data root. Thread-safe."""

    def __init__(self, content: ContentStore, layers: LayerStore, where: Path) -> None:
        """`where`: a path on the file system that fills."""
        self._content = content
        self._layers = layers
        self._where = where
        self._changed = threading.Condition()
        self._running: dict[str, Download] = {}
        self._unpackers = Pool(_unpackers(CONCURRENT), "unpack")
        self._fetchers = Pool(CONCURRENT, "download")

    def resize(self, limit: int) -> None:
        """Let `limit` layers be fetched at a time, 0 being no limit."""
        with self._changed:
            self._fetchers.resize(limit)
            self._unpackers.resize(_unpackers(limit))

    def join(self, descriptor: Descriptor, open_: Open, report: Report) -> tuple[Download, bool]:
        """The download of a layer, and whether it was begun for this call. Each call wants a `leave`."""
        with self._changed:
            while (found := self._running.get(descriptor.digest)) is not None and not found.watchers:
                self._changed.wait()  # it is being broken off
            if found is not None:
                found.watch(report)
                return found, False
            if not self._running:
                self.drop_old_partials({descriptor.digest})
            download = Download(descriptor, self._content, self._layers, self._where, self._forget)
            download.watch(report)
            if 0 < self._fetchers.limit <= sum(not other.fetched for other in self._running.values()):
                download.say(progress.layer("Waiting", download.digest))
            download.start(self._fetchers, self._unpackers, open_)
            self._running[download.digest] = download
            return download, True

    def _forget(self, download: Download) -> None:
        with self._changed:
            if self._running.get(download.digest) is download:
                del self._running[download.digest]
            self._changed.notify_all()

    def leave(self, download: Download, report: Report) -> None:
        """The layer is not wanted any more, or published: the last to leave ends the download."""
        with self._changed:
            download.unwatch(report)
            if download.watchers:
                return
        download.cancel()
        wait([download.done])
        if download.done.exception() is None:
            try:
                download.release()
            finally:
                self._forget(download)

    def drop_old_partials(self, wanted: Collection[str] = ()) -> None:
        """Delete what interrupted pulls left long ago, or left too much of, except of the digests `wanted`. While
        nothing is pulled."""
        self._content.drop_partials(wanted, age_s=_PARTIAL_AGE_S, total=_PARTIALS_TOTAL)

    def drop_partials(self) -> int:
        """Delete what interrupted pulls left; the bytes."""
        with self._changed:
            return self._content.drop_partials(self._running)

    def close(self) -> None:
        """Break everything off: the daemon goes."""
        with self._changed:
            running = list(self._running.values())
        for download in running:
            download.cancel()
        self._fetchers.close()
        self._unpackers.close()


def _unpackers(fetchers: int) -> int:
    return fetchers and fetchers + _UNPACKERS_MORE


def _is_full(error: BaseException) -> bool:
    """Whether the disk is: the space is wanted back then."""
    return isinstance(error, Unavailable) or (
        isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    )
