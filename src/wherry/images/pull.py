"""`docker pull`: an image of a registry becomes one of ours.

In this order: the manifest; of an index the manifest for the platform; the config; the layers, all at once (see
`downloads`). What is here already is not fetched, and what a pull relies on is leased until its rows are written.
Everything is checked against the digest it was asked for by: manifest, config, blobs, and each unpacked layer against
the config. Nothing a descriptor says leads anywhere else: its `urls` and `data` are not looked at.

The texts and the order of the lines are those of Docker's classic store (moby `distribution/pull_v2.go` in effect).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wherry.digests import check_digest
from wherry.errors import Internal, InvalidArgument, NotFound
from wherry.goquote import quote
from wherry.images import oci, platforms, progress
from wherry.images.content.ingest import Ingest
from wherry.images.downloads import Download
from wherry.images.incoming import NewImage
from wherry.images.load import KnownLayer
from wherry.images.progress import Report
from wherry.images.records import LayerRow
from wherry.images.references import Reference
from wherry.registry.cancel import Cancellation, Cancelled
from wherry.registry.client import Registry
from wherry.registry.credentials import Credentials
from wherry.registry.errors import RegistryError
from wherry.registry.repository import RawManifest, Repository

if TYPE_CHECKING:
    from wherry.images.store import ImageStore

_MISMATCH = "layers from manifest don't match image configuration"
# What registries have been seen to say of the config of an image; later kinds of documents always say what they are.
_CONFIG_TYPES = frozenset((*oci.CONFIG_TYPES, "application/octet-stream", "application/json", "text/html", ""))
_LAYER_TYPES = ("application/vnd.oci.image.", "application/vnd.docker.image.rootfs.", "application/octet-stream")
_PLUGIN = "application/vnd.docker.plugin.v1+json"
_SCHEMA_1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)

Lease = Callable[..., None]


class Pull:
    """One `docker pull`. `run` blocks and is called in a worker thread; `cancel` in any."""

    def __init__(
        self,
        store: "ImageStore",
        registry: Registry,
        reference: Reference,
        *,
        platform: oci.Platform | None = None,
        credentials: Credentials | None = None,
        report: Report,
    ) -> None:
        """`reference` without a tag or digest means all tags. `platform`: that of this machine when not given.
        `report` gets Docker's progress lines, from any thread."""
        self._store = store
        self._registry = registry
        self._reference = reference
        self._wanted = platform
        self._credentials = credentials
        self._report = report
        self._cancellation = Cancellation()
        self._gone: Future[None] = Future()

    def cancel(self) -> None:
        """Nobody wants it any more: `run` raises soon. What others pull as well goes on."""
        self._cancellation.cancel()
        if not self._gone.done():
            self._gone.set_result(None)

    def run(self) -> None:
        """Pull, and tell how it went. Raises `NotFound`, `InvalidArgument`, `Internal` with Docker's words; the store
        is as before then, but for what an earlier tag brought."""
        name = self._reference
        with self._connect(self._cancellation) as repository:
            whole = name.tag or name.digest
            references = [name] if whole else [name._replace(tag=tag) for tag in repository.tags()]
            changed = [self._pull(repository, reference) for reference in references]
        happened = "Downloaded newer image for" if any(changed) else "Image is up to date for"
        self._report(progress.message(f"Status: {happened} {name.familiar}"))
        self._warn_of_platform()

    def _connect(self, cancellation: Cancellation) -> Repository:
        name = self._reference
        return self._registry.repository(name.domain, name.path, self._credentials, cancel=cancellation)

    # one image

    def _pull(self, repository: Repository, reference: Reference) -> bool:
        """Pull one tag or digest; whether the name is another image's than before."""
        raw = _manifest(repository, reference)
        root = decode(raw)
        shown = reference.familiar if reference.digest else reference.tag
        self._report({"status": f"Pulling from {reference.path}", "id": shown})
        manifest, document = self._choose(repository, root, raw)
        names = self._names(reference, raw.digest)
        before = self._store.records.lookup(reference)
        with self._store.transfer() as lease:
            image_id = check_digest(manifest.config.digest)
            if self._store.is_whole(image_id, lease):
                self._store.name(image_id, names)
            else:
                self._receive(repository, manifest, document, names, lease)
        self._report(progress.message(f"Digest: {raw.digest}"))
        return before != image_id

    def _names(self, reference: Reference, digest: str) -> list[Reference]:
        """What the image will be called. A tag's pull does not take the digest from another image: that of an index
        stays with the first platform that was pulled by it, as in Docker's store."""
        by_digest = reference._replace(tag="", digest=digest)
        if reference.digest:
            return [by_digest]
        return [reference] if self._store.records.lookup(by_digest) else [reference, by_digest]

    def _choose(
        self, repository: Repository, root: oci.Manifest | oci.Index, raw: RawManifest
    ) -> tuple[oci.Manifest, RawManifest]:
        """The manifest of the platform, itself or out of an index."""
        if isinstance(root, oci.Index):
            entry = platforms.choose(root.manifests, self._wanted or platforms.best_platform())
            if entry is None:
                wanted = self._wanted or platforms.host_platform()
                raise NotFound(f"no matching manifest for {wanted} in the manifest list entries")
            raw = repository.manifest(check_digest(entry.digest))
            root = decode(raw, entry)
        if not isinstance(root, oci.Manifest):
            raise InvalidArgument("unsupported manifest format: an index in an index")
        _check_types(root)
        return root, raw

    def _receive(
        self,
        repository: Repository,
        manifest: oci.Manifest,
        raw: RawManifest,
        names: list[Reference],
        lease: Lease,
    ) -> None:
        data, config = _config(repository, manifest)
        diff_ids = config.rootfs.diff_ids
        if len(diff_ids) != len(manifest.layers):
            raise InvalidArgument(_MISMATCH)
        layers = _Layers(self._store, self._connect, self._report, self._gone)
        try:
            rows = layers.obtain(manifest.layers, diff_ids, lease)
            image = NewImage(manifest.config.digest, data, raw.data, raw.media_type, rows, names)
            self._cancellation.check()
            self._store.add_pulled(layers, image, self._reference.domain, self._reference.path)
        finally:
            layers.leave()

    def _warn_of_platform(self) -> None:
        """What Docker says of an image that is no index and not what was asked for."""
        name = self._reference
        if self._wanted is None or not (name.tag or name.digest):
            return
        image = self._store.resolve(name.familiar)
        found = oci.Platform(image.architecture, image.os, image.variant)
        if not platforms.runs_on(found, self._wanted):
            self._report(progress.message(f"WARNING: {mismatch(name, found, self._wanted)}"))


class _Layers:
    """The layers of one pull: what is here, and what is on its way."""

    def __init__(
        self, store: "ImageStore", open_: Callable[[Cancellation], Repository], report: Report, gone: "Future[None]"
    ) -> None:
        self._store = store
        self._open = open_
        self._report = report
        self._gone = gone
        self._downloads: dict[str, Download] = {}
        self._own: set[str] = set()
        self._documents: list[Ingest] = []

    def obtain(self, layers: Sequence[oci.Descriptor], diff_ids: Sequence[str], lease: Lease) -> list[LayerRow]:
        """Have all layers, unpacked and verified; returns their rows."""
        known: dict[str, KnownLayer] = {}
        lease(*(layer.digest for layer in layers), *diff_ids)
        wanted: dict[str, oci.Descriptor] = {}
        for layer in layers:
            here = self._store.known_layer(layer.digest, lease)
            if here is not None:
                known[layer.digest] = here
                self._report(progress.layer("Already exists", layer.digest))
            elif layer.digest not in wanted:
                wanted[layer.digest] = layer
                self._report(progress.layer("Pulling fs layer", layer.digest))
        for layer in wanted.values():
            self._join(layer)
        self._wait(wanted)
        rows = [self._row(layer.digest, known) for layer in layers]
        if [row.diff_id for row in rows] != list(diff_ids):
            raise InvalidArgument(_MISMATCH)
        return rows

    def _join(self, layer: oci.Descriptor) -> None:
        download, own = self._store.downloads.join(layer, self._open, self._report)
        self._downloads[layer.digest] = download
        if own:
            self._own.add(layer.digest)

    def _wait(self, wanted: dict[str, oci.Descriptor]) -> None:
        """Wait for all, or the first failure, or the end of interest. What failed in another pull's hands is tried
        anew, in ours."""
        waiting = set(wanted)
        while waiting:
            digests = {self._downloads[digest].done: digest for digest in waiting}
            futures: list[Future[Any]] = [*digests, self._gone]
            finished, _ = wait(futures, return_when=FIRST_COMPLETED)
            if self._gone.done():
                raise Cancelled
            for done in finished:
                digest = digests[done]
                if done.exception() is None or digest in self._own:
                    done.result()
                    waiting.remove(digest)
                    continue
                self._store.downloads.leave(self._downloads.pop(digest), self._report)
                self._join(wanted[digest])

    def _row(self, digest: str, known: dict[str, KnownLayer]) -> LayerRow:
        if digest in known:
            return known[digest].layer
        unpacked = self._downloads[digest].done.result()
        return LayerRow(unpacked.diff_id, unpacked.size, digest)

    def leave(self) -> None:
        """Give up what was not published."""
        for download in self._downloads.values():
            self._store.downloads.leave(download, self._report)
        for document in self._documents:
            document.discard()

    # what the store takes

    def document(self, data: bytes) -> Ingest:
        """Take in a config or manifest."""
        ingest = self._store.content.add(data)
        self._documents.append(ingest)
        return ingest

    def take(self, wanted_blobs: set[str], wanted_layers: set[str]) -> tuple[list[Ingest], dict[str, Path]]:
        """Hand over blobs and trees. They may be another pull's as well, and published by it meanwhile."""
        downloads = [d for d in self._downloads.values() if d.digest in wanted_blobs]
        trees = {d.done.result().diff_id: d.path for d in downloads}
        return [*self._documents, *(d.ingest for d in downloads)], trees


def mismatch(reference: Reference, found: oci.Platform, wanted: oci.Platform) -> str:
    """What Docker says of an image of another platform than the one asked for."""
    return (
        f"image with reference {reference.familiar} was found but its platform ({found}) does not match "
        f"the specified platform ({wanted})"
    )


def _manifest(repository: Repository, reference: Reference) -> RawManifest:
    try:
        return repository.manifest(reference.digest or reference.tag)
    except NotFound as error:
        asked = reference._replace(tag="") if reference.digest else reference
        raise NotFound(error.message.replace(asked.familiar, reference.familiar, 1)) from None


def decode(raw: RawManifest, announced: oci.Descriptor | None = None) -> oci.Manifest | oci.Index:
    """The document a registry gave, as what it was announced to be: by an index, else by the registry itself."""
    media_type = raw.media_type
    if media_type in _SCHEMA_1:
        raise InvalidArgument(
            "Docker Image Format v1 and Docker Image manifest version 2, schema 1 are not supported: ask the author "
            "of the image to publish it in the OCI Image Format"
        )
    if announced is not None:
        if announced.size != len(raw.data):
            raise InvalidArgument(
                f"manifest {raw.digest}: has {len(raw.data)} bytes, not {announced.size} as announced"
            )
        media_type = announced.media_type
    if media_type not in (*oci.INDEX_TYPES, *oci.MANIFEST_TYPES):
        raise InvalidArgument(f"unsupported media type {media_type}")
    document = oci.decode_manifest_or_index(raw.data, oci.Descriptor(media_type, raw.digest, len(raw.data)))
    if media_type == oci.DOCKER_MANIFEST and isinstance(document, oci.Manifest):
        kind = document.config.media_type
        if kind not in _CONFIG_TYPES:
            known = "plugin" if kind == _PLUGIN else "unknown"
            raise InvalidArgument(f"Encountered remote {quote(kind)}({known}) when fetching")
    return document


def _check_types(manifest: oci.Manifest) -> None:
    """Refuse what is no image (a chart, a signature, …) and what cannot be stored under its digest."""
    if manifest.config.media_type not in _CONFIG_TYPES:
        raise InvalidArgument(f"unsupported media type {manifest.config.media_type}")
    _check_sha256(manifest.config.digest)
    oci.check_layers(len(manifest.layers))
    for layer in manifest.layers:
        if not layer.media_type.startswith(_LAYER_TYPES):
            raise InvalidArgument(f"unsupported media type {layer.media_type}")
        if layer.size < 0:
            raise InvalidArgument(f"layer {layer.digest}: invalid size {layer.size}")
        _check_sha256(layer.digest)


def _check_sha256(digest: str) -> None:
    if not check_digest(digest).startswith("sha256:"):
        raise InvalidArgument(f"unsupported digest algorithm: {digest}")


def _config(repository: Repository, manifest: oci.Manifest) -> tuple[bytes, oci.ImageConfig]:
    """The image's config, verified and of this kind of system."""
    descriptor = manifest.config
    if descriptor.size > oci.CONFIG_MAX:
        raise InvalidArgument(f"image config: larger than {oci.CONFIG_MAX} bytes")
    try:
        data = repository.small_blob(descriptor.digest, descriptor.size)
    except RegistryError as error:
        why = str(error).replace("filesystem layer verification", "image config verification")
        raise Internal(f"error pulling image configuration: {why}") from error
    config = oci.decode(data, oci.ImageConfig, "image config", limit=oci.CONFIG_MAX)
    if config.os not in ("linux", ""):
        raise InvalidArgument(
            f'image operating system "{config.os}" cannot be used on this platform: operating system is not supported'
        )
    for diff_id in config.rootfs.diff_ids:
        _check_sha256(diff_id)
    return data, config
