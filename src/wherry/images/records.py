"""What the database knows of images, and the `Image` that the rest of the engine sees.

    layers        one row per unpacked layer: what is in `layers/`
    images        one row per image (its id is the digest of its config), with the manifest that describes it
    image_layers  the layers of an image, lowest first, each with the blob it came from
    layer_forms   the gzip form of a layer that is kept uncompressed, made when it was pushed
    blob_sources  in which repositories layer blobs have been seen: where a push can have them mounted from
    tags          names: `docker.io/library/x:latest`, or `docker.io/library/x@sha256:…` (of a manifest)

Rows name what exists: content first, then the row. What no row names is garbage.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Iterable
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from wherry.errors import Internal, NotFound
from wherry.images import oci
from wherry.images.content.store import ContentStore
from wherry.images.references import Reference, parse
from wherry.store.db import Database

log = logging.getLogger(__name__)

MIGRATIONS = (
    """
    CREATE TABLE layers (
        diff_id TEXT PRIMARY KEY,
        size INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE images (
        id TEXT PRIMARY KEY,
        manifest TEXT NOT NULL,
        manifest_type TEXT NOT NULL,
        manifest_size INTEGER NOT NULL,
        size INTEGER NOT NULL,
        parent TEXT NOT NULL,
        loaded_ns INTEGER NOT NULL,
        tagged_ns INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE image_layers (
        image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        diff_id TEXT NOT NULL REFERENCES layers (diff_id),
        blob TEXT NOT NULL,
        PRIMARY KEY (image, position)
    ) STRICT;
    CREATE INDEX image_layers_by_diff_id ON image_layers (diff_id);
    CREATE INDEX image_layers_by_blob ON image_layers (blob);
    CREATE TABLE tags (
        name TEXT PRIMARY KEY,
        image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE
    ) STRICT;
    CREATE INDEX tags_by_image ON tags (image)
    """,
    """
    CREATE TABLE layer_forms (
        diff_id TEXT PRIMARY KEY REFERENCES layers (diff_id) ON DELETE CASCADE,
        blob TEXT NOT NULL,
        size INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE blob_sources (
        blob TEXT NOT NULL,
        domain TEXT NOT NULL,
        path TEXT NOT NULL,
        seen_ns INTEGER NOT NULL,
        PRIMARY KEY (blob, domain, path)
    ) STRICT
    """,
)

_SOURCES_MAX = 20


_LAYER_BLOBS = "SELECT blob FROM image_layers UNION SELECT blob FROM layer_forms"


class HistoryItem(NamedTuple):
    """One line of `docker history`, newest first; `created` in Unix seconds, `size` in bytes."""

    id: str
    created: int
    created_by: str
    tags: list[str] | None
    size: int
    comment: str


class Image(msgspec.Struct, frozen=True):
    """An image as the engine sees it. `config` is the "config" object of the image's own JSON as it came; sizes are
    in bytes, -1 where not asked for; `created` is RFC 3339 text or empty; digests have their `sha256:`."""

    id: str
    repo_tags: list[str]
    repo_digests: list[str]
    created: str
    created_ns: int
    size: int
    architecture: str
    os: str
    variant: str
    os_version: str
    config: dict[str, Any]
    diff_ids: list[str]
    history: list[oci.History]
    parent: str
    comment: str
    author: str
    docker_version: str
    manifest: oci.Descriptor
    tagged_ns: int
    shared_size: int = -1
    containers: int = -1

    @property
    def platform(self) -> oci.Platform:
        """What it runs on."""
        return oci.Platform(self.architecture, self.os, self.variant)

    @property
    def labels(self) -> dict[str, str]:
        """The labels, empty when the image has none or has nonsense there."""
        labels = self.config.get("Labels")
        return labels if isinstance(labels, dict) else {}


class LayerRow(NamedTuple):
    """A layer of a new image: `size` unpacked, `blob` the digest of the blob it comes from."""

    diff_id: str
    size: int
    blob: str


def created_ns(text: str | None) -> int:
    """An RFC 3339 time in nanoseconds since 1970; 0 for what is none."""
    if not text:
        return 0
    try:
        head, dot, tail = text.partition(".")
        digits = len(tail) - len(tail.lstrip("0123456789"))
        moment = datetime.fromisoformat(head + tail[digits:] if dot else text)
        return int(moment.timestamp()) * 10**9 + (int(tail[:digits][:9].ljust(9, "0")) if digits else 0)
    except (ValueError, OverflowError):
        return 0


class Records:
    """The tables, and the images they and the content store make together."""

    def __init__(self, db: Database, content: ContentStore) -> None:
        self._db = db
        self._content = content
        self._cache: dict[str, Image] = {}
        self._cache_lock = threading.Lock()

    # images

    def ids(self) -> list[str]:
        """The ids of all images."""
        return [str(row[0]) for row in self._db.all("SELECT id FROM images ORDER BY id")]

    def image(self, image_id: str) -> Image:
        """The image with this full id, with its names of this moment. Raises `NotFound`, or `Internal` when its
        config is damaged."""
        sql = "SELECT manifest_type, manifest, manifest_size, size, parent, tagged_ns FROM images WHERE id = ?"
        row = self._db.one(sql, (image_id,))
        if row is None:
            raise NotFound(f"No such image: {image_id}")
        tags, digests = self._names(image_id)
        return msgspec.structs.replace(
            self._immutable(image_id),
            repo_tags=tags,
            repo_digests=digests,
            manifest=oci.Descriptor(str(row[0]), str(row[1]), _int(row[2])),
            size=_int(row[3]),
            parent=str(row[4]),
            tagged_ns=_int(row[5]),
        )

    def images(self) -> list[Image]:
        """All images; one whose config is damaged is left out and logged."""
        images = []
        for image_id in self.ids():
            try:
                images.append(self.image(image_id))
            except NotFound:  # removed meanwhile, or its config lost
                log.warning("image %s cannot be shown: its config is missing", image_id)
            except Internal as error:
                log.warning("image %s cannot be shown: %s", image_id, error)
        return images

    def find(self, term: str) -> str | None:
        """The id of the one image whose id begins with `term` (with or without `sha256:`), or None."""
        prefix = term.removeprefix("sha256:")
        if not prefix or len(prefix) > 64 or not set(prefix) <= set("0123456789abcdef"):
            return None
        sql = "SELECT id FROM images WHERE id >= ? AND id < ? LIMIT 2"
        rows = self._db.all(sql, (f"sha256:{prefix}", f"sha256:{prefix}g"))
        return str(rows[0][0]) if len(rows) == 1 else None

    def parent(self, image_id: str) -> str:
        """The id of the image's parent, "" for none."""
        row = self._db.one("SELECT parent FROM images WHERE id = ?", (image_id,))
        return str(row[0]) if row else ""

    def documents(self, image_id: str) -> list[str]:
        """The digests of what describes an image: its config and its manifest."""
        row = self._db.one("SELECT id, manifest FROM images WHERE id = ?", (image_id,))
        return [str(digest) for digest in row] if row else []

    def children(self, image_id: str) -> list[str]:
        """The ids of the images whose parent is this one."""
        return [str(row[0]) for row in self._db.all("SELECT id FROM images WHERE parent = ?", (image_id,))]

    def _immutable(self, image_id: str) -> Image:
        """What follows from the id: all that the config says."""
        with self._cache_lock:
            image = self._cache.get(image_id)
        if image is None:
            image = self._read(image_id)
            with self._cache_lock:
                self._cache[image_id] = image
        return image

    def _read(self, image_id: str) -> Image:
        data = self._content.read(image_id, oci.CONFIG_MAX)
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != image_id:
            raise Internal(f"image {image_id}: its config is damaged on disk")
        config = oci.decode(data, oci.ImageConfig, "image config", limit=oci.CONFIG_MAX)
        return Image(
            id=image_id,
            repo_tags=[],
            repo_digests=[],
            created=config.created or "",
            created_ns=created_ns(config.created),
            size=0,
            architecture=config.architecture,
            os=config.os,
            variant=config.variant,
            os_version=config.os_version,
            config=config.config or {},
            diff_ids=config.rootfs.diff_ids,
            history=config.history or [],
            parent="",
            comment=config.comment,
            author=config.author,
            docker_version=config.docker_version,
            manifest=oci.Descriptor("", "", 0),
            tagged_ns=0,
        )

    # names

    def _names(self, image_id: str) -> tuple[list[str], list[str]]:
        tags: list[str] = []
        digests: list[str] = []
        for reference in self.references(image_id):
            (digests if reference.digest else tags).append(reference.familiar)
        return tags, digests

    def references(self, image_id: str) -> list[Reference]:
        """The names of an image, sorted."""
        rows = self._db.all("SELECT name FROM tags WHERE image = ? ORDER BY name", (image_id,))
        return [parse(str(row[0])) for row in rows]

    def tags(self, repository: Reference) -> dict[Reference, str]:
        """The tags of a repository, sorted, with the ids of their images."""
        sql = "SELECT name, image FROM tags WHERE name >= ? AND name < ? ORDER BY name"
        rows = self._db.all(sql, (f"{repository.name}:", f"{repository.name};"))
        return {parse(str(name)): str(image) for name, image in rows}

    def lookup(self, reference: Reference) -> str | None:
        """The id of the image of that name; a digest in the name decides over a tag."""
        name = reference._replace(tag="") if reference.digest else reference.tagged()
        row = self._db.one("SELECT image FROM tags WHERE name = ?", (str(name),))
        return str(row[0]) if row else None

    def name(self, reference: Reference, image_id: str) -> str | None:
        """Point a name to an image, as a pull or push does, which is no time of tagging; returns the id it pointed to
        before. An image that is gone meanwhile gets none."""
        with self._db.transaction() as tx:
            if tx.execute("SELECT 1 FROM images WHERE id = ?", (image_id,)).fetchone() is None:
                return None
            before = tx.execute("SELECT image FROM tags WHERE name = ?", (str(reference),)).fetchone()
            if before is None or before[0] != image_id:
                tx.execute("INSERT OR REPLACE INTO tags VALUES (?, ?)", (str(reference), image_id))
        return before[0] if before else None

    def tag(self, reference: Reference, image_id: str, *, touch: bool = True) -> str | None:
        """Point a name to an image, `touch`: which is the time it was last tagged; returns the id it pointed to
        before."""
        with self._db.transaction() as tx:
            before = tx.execute("SELECT image FROM tags WHERE name = ?", (str(reference),)).fetchone()
            tx.execute("INSERT OR REPLACE INTO tags VALUES (?, ?)", (str(reference), image_id))
            if touch:
                tx.execute("UPDATE images SET tagged_ns = ? WHERE id = ?", (time.time_ns(), image_id))
        return before[0] if before else None

    def untag(self, reference: Reference) -> bool:
        """Remove a name; whether it was there."""
        name = reference._replace(tag="") if reference.digest else reference
        return self._db.execute("DELETE FROM tags WHERE name = ?", (str(name),)) > 0

    # adding and removing

    def add(self, image_id: str, manifest: oci.Descriptor, layers: list[LayerRow], parent: str) -> None:
        """Write the rows of an image whose content is on disk, in one transaction; one that exists stays as it is."""
        with self._db.transaction() as tx:
            if tx.execute("SELECT 1 FROM images WHERE id = ?", (image_id,)).fetchone():
                return
            size = sum(layer.size for layer in layers)
            now = time.time_ns()
            tx.execute(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
                (image_id, manifest.digest, manifest.media_type, manifest.size, size, parent, now),
            )
            for position, layer in enumerate(layers):
                tx.execute("INSERT OR IGNORE INTO layers VALUES (?, ?)", (layer.diff_id, layer.size))
                row = (image_id, position, layer.diff_id, layer.blob)
                tx.execute("INSERT INTO image_layers VALUES (?, ?, ?, ?)", row)

    def delete(self, image_id: str) -> None:
        """Remove the rows of an image, its names, and of the layers that only it had."""
        with self._db.transaction() as tx:
            tx.execute("DELETE FROM images WHERE id = ?", (image_id,))
            tx.execute("DELETE FROM layers WHERE diff_id NOT IN (SELECT diff_id FROM image_layers)")
            tx.execute(f"DELETE FROM blob_sources WHERE blob NOT IN ({_LAYER_BLOBS})")
        with self._cache_lock:
            self._cache.pop(image_id, None)

    # layers and blobs

    def layer_rows(self, image_id: str) -> list[LayerRow]:
        """The layers of an image, lowest first."""
        sql = """SELECT i.diff_id, l.size, i.blob FROM image_layers i JOIN layers l USING (diff_id)
                 WHERE i.image = ? ORDER BY i.position"""
        return [LayerRow(str(d), _int(s), str(b)) for d, s, b in self._db.all(sql, (image_id,))]

    def layer_of_blob(self, blob: str) -> LayerRow | None:
        """The layer that a blob is known to hold."""
        return self._layer("i.blob = ?", blob)

    def layer(self, diff_id: str) -> LayerRow | None:
        """A known layer, with one of the blobs that hold it."""
        return self._layer("i.diff_id = ?", diff_id)

    def _layer(self, where: str, value: str) -> LayerRow | None:
        sql = (
            f"SELECT i.diff_id, l.size, i.blob FROM image_layers i JOIN layers l USING (diff_id) WHERE {where} LIMIT 1"
        )
        row = self._db.one(sql, (value,))
        return LayerRow(str(row[0]), _int(row[1]), str(row[2])) if row else None

    def shared_layers(self, diff_ids: list[str]) -> int:
        """How many of the layers, from the lowest on, some image has in the same places."""
        if not diff_ids:
            return 0
        sql = """SELECT image, diff_id FROM image_layers WHERE image IN
                 (SELECT image FROM image_layers WHERE diff_id = ? AND position = 0) ORDER BY image, position"""
        found = groupby(self._db.all(sql, (diff_ids[0],)), key=lambda row: row[0])
        return max((_common([str(row[1]) for row in rows], diff_ids) for _, rows in found), default=0)

    def diff_ids(self) -> set[str]:
        """All layers that some image has."""
        return {str(row[0]) for row in self._db.all("SELECT diff_id FROM layers")}

    def blobs(self) -> set[str]:
        """All blobs that some image needs: configs, manifests, layers."""
        sql = f"SELECT id FROM images UNION SELECT manifest FROM images UNION {_LAYER_BLOBS}"
        return {str(row[0]) for row in self._db.all(sql)}

    # what registries have

    def form(self, diff_id: str) -> LayerRow | None:
        """The compressed form of a layer, `size` being the blob's."""
        row = self._db.one("SELECT diff_id, size, blob FROM layer_forms WHERE diff_id = ?", (diff_id,))
        return LayerRow(str(row[0]), _int(row[1]), str(row[2])) if row else None

    def add_form(self, form: LayerRow) -> None:
        """Note the compressed form of a layer, whose blob is on disk; of one that is gone meanwhile nothing."""
        sql = """INSERT OR REPLACE INTO layer_forms SELECT ?, ?, ?
                 WHERE EXISTS (SELECT 1 FROM layers WHERE diff_id = ?)"""
        self._db.execute(sql, (form.diff_id, form.blob, form.size, form.diff_id))

    def sources(self, blob: str, domain: str) -> list[str]:
        """The repositories of a registry that a layer's blob was seen in, the latest first."""
        sql = "SELECT path FROM blob_sources WHERE blob = ? AND domain = ? ORDER BY seen_ns DESC"
        return [str(row[0]) for row in self._db.all(sql, (blob, domain))]

    def was_pulled(self, blob: str) -> bool:
        """Whether a registry is known to have the blob."""
        return self._db.one("SELECT 1 FROM blob_sources WHERE blob = ?", (blob,)) is not None

    def add_sources(self, blobs: Iterable[str], domain: str, path: str) -> None:
        """Note that the repository has these blobs of layers; the oldest notes of many give way."""
        with self._db.transaction(durable=False) as tx:
            for blob in blobs:
                row = (blob, domain, path, time.time_ns())
                tx.execute("INSERT OR REPLACE INTO blob_sources VALUES (?, ?, ?, ?)", row)
                tx.execute(
                    """DELETE FROM blob_sources WHERE blob = ? AND domain = ? AND path NOT IN
                       (SELECT path FROM blob_sources WHERE blob = ? AND domain = ? ORDER BY seen_ns DESC LIMIT ?)""",
                    (blob, domain, blob, domain, _SOURCES_MAX),
                )

    def index(self) -> list[oci.Descriptor]:
        """The descriptors of `index.json`: one per tag, and one per image without."""
        sql = """SELECT i.manifest, i.manifest_type, i.manifest_size, t.name FROM images i
                 LEFT JOIN tags t ON t.image = i.id AND t.name NOT LIKE '%@%' ORDER BY t.name, i.id"""
        return [_index_entry(*row) for row in self._db.all(sql)]


def _index_entry(digest: object, media_type: object, size: object, name: object) -> oci.Descriptor:
    annotations = {oci.CONTAINERD_NAME: str(name), oci.REF_NAME: str(name)} if name else None
    return oci.Descriptor(str(media_type), str(digest), _int(size), annotations)


def _common(one: list[str], other: list[str]) -> int:
    """How many layers two images have in common, from the lowest on."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def chain_ids(diff_ids: Iterable[str]) -> list[str]:
    """The chain id of each layer: what it and all below it are together (image-spec `config.md`)."""
    chain: list[str] = []
    for diff_id in diff_ids:
        if chain:
            both = f"{chain[-1]} {diff_id}".encode()
            chain.append(f"sha256:{hashlib.sha256(both).hexdigest()}")
        else:
            chain.append(diff_id)
    return chain
