"""`docker push`: an image of ours becomes one of a registry.

Blobs and manifest go as they are kept, so what was pulled is pushed with the same digests. What the registry has is not
sent; what another repository of it is known to have is mounted from there. Layers that are kept uncompressed (of an
archive of `docker save`, or of a commit) are compressed when they are pushed first, and that form is kept with them:
the next push finds the same digests. The manifest then names the compressed forms.

The texts and the order of the lines are those of Docker's classic store (moby `distribution/push_v2.go` in effect).
"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from wherry.errors import InvalidArgument, NotFound
from wherry.images import oci, progress
from wherry.images.archive.compression import MAGIC_LENGTH, detect, gzip_compressor
from wherry.images.archive.reader import Source
from wherry.images.archive.sources import StreamSource, open_plain
from wherry.images.pool import Pool
from wherry.images.progress import Report
from wherry.images.records import Image
from wherry.images.references import Reference
from wherry.registry.cancel import Cancellation, Cancelled
from wherry.registry.client import Registry
from wherry.registry.credentials import Credentials
from wherry.registry.repository import Repository

if TYPE_CHECKING:
    from wherry.images.store import ImageStore

CONCURRENT = 5
_PIECE = 1 << 20
_MOUNTS_TRIED = 3
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_PUSHED_AS_THEY_ARE = ("gzip", "zstd")

Lease = Callable[..., None]


class _Blob(NamedTuple):
    """A layer's blob as it is pushed."""

    digest: str
    size: int


class Push:
    """One `docker push`. `run` blocks and is called in a worker thread; `cancel` in any."""

    def __init__(
        self,
        store: "ImageStore",
        registry: Registry,
        reference: Reference,
        *,
        credentials: Credentials | None = None,
        uploads: Pool,
        report: Report,
    ) -> None:
        """`reference` without a tag means all tags. `uploads`: the threads that send blobs. `report` gets Docker's
        progress lines, from any thread."""
        self._store = store
        self._registry = registry
        self._reference = reference
        self._credentials = credentials
        self._uploads = uploads
        self._report = report
        self._cancellation = Cancellation()

    def cancel(self) -> None:
        """Nobody wants it any more: `run` raises soon."""
        self._cancellation.cancel()

    def run(self) -> None:
        """Push, and tell how it went. Raises `NotFound`, `InvalidArgument`, `Internal` with Docker's words."""
        name = self._reference
        self._report(progress.message(f"The push refers to repository [{name.name}]"))
        chosen = self._chosen()
        with self._registry.repository(
            name.domain, name.path, self._credentials, cancel=self._cancellation
        ) as repository:
            for reference, image_id in chosen.items():
                self._push(repository, reference, image_id)

    def _chosen(self) -> dict[Reference, str]:
        """What is to be pushed: tags and the ids of their images."""
        name = self._reference
        if name.digest:
            raise InvalidArgument("cannot push a digest reference")
        tags = self._store.records.tags(name)
        if not tags:
            raise NotFound(f"An image does not exist locally with the tag: {name.familiar_name}")
        if not name.tag:
            return tags
        if name not in tags:
            raise NotFound(f"tag does not exist: {name.familiar}")
        return {name: tags[name]}

    # one image

    def _push(self, repository: Repository, reference: Reference, image_id: str) -> None:
        with self._store.transfer() as lease:
            image = self._store.records.image(image_id)
            rows = self._store.records.layer_rows(image_id)
            lease(image.id, image.manifest.digest, *(row.blob for row in rows), *(row.diff_id for row in rows))
            data = self._store.content.read(image.manifest.digest, oci.MANIFEST_MAX)
            blobs = self._layers(repository, image, data, lease)
            self._blob(repository, image.id)
            data = _with_layers(data, blobs)
            self._cancellation.check()
            digest = repository.put_manifest(reference.tag, data, image.manifest.media_type)
            path, domain = reference.path, reference.domain
            self._store.records.add_sources({blob.digest for blob in blobs}, domain, path)
            self._store.name(image.id, [reference._replace(tag="", digest=digest)])
        self._report(progress.message(f"{reference.tag}: digest: {digest} size: {len(data)}"))
        self._report({"progressDetail": {}, "aux": {"Tag": reference.tag, "Digest": digest, "Size": len(data)}})

    def _layers(self, repository: Repository, image: Image, data: bytes, lease: Lease) -> list[_Blob]:
        """Have the registry hold all layers; returns what each is there, lowest first."""
        manifest = oci.decode_manifest_or_index(data, image.manifest)
        assert isinstance(manifest, oci.Manifest)
        pairs = list(zip(manifest.layers, image.diff_ids, strict=True))
        for at, (_, diff_id) in enumerate(reversed(pairs)):
            waits = 0 < self._uploads.limit <= at
            self._report(progress.layer("Waiting" if waits else "Preparing", diff_id))
        work: dict[tuple[str, str], Future[_Blob]] = {}  # a layer may be there in two forms
        for layer, diff_id in reversed(pairs):
            if (layer.digest, diff_id) not in work:
                job = partial(self._layer, repository, layer, diff_id, lease)
                work[layer.digest, diff_id] = self._uploads.submit(job)
        self._wait(set(work.values()))
        return [work[layer.digest, diff_id].result() for layer, diff_id in pairs]

    def _wait(self, pending: "set[Future[_Blob]]") -> None:
        """Wait for all. The first failure breaks the others off, and is raised when they have come to an end."""
        failure: BaseException | None = None
        while pending:
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            for done in finished:
                error = Cancelled() if done.cancelled() else done.exception()
                if error is not None and (failure is None or isinstance(failure, Cancelled)):
                    failure = error
            if failure is not None:
                self._cancellation.cancel()
                for other in pending:
                    other.cancel()
        if failure is not None:
            raise failure

    def _layer(self, repository: Repository, layer: oci.Descriptor, diff_id: str, lease: Lease) -> _Blob:
        self._cancellation.check()
        blob = self._form(layer, diff_id, lease)
        if repository.has_blob(blob.digest):
            self._report(progress.layer("Layer already exists", diff_id))
        elif source := self._mounted(repository, blob.digest):
            self._report(progress.layer(f"Mounted from {source}", diff_id))
        else:
            self._send(repository, blob, diff_id)
            self._report(progress.layer("Pushed", diff_id))
        return blob

    def _mounted(self, repository: Repository, digest: str) -> str:
        """The repository of the same registry that the blob could be taken from; "" for none."""
        paths = self._store.records.sources(digest, self._reference.domain)
        for path in [path for path in paths if path != self._reference.path][:_MOUNTS_TRIED]:
            if repository.mount_blob(digest, path):
                return path
        return ""

    def _send(self, repository: Repository, blob: _Blob, diff_id: str) -> None:
        pace = progress.Pace()

        def sent(count: int) -> None:
            if pace() or count == blob.size:
                self._report(progress.moving("Pushing", diff_id, count, blob.size))

        repository.upload_blob(blob.digest, blob.size, lambda: self._store.content.open(blob.digest), sent)

    def _blob(self, repository: Repository, digest: str) -> None:
        """Have the registry hold a small blob."""
        if not repository.has_blob(digest):
            content = self._store.content
            repository.upload_blob(digest, content.size(digest), lambda: content.open(digest), lambda _: None)

    # compressed forms

    def _form(self, layer: oci.Descriptor, diff_id: str, lease: Lease) -> _Blob:
        """What of a layer is pushed: its blob; a compressed form of one that is not, unless a registry has it so."""
        with self._store.content.open(layer.digest) as file:
            kind = detect(file.read(MAGIC_LENGTH))
        records = self._store.records
        if kind in _PUSHED_AS_THEY_ARE or records.was_pulled(layer.digest):
            return _Blob(layer.digest, layer.size)
        form = records.form(diff_id)
        if form is not None:
            lease(form.blob)
            if self._store.content.has(form.blob):
                return _Blob(form.blob, form.size)
        return self._compress(layer, diff_id, lease)

    def _compress(self, layer: oci.Descriptor, diff_id: str, lease: Lease) -> _Blob:
        form = self._store.content.new_ingest()
        try:
            with self._store.content.open(layer.digest) as file:
                for piece in _gzipped(open_plain(StreamSource(file))[0]):
                    self._cancellation.check()
                    form.append(piece)
            lease(form.finish())
            self._store.add_form(diff_id, form)
        finally:
            form.discard()
        return _Blob(form.digest, form.size)


def _gzipped(source: Source) -> Iterator[bytes]:
    compressor = gzip_compressor()
    while data := source.read(_PIECE):
        yield compressor.compress(data)
    yield compressor.flush()


def _with_layers(data: bytes, blobs: list[_Blob]) -> bytes:
    """A manifest with the layers as they are pushed: the bytes as they are when nothing is different."""
    document = json.loads(data)
    if [layer["digest"] for layer in document["layers"]] == [blob.digest for blob in blobs]:
        return data
    is_oci = document["config"]["mediaType"] == oci.CONFIG
    for layer, blob in zip(document["layers"], blobs, strict=True):
        if layer["digest"] != blob.digest:
            kind = f"{oci.LAYER}+gzip" if is_oci else _DOCKER_LAYER
            layer |= {"mediaType": kind, "digest": blob.digest, "size": blob.size}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
