"""Reading the archives of `docker save`, `podman save`, `skopeo copy oci-archive:` and their like, in one pass.

The members come in any order, and what each is shows only at the end, when the manifest is known. So whatever looks
like a layer (a tar or a compressed file) is received, hashed and unpacked at once, in parallel, and small other
members are remembered; at the end the layers no image asked for are thrown away. Nothing is written under a name
from the archive. What is kept is the blob as it came, compressed or not, so that save and push give it back byte for
byte; an image from a docker-archive without an OCI manifest gets one made.

    manifest.json         docker-archive: configs and layers by member name   (read first, as Docker does)
    index.json            OCI layout: manifests by digest, perhaps nested indexes by platform
    repositories, */json  docker-archive of 2015 and before: chains of single layers (see `load_legacy`)
"""

import hashlib
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from wherry.errors import InvalidArgument, NotFound
from wherry.images import load_legacy, oci
from wherry.images.archive import headers
from wherry.images.archive.compression import detect
from wherry.images.archive.names import clean, show
from wherry.images.archive.reader import Entry, Source, TarReader
from wherry.images.incoming import Incoming, IncomingLayer, NewImage
from wherry.images.records import LayerRow, Records
from wherry.images.references import Reference, check_digest, parse

Progress = Callable[[dict[str, Any]], None]

_DOCUMENTS_MAX = 64 << 20
_DOCUMENT_COUNT_MAX = 50_000
_NESTING_MAX = 4
_ALIASES_MAX = 20
_PROGRESS_INTERVAL_S = 0.1
_INDEX_DOCUMENTS = ("manifest.json", "index.json", "repositories", "oci-layout")


class KnownLayer(NamedTuple):
    """A layer member whose blob is in the store already: not even read."""

    layer: LayerRow
    descriptor: oci.Descriptor


class Archive:
    """The members of one archive after `receive`."""

    def __init__(self, incoming: Incoming, progress: Progress, known: Callable[[str], KnownLayer | None]) -> None:
        """`known(digest)` says whether a blob is here, and keeps it here until the load is over."""
        self._incoming = incoming
        self._progress = progress
        self._known = known
        self._documents: dict[str, bytes] = {}
        self._document_bytes = 0
        self._layers: dict[str, IncomingLayer | KnownLayer] = {}
        self._aliases: dict[str, str] = {}

    def receive(self, source: Source) -> None:
        """Take in everything. Raises `InvalidArgument` for damaged archives, OSError."""
        reader = TarReader(source)
        for entry in reader:
            name = os.fsdecode(b"/".join(clean(entry.name)))
            if entry.type == headers.REGULAR:
                self._member(name, entry, reader)
            elif entry.type in (headers.SYMLINK, headers.HARDLINK):
                # names inside the archive only: resolved here, never by the kernel
                base = b"/".join(clean(entry.name)[:-1]) + b"/" if entry.type == headers.SYMLINK else b""
                self._remember(len(entry.name) + len(base) + len(entry.linkname))
                self._aliases[name] = os.fsdecode(b"/".join(clean(base + entry.linkname)))
        reader.drain()  # a compressed one is whole only then

    def _member(self, name: str, entry: Entry, reader: TarReader) -> None:
        if name in _INDEX_DOCUMENTS and entry.size > oci.CONFIG_MAX:
            raise InvalidArgument(f"{name}: larger than {oci.CONFIG_MAX} bytes")
        head = reader.peek(headers.BLOCK)
        if name not in _INDEX_DOCUMENTS and _looks_like_layer(head):
            self._layer(name, entry, reader)
        elif entry.size <= oci.CONFIG_MAX:
            self._remember(len(entry.name) + entry.size)
            self._documents[name] = reader.read(oci.CONFIG_MAX)

    def _remember(self, size: int) -> None:
        """Before something of `size` bytes, a long name perhaps, is kept in memory to the end."""
        self._document_bytes += size
        if self._document_bytes > _DOCUMENTS_MAX or len(self._documents) + len(self._aliases) >= _DOCUMENT_COUNT_MAX:
            raise InvalidArgument("invalid archive: too many documents")

    def _layer(self, name: str, entry: Entry, reader: TarReader) -> None:
        directory, _, stem = name.rpartition("/")
        if directory == "blobs/sha256" and len(stem) == 64:
            known = self._known(f"sha256:{stem}")
            if known is not None:
                self._layers[name] = known
                return
        label = (directory.rpartition("/")[2] if stem == "layer.tar" else stem)[:12]
        report = _Reporter(self._progress, label, entry.size)

        def pieces(append: Callable[[bytes | memoryview], None]) -> None:
            for view in reader.content():
                append(view)
                report(len(view))

        self._layers[name] = self._incoming.layer(pieces)

    # looking up

    def _follow(self, name: str) -> str:
        name = os.fsdecode(b"/".join(clean(os.fsencode(name))))
        for _ in range(_ALIASES_MAX):
            if name not in self._aliases:
                return name
            name = self._aliases[name]
        raise InvalidArgument(f"invalid archive: too many links at {name!r}")

    def document(self, name: str) -> bytes | None:
        """A small member by name."""
        return self._documents.get(self._follow(name))

    def names(self) -> list[str]:
        """The names of all documents."""
        return list(self._documents)

    def layer(self, name: str) -> IncomingLayer | KnownLayer | None:
        """A layer by name."""
        return self._layers.get(self._follow(name))

    def blob(self, descriptor: oci.Descriptor) -> bytes:
        """The document that `descriptor` points to, verified."""
        digest = check_digest(descriptor.digest)
        data = self.document("blobs/" + digest.replace(":", "/"))
        if data is None:
            raise NotFound(f"content digest {digest}: not found in the archive")
        if descriptor.size != len(data) or _digest(data) != digest:
            raise InvalidArgument(f"content digest {digest}: the archive's member does not match")
        return data


class _Reporter:
    """Docker's progress lines of one layer, at most ten a second."""

    def __init__(self, progress: Progress, label: str, total: int) -> None:
        self._progress = progress
        self._label = label
        self._total = total
        self._current = 0
        self._next = 0.0

    def __call__(self, length: int) -> None:
        self._current += length
        now = time.monotonic()
        if now < self._next and self._current < self._total:
            return
        self._next = now + _PROGRESS_INTERVAL_S
        detail = {"current": self._current, "total": self._total}
        self._progress({"status": "Loading layer", "progressDetail": detail, "id": self._label})


def _looks_like_layer(head: bytes) -> bool:
    if detect(head):
        return True
    return len(head) == headers.BLOCK and (head == headers.ZERO_BLOCK or headers.checksum_matches(head))


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Resolver:
    """Finds the images of a received archive."""

    def __init__(self, archive: Archive, records: Records, host: oci.Platform, wanted: oci.Platform | None) -> None:
        """`wanted` is the platform asked for, `host` the one taken when none was."""
        self._archive = archive
        self._records = records
        self._host = host
        self._wanted = wanted
        self._earlier: dict[str, list[str]] = {}  # layers by image, of this archive

    def images(self) -> list[NewImage]:
        """All images of the archive, each once with all its names, layers verified. Raises `InvalidArgument` for
        whatever does not fit together, `NotFound` when the platform asked for is not there."""
        found: dict[str, NewImage] = {}
        for image in self._found():
            known = found.setdefault(image.id, image)
            known.names.extend(name for name in image.names if name not in known.names)
        return list(found.values())

    def _found(self) -> list[NewImage]:
        manifest = self._archive.document("manifest.json")
        if manifest is not None:
            return self._docker_images(manifest)
        index = self._archive.document("index.json")
        if index is not None:
            return self._layout_images(oci.decode(index, oci.Index, "index.json"))
        if self._archive.document("repositories") is not None:
            return self._legacy_images()
        raise InvalidArgument("invalid archive: does not contain a manifest.json, an index.json or a repositories file")

    # docker-archive

    def _docker_images(self, manifest: bytes) -> list[NewImage]:
        if manifest.strip() == b"null":
            raise InvalidArgument("invalid manifest, manifest cannot be null (but can be [])")
        items = oci.decode(manifest, list[oci.ArchiveImage], "manifest.json", limit=oci.CONFIG_MAX)
        found = [image for item in items if (image := self._docker_image(item)) is not None]
        if items and not found:
            raise NotFound(f"the archive has no image for platform {self._wanted}")
        return found

    def _docker_image(self, item: oci.ArchiveImage) -> NewImage | None:
        """One image; None when it is for another platform than the one asked for."""
        data = self._archive.document(item.config)
        if data is None:
            raise InvalidArgument(f"invalid manifest, config {show(os.fsencode(item.config))} not found in the archive")
        config = _decode_config(data)
        names = [_tag(tag) for tag in item.repo_tags or []]
        if len(config.rootfs.diff_ids) != len(item.layers):
            raise InvalidArgument(
                f"invalid manifest, layers length mismatch: expected {len(item.layers)}, "
                f"got {len(config.rootfs.diff_ids)}"
            )
        if self._wanted is not None and not oci.fits(config.platform, self._wanted):
            return None
        oci.check_layers(len(item.layers))
        pairs = zip(item.layers, config.rootfs.diff_ids, strict=True)
        found = [self._docker_layer(at, name, diff_id) for at, (name, diff_id) in enumerate(pairs)]
        rows = [row for row, _ in found]
        descriptors = [descriptor for _, descriptor in found]
        image_id = _digest(data)
        self._earlier[image_id] = [row.diff_id for row in rows]
        document, media_type = self._original_manifest(image_id, descriptors) or make_manifest(data, descriptors)
        parent = self._parent(check_digest(item.parent), rows) if item.parent else ""
        return NewImage(image_id, data, document, media_type, rows, names, parent)

    def _parent(self, image_id: str, rows: list[LayerRow]) -> str:
        """The parent an archive tells of, if it can be that: an image that is here, or came before, and has some of the
        layers, but not all. So no chain of parents is a circle."""
        diff_ids = [row.diff_id for row in rows]
        known = self._earlier.get(image_id)
        if known is None:
            known = [row.diff_id for row in self._records.layer_rows(image_id)]
            if not known and self._records.find(image_id) is None:
                return ""
        return image_id if len(known) < len(diff_ids) and known == diff_ids[: len(known)] else ""

    def _docker_layer(self, position: int, name: str, diff_id: str) -> tuple[LayerRow, oci.Descriptor]:
        check_digest(diff_id)
        layer = self._archive.layer(name)
        if layer is None:
            raise InvalidArgument(f"invalid manifest, layer {show(os.fsencode(name))} not found in the archive")
        row, descriptor = _settle(layer)
        if row.diff_id != diff_id:
            raise InvalidArgument(f'invalid diffID for layer {position}: expected "{diff_id}", got "{row.diff_id}"')
        return row, descriptor

    def _original_manifest(self, image_id: str, layers: list[oci.Descriptor]) -> tuple[bytes, str] | None:
        """The OCI manifest of the same image that newer docker-archives carry as well: keeping it keeps its digest."""
        data = self._archive.document("index.json")
        if data is None:
            return None
        for descriptor in oci.decode(data, oci.Index, "index.json").manifests:
            if descriptor.media_type not in oci.MANIFEST_TYPES:
                continue
            document = self._archive.blob(descriptor)
            manifest = oci.decode_manifest_or_index(document, descriptor)
            if not isinstance(manifest, oci.Manifest) or manifest.config.digest != image_id:
                continue
            if [layer.digest for layer in manifest.layers] == [layer.digest for layer in layers]:
                return document, descriptor.media_type
        return None

    # OCI layout

    def _layout_images(self, index: oci.Index) -> list[NewImage]:
        images: list[NewImage] = []
        for descriptor in index.manifests:
            names = _names_of(descriptor)
            images.extend(self._layout_image(chosen, names) for chosen in self._choose(descriptor, 0))
        if not images:
            raise NotFound(f"the archive has no image for platform {self._wanted or self._host}")
        return images

    def _choose(self, descriptor: oci.Descriptor, depth: int) -> list[oci.Descriptor]:
        """The manifest to take of what `descriptor` points to: of an index the one for our platform, or none."""
        if descriptor.media_type in oci.MANIFEST_TYPES:
            # an archive of one foreign image is loaded as it is, unless a platform was asked for
            lenient = depth == 0 and self._wanted is None and not _is_attestation(descriptor.platform)
            return [descriptor] if lenient or self._is_wanted(descriptor.platform) else []
        if depth >= _NESTING_MAX:
            raise InvalidArgument("image index: nested too deeply")
        document = oci.decode_manifest_or_index(self._archive.blob(descriptor), descriptor)
        if isinstance(document, oci.Manifest):
            return [descriptor]
        candidates = [c for c in document.manifests if c.media_type in oci.INDEX_TYPES or self._is_wanted(c.platform)]
        for candidate in sorted(candidates, key=lambda c: self._rank(c.platform)):
            chosen = self._choose(candidate, depth + 1)
            if chosen:
                return chosen
        return []

    def _is_wanted(self, platform: oci.Platform | None) -> bool:
        if platform is None:
            return True
        if _is_attestation(platform):
            return False
        return oci.fits(platform, self._wanted or self._host)

    def _rank(self, platform: oci.Platform | None) -> int:
        """Exact variants first."""
        wanted = self._wanted or self._host
        return 0 if platform is not None and platform.variant == wanted.variant else 1

    def _layout_image(self, descriptor: oci.Descriptor, names: list[Reference]) -> NewImage:
        document = self._archive.blob(descriptor)
        manifest = oci.decode_manifest_or_index(document, descriptor)
        if not isinstance(manifest, oci.Manifest):
            raise InvalidArgument("image index: expected a manifest")
        if manifest.config.media_type not in oci.CONFIG_TYPES:
            raise InvalidArgument(f"not a container image: config of type {manifest.config.media_type!r}")
        data = self._archive.blob(manifest.config)
        config = _decode_config(data)
        if len(config.rootfs.diff_ids) != len(manifest.layers):
            raise InvalidArgument(
                f"invalid manifest, layers length mismatch: expected {len(manifest.layers)}, "
                f"got {len(config.rootfs.diff_ids)}"
            )
        if self._wanted is not None and not oci.fits(config.platform, self._wanted):
            raise NotFound(f"requested platform ({self._wanted}) not found: the image has {config.platform}")
        oci.check_layers(len(manifest.layers))
        rows = []
        for position, (layer, diff_id) in enumerate(zip(manifest.layers, config.rootfs.diff_ids, strict=True)):
            row, found = self._docker_layer(position, "blobs/" + check_digest(layer.digest).replace(":", "/"), diff_id)
            if found.digest != layer.digest or found.size != layer.size:
                raise InvalidArgument(f"content digest {layer.digest}: the archive's member does not match")
            rows.append(row)
        return NewImage(_digest(data), data, document, descriptor.media_type, rows, names)

    # legacy

    def _legacy_images(self) -> list[NewImage]:
        images = []
        for legacy in load_legacy.images(self._archive.document, _tag_of):
            oci.check_layers(len(legacy.layers))
            found = [_settle(self._required(name)) for name in legacy.layers]
            data = load_legacy.config(legacy, [row.diff_id for row, _ in found])
            document, media_type = make_manifest(data, [descriptor for _, descriptor in found])
            rows = [row for row, _ in found]
            images.append(NewImage(_digest(data), data, document, media_type, rows, legacy.names))
        return images

    def _required(self, name: str) -> IncomingLayer | KnownLayer:
        layer = self._archive.layer(name)
        if layer is None:
            raise InvalidArgument(f"invalid archive: layer {name!r} is missing")
        return layer


def _settle(layer: IncomingLayer | KnownLayer) -> tuple[LayerRow, oci.Descriptor]:
    """Wait for a layer to be unpacked."""
    if isinstance(layer, KnownLayer):
        return layer
    return layer.row(), layer.descriptor()


def make_manifest(config: bytes, layers: list[oci.Descriptor]) -> tuple[bytes, str]:
    """An OCI manifest for a config and layers, and its media type."""
    descriptor = oci.Descriptor(oci.CONFIG, _digest(config), len(config))
    manifest = oci.Manifest(config=descriptor, layers=layers, schema_version=2, media_type=oci.MANIFEST)
    return oci.encode(manifest), oci.MANIFEST


def _decode_config(data: bytes) -> oci.ImageConfig:
    config = oci.decode(data, oci.ImageConfig, "image config", limit=oci.CONFIG_MAX)
    for diff_id in config.rootfs.diff_ids:
        check_digest(diff_id)
    if config.os not in ("linux", ""):
        raise InvalidArgument(f"cannot load {config.os} image on linux")
    return config


def _is_attestation(platform: oci.Platform | None) -> bool:
    """Whether a manifest says of itself, as attestations do, that it runs nowhere."""
    return platform is not None and platform.os == "unknown"


def _tag(text: str) -> Reference:
    reference = parse(text)
    if not reference.tag or reference.digest:
        raise InvalidArgument(f'invalid tag "{text}"')
    return reference


def _tag_of(repository: str, tag: str) -> Reference:
    return _tag(f"{repository}:{tag}")


def _names_of(descriptor: oci.Descriptor) -> list[Reference]:
    """The name an OCI layout gives an image: containerd's annotation, or a ref.name that is more than a tag."""
    annotations = descriptor.annotations or {}
    name = annotations.get(oci.CONTAINERD_NAME, "")
    if not name:
        short = annotations.get(oci.REF_NAME, "")
        name = short if ":" in short or "/" in short else ""
    if not name:
        return []
    reference = parse(name)
    return [] if reference.digest else [reference.tagged()]
