"""The image store: the one door to this room.

Everything here blocks and is called in worker threads. Writing is in this order, so that a crash leaves either the
whole image or garbage that `collect_garbage` finds: blobs into `ingest/` and trees into `.new-*`; one syncfs for all;
both renamed to their names, directories synced; rows in one transaction; `index.json` from the rows.

A load that is under way holds leases (in memory: a crash frees them) on the blobs and layers it relies on, so that a
removal at the same time leaves them. So does a container on the layers below it, which outlive its image where that is
removed by force; what the containers have is told at start (`keep`), before garbage is collected.
"""

import builtins  # `list` is a method here
import errno
import hashlib
import logging
import os
import re
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from wherry import failpoint
from wherry.errors import Internal, NotFound
from wherry.images import listing, oci, records, save
from wherry.images.archive.compression import detect
from wherry.images.archive.pack import Sink
from wherry.images.archive.sources import StreamSource, open_plain
from wherry.images.changes import apply_changes
from wherry.images.commit import Commit, image_config, imported_config, pack_layer
from wherry.images.content.ingest import Ingest
from wherry.images.content.store import ContentStore
from wherry.images.downloads import Downloads
from wherry.images.incoming import Arrived, Incoming, NewImage
from wherry.images.leases import Leases
from wherry.images.load import Archive, KnownLayer, Progress, Resolver, make_manifest
from wherry.images.platforms import host_platform
from wherry.images.records import HistoryItem, Image, Records
from wherry.images.references import Reference, is_image_id, parse, parse_tag_target
from wherry.images.removal import ImageUser, Removal, Users
from wherry.images.snapshots.base import Driver
from wherry.images.snapshots.diff import Differ
from wherry.images.snapshots.layers import LayerStore, sync_file_system
from wherry.images.snapshots.overlay import OverlayDriver
from wherry.store.atomic import sync_directory
from wherry.store.db import Database
from wherry.store.paths import Paths

__all__ = ["MIGRATIONS", "HistoryItem", "Image", "ImageStore", "ImageUser"]

log = logging.getLogger(__name__)

MIGRATIONS = records.MIGRATIONS

# The layer of an image without layers: overlay needs a lower directory. The digest is that of an empty archive.
_EMPTY_LAYER = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
_IMPORT_PIECE = 1 << 20
_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


class _Gone(NamedTuple):
    """An image whose rows were deleted, and what they named."""

    id: str
    blobs: list[str]
    diff_ids: list[str]


class ImageStore:
    """The images of one data root. Thread-safe."""

    def __init__(self, db: Database, paths: Paths, driver: Driver | None = None) -> None:
        """`driver` makes root file systems of layers; overlay when not given."""
        self._paths = paths
        self._content = ContentStore(paths)
        self._records = Records(db, self._content)
        self._db = db
        self._driver: Driver = driver or OverlayDriver()
        self._layers = LayerStore(paths, indexes=self._driver.indexes)
        self._lock = threading.RLock()  # held while content is published, or deleted
        self._leases = Leases()  # blobs and layers that loads rely on
        self._held = Leases()  # layers, and merged copies by image, that containers have
        self.downloads = Downloads(self._content, self._layers, paths.layers)

    # reading

    def resolve(self, ref: str, platform: oci.Platform | None = None) -> Image:
        """The image that `ref` names: a name with or without tag or digest, an id, a unique beginning of one.

        Raises `NotFound` (`No such image: …`), also for an image that is for another platform than `platform`, and
        `InvalidArgument` for what no name can be.
        """
        image = self._records.image(self._resolve(ref))
        if platform is not None and not oci.fits(image.platform, platform):
            raise NotFound(
                f"image with reference {ref} was found but its platform ({image.platform}) does not match the "
                f"specified platform ({platform})"
            )
        return image

    def labels_of(self, ref: str) -> tuple[str, dict[str, str]]:
        """The id of the image that `ref` names and its labels, none when it is damaged. Raises as `resolve`."""
        image_id = self._resolve(ref)
        try:
            return image_id, self._records.image(image_id).labels
        except Internal:
            return image_id, {}

    def _resolve(self, ref: str) -> str:
        if is_image_id(ref):
            found = self._records.find(ref)
            if found is None:
                raise NotFound(f"No such image: sha256:{ref.removeprefix('sha256:')}")
            return found
        reference = parse(ref)
        found = self._records.lookup(reference) or self._records.find(ref)
        if found is None:
            raise NotFound(f"No such image: {reference.tagged().familiar}")
        return found

    def list(
        self,
        *,
        all: bool = False,
        filters: dict[str, builtins.list[str]] | None = None,
        shared_size: bool = False,
        in_use: Callable[[str], int] | None = None,
    ) -> builtins.list[Image]:
        """The images, newest first. `all` shows untagged parents too; `filters` are those of GET /images/json;
        `in_use(id)` counts the containers of an image, for `containers`."""
        images = self._records.images()
        chosen = listing.select(
            images,
            show_all=all,
            filters=filters or {},
            find=self.resolve,
            parents={image.parent for image in images if image.parent},
        )
        if shared_size:
            sizes = {row.diff_id: row.size for image in images for row in self._records.layer_rows(image.id)}
            shared = {image.id: image.shared_size for image in listing.with_shared_size(images, sizes)}
            chosen = [msgspec.structs.replace(image, shared_size=shared[image.id]) for image in chosen]
        if in_use is not None:
            chosen = [msgspec.structs.replace(image, containers=in_use(image.id)) for image in chosen]
        return chosen

    def history(self, ref: str, platform: oci.Platform | None = None) -> builtins.list[HistoryItem]:
        """How the image came to be, newest step first; ids and tags of the steps that are images here. Raises as
        `resolve`, and `Internal` for an image that tells of more layers than it has."""
        image = self.resolve(ref, platform)
        sizes = iter([row.size for row in self._records.layer_rows(image.id)])
        items = []
        for step in image.history:
            size = 0 if step.empty_layer else next(sizes, None)
            if size is None:
                raise Internal("too many non-empty layers in History section")
            seconds = records.created_ns(step.created) // 10**9
            items.append(HistoryItem("<missing>", seconds, step.created_by, None, size, step.comment))
        items.reverse()
        for at, item in enumerate(items):
            items[at] = item._replace(id=image.id, tags=image.repo_tags or None)
            if not image.parent or image.parent not in self._records.ids():
                break
            image = self._records.image(image.parent)
        return items

    def layers_size(self) -> int:
        """Bytes of all unpacked layers; one that several images share counts once."""
        sizes = {
            row.diff_id: row.size for image_id in self._records.ids() for row in self._records.layer_rows(image_id)
        }
        return sum(sizes.values())

    def unused_size(self, image_ids: Collection[str]) -> int:
        """Bytes of the layers that would go with the images `image_ids`."""
        going, staying = {}, set()
        for image_id in self._records.ids():
            for row in self._records.layer_rows(image_id):
                if image_id in image_ids:
                    going[row.diff_id] = row.size
                else:
                    staying.add(row.diff_id)
        return sum(size for diff_id, size in going.items() if diff_id not in staying)

    def lower_dirs(self, image: Image) -> builtins.list[str]:
        """The directories under a container of this image, TOP FIRST, at least one; with vfs they are one copy of them
        all, made at the first call. Raises `Internal` when a layer is gone from the disk, OSError."""
        paths = [self._layers.directory(diff_id) for diff_id in self._layer_ids(image)] or [self._empty_layer()]
        return [os.fspath(path) for path in self._driver.lower(image.id, paths)]

    def hold(self, image: Image) -> builtins.list[str]:
        """`lower_dirs`, which stay until `let_go` of them. Raises `NotFound` too, for an image removed meanwhile."""
        whole = [image.id, _EMPTY_LAYER, *image.diff_ids]
        with self._lock:
            self._records.image(image.id)
            self._held.take(whole)
        try:
            directories = self.lower_dirs(image)
            self.keep(directories)
        finally:
            self._unhold(whole)
        return directories

    def keep(self, directories: builtins.list[str]) -> None:
        """The lower directories of a container that is there: they stay until `let_go`."""
        with self._lock:
            self._held.take(_keys(directories))

    def let_go(self, directories: builtins.list[str]) -> None:
        """A container is gone: so are the layers of a removed image that only it had."""
        self._unhold(_keys(directories))

    def _unhold(self, keys: builtins.list[str]) -> None:
        with self._lock:
            self._held.end(keys)
            free = [key for key in dict.fromkeys(keys) if key not in self._held]
            self._sweep([], free)
            for key in set(free) - set(self._records.ids()):
                self._release(key)
        self._layers.purge()

    def _release(self, key: str) -> None:
        if key not in self._held:
            self._driver.release(key)

    def ready(self, lower_dirs: builtins.list[str]) -> builtins.list[str]:
        """What `lower_dirs` gave at some time, as it is now: mounted again where it must be. Raises `Internal`."""
        return [os.fspath(self._layers.ready(Path(path))) for path in lower_dirs]

    def stale_mounts(self, *, dry_run: bool) -> builtins.list[str]:
        """The mounted layers that no row names and no load or container relies on; unmounted, unless `dry_run`. Nothing
        may be removed meanwhile."""
        with self._lock:
            known = self._records.diff_ids() | self._leases.digests() | self._held.digests()
            wanted = {diff_id.removeprefix("sha256:") for diff_id in known}
            return sorted(self._layers.mounted() - wanted) if dry_run else self._layers.unmount(wanted)

    def unmount(self, used: Collection[str]) -> builtins.list[str]:
        """Unmount the layers that are not among the directories `used`. Returns their names."""
        return self._layers.unmount({os.path.basename(path) for path in used})

    @property
    def driver(self) -> Driver:
        """What makes root file systems of layers."""
        return self._driver

    def layer_dirs(self, image: Image) -> builtins.list[str]:
        """Where the image's layers are seen once they are in use, TOP FIRST. Raises `Internal` when one is gone."""
        return [os.fspath(self._layers.path(diff_id)) for diff_id in self._layer_ids(image)]

    def _layer_ids(self, image: Image) -> builtins.list[str]:
        # overlay refuses a directory twice; the topmost of equal layers decides, whatever lies between
        unique = list(dict.fromkeys(reversed(image.diff_ids)))
        for diff_id in unique:
            if not self._layers.has(diff_id):
                raise Internal(f"layer {diff_id} of image {image.id} is missing on disk: load or pull the image again")
        return unique

    def _empty_layer(self) -> Path:
        with self._lock:
            if not self._layers.has(_EMPTY_LAYER):
                self._layers.commit({_EMPTY_LAYER: self._layers.begin()})
        return self._layers.directory(_EMPTY_LAYER)

    # names

    def tag(self, ref: str, target: str) -> Image:
        """Give the image `ref` the name `target` too; returns it. Raises `NotFound`, `InvalidArgument`."""
        reference = parse_tag_target(target)
        with self._lock:
            image_id = self._resolve(ref)
            self._records.tag(reference, image_id)
            self._write_index()
            return self._records.image(image_id)

    # removing

    def remove(
        self, ref: str, *, force: bool = False, noprune: bool = False, users: Users, purge: bool = True
    ) -> builtins.list[dict[str, str]]:
        """`docker rmi`: Docker's list of `{"Untagged": name}` and `{"Deleted": digest}`. `users(id)` are the containers
        of an image. Without `purge` the layers' space comes back later, by `purge` or the next load. Raises `NotFound`,
        and `Conflict` with Docker's words."""
        gone: builtins.list[_Gone] = []
        removal = Removal(self._records, users, lambda image_id: self._forget(image_id, gone))
        with self._lock:
            image_id = self._resolve(ref)
            with self._db.transaction():
                removal.remove(image_id, ref, force=force, prune=not noprune)
                failpoint.hit("image-forgotten")
            failpoint.hit("image-deleted")
            for image in gone:
                self._release(image.id)
                self._sweep(image.blobs, image.diff_ids)
            self._write_index()
        if purge:
            self.purge()
        return removal.deleted

    def purge(self) -> None:
        """Delete the layers that were removed, unless somebody is at it already."""
        self._layers.purge()

    def _forget(self, image_id: str, gone: "builtins.list[_Gone]") -> builtins.list[str]:
        """Delete an image's rows, even if it is damaged, and add what they named to `gone`; return the chain ids that
        no image and no container has any more, top first."""
        rows = self._records.layer_rows(image_id)
        diff_ids = [row.diff_id for row in rows]
        forms = [form.blob for row in rows if (form := self._records.form(row.diff_id))]
        blobs = [*self._records.documents(image_id), *(row.blob for row in rows), *forms]
        gone.append(_Gone(image_id, blobs, diff_ids))
        self._records.delete(image_id)
        chains = list(zip(records.chain_ids(diff_ids), diff_ids, strict=True))
        last = chains[self._records.shared_layers(diff_ids) :]
        return [chain for chain, diff_id in reversed(last) if diff_id not in self._held]

    def _sweep(self, blobs: builtins.list[str], diff_ids: builtins.list[str]) -> None:
        """Delete those of the blobs and layers that no row names and no load relies on."""
        needed_blobs = self._records.blobs() if blobs else set()
        needed_layers = self._records.diff_ids() if diff_ids else set()
        for digest in blobs:
            if digest not in needed_blobs and digest not in self._leases:
                self._content.delete(digest)
        for diff_id in diff_ids:
            if diff_id not in needed_layers and diff_id not in self._leases and diff_id not in self._held:
                self._layers.remove(diff_id)

    # adding

    def load(
        self, stream: BinaryIO, *, platform: oci.Platform | None = None, progress: Progress | None = None
    ) -> builtins.list[Image]:
        """Load a docker-archive or OCI layout, compressed or not, from a stream read once to its end.

        `progress` gets Docker's items: `{"status": "Loading layer", …}`, `{"stream": "Loaded image: x:latest\\n"}`.
        Returns the images that are still here. Raises `InvalidArgument` for bad archives, `NotFound` for a platform
        that is not there, `Unavailable` when the disk is about to be full, `Internal` when it is or fails; nothing is
        left behind then.
        """
        report = progress or _silent
        source, _ = open_plain(StreamSource(stream))
        with _host_errors(self._paths.data_root), self._leased() as lease, self._incoming() as incoming:
            archive = Archive(incoming, report, lambda digest: self._known(digest, lease))
            archive.receive(source)
            images = Resolver(archive, self._records, host_platform(), platform).images()
            moved = self._add(incoming, images)
            _announce(images, moved, report)
        return self._those_here([image.id for image in images])

    def _those_here(self, image_ids: builtins.list[str]) -> builtins.list[Image]:
        """The images, but for those somebody has removed again."""
        found = []
        for image_id in image_ids:
            try:
                found.append(self._records.image(image_id))
            except NotFound:
                continue
        return found

    def import_(
        self,
        stream: BinaryIO,
        *,
        reference: str = "",
        changes: builtins.list[str] | None = None,
        message: str = "",
        platform: oci.Platform | None = None,
        docker_version: str = "",
        progress: Progress | None = None,
    ) -> str:
        """Make an image of one root file system's tar, compressed or not; returns its id.

        `reference` is the name it gets ("" for none); `changes` see `changes.py`; `message` becomes the comment.
        Raises as `load`.
        """
        name = parse_tag_target(reference) if reference else None
        config = apply_changes({}, changes or [])
        with _host_errors(self._paths.data_root), self._leased(), self._incoming() as incoming:
            layer = incoming.layer(lambda append: _copy(stream, append))
            row, descriptor = layer.row(), layer.descriptor()
            where = platform or host_platform()
            made = oci.ImageConfig(oci.RootFS([row.diff_id]), config=config, docker_version=docker_version)
            data = imported_config(made, where, message or "Imported from -")
            manifest, media_type = make_manifest(data, [descriptor])
            names = [name] if name else []
            image = NewImage(_sha256(data), data, manifest, media_type, [row], names)
            self._add(incoming, [image], touch=True)
        return image.id

    def commit(self, parent_id: str, upper: str, commit: Commit, differ: Differ, *, reference: str = "") -> str:
        """Make an image of the image `parent_id` and a container's `upper` directory on top; returns its id.

        `reference` is the name it gets ("" for none); `differ` see `pack_layer`. Raises as `load`.
        """
        name = parse_tag_target(reference) if reference else None
        with _host_errors(self._paths.data_root), self._leased() as lease, self._incoming() as incoming:
            parent, rows, descriptors = self._layers_below(parent_id, lease)
            layer = incoming.layer(lambda append: pack_layer(upper, append, differ))
            row = layer.row()
            if row.diff_id != _EMPTY_LAYER:
                rows, descriptors = [*rows, row], [*descriptors, layer.descriptor()]
            data = image_config(parent, commit, row.diff_id if row.diff_id != _EMPTY_LAYER else None)
            manifest, media_type = make_manifest(data, descriptors)
            names = [name] if name else []
            image = NewImage(_sha256(data), data, manifest, media_type, rows, names, parent.id)
            self._add(incoming, [image], touch=True)
        return _sha256(data)

    def flatten(
        self, image: Image, pack: Callable[[Callable[[bytes | memoryview], None]], None], *, reference: str = ""
    ) -> str:
        """Make an image of one layer, which `pack(append)` hands in, and of all that `image` says of itself but its
        history; returns its id. Equal files give an equal image. `reference` is the name it gets ("" for none). Raises
        as `load`."""
        name = parse_tag_target(reference) if reference else None
        document = oci.decode(self._content.read(image.id, oci.CONFIG_MAX), dict[str, Any], "image config")
        step = oci.History(created=image.created or None, created_by="wherry image flatten", comment=f"of {image.id}")
        with _host_errors(self._paths.data_root), self._leased(), self._incoming() as incoming:
            layer = incoming.layer(pack)
            row = layer.row()
            document |= {"rootfs": oci.RootFS([row.diff_id]), "history": [step]}
            data = msgspec.json.encode(document)
            manifest, media_type = make_manifest(data, [layer.descriptor()])
            flat = NewImage(_sha256(data), data, manifest, media_type, [row], [name] if name else [])
            self._add(incoming, [flat], touch=True)
        return flat.id

    def layers(self) -> builtins.list[tuple[Image, builtins.list[records.LayerRow]]]:
        """All images with their layers, lowest first; the newest image first."""
        images = sorted(self._records.images(), key=lambda image: -image.created_ns)
        return [(image, self._records.layer_rows(image.id)) for image in images]

    def _layers_below(
        self, image_id: str, lease: Callable[..., None]
    ) -> tuple[Image, builtins.list[records.LayerRow], builtins.list[oci.Descriptor]]:
        """An image with its layers as rows and as its manifest lists them, leased from now on."""
        with self._lock:
            image = self._records.image(image_id)
            rows = self._records.layer_rows(image_id)
            lease(*(row.blob for row in rows), *(row.diff_id for row in rows))
        document = oci.decode_manifest_or_index(
            self._content.read(image.manifest.digest, oci.MANIFEST_MAX), image.manifest
        )
        if not isinstance(document, oci.Manifest):
            raise Internal(f"image {image_id}: its manifest is an index")
        return image, rows, document.layers

    def choose(
        self, refs: builtins.list[str], platform: oci.Platform | None = None
    ) -> builtins.list[tuple[Image, builtins.list[Reference]]]:
        """What `docker save` of `refs` takes: images, each under the names it was asked for by. A repository without a
        tag means all its tags, an id the image without a name. Raises `NotFound`, `Internal` for an image that is for
        another platform than `platform`."""
        chosen: dict[str, builtins.list[Reference]] = {}
        for ref in refs:
            for image_id, names in self._saved(ref):
                kept = chosen.setdefault(image_id, [])
                kept.extend(name for name in names if name not in kept)
        images = [(self._records.image(image_id), names) for image_id, names in chosen.items()]
        for image, _ in images:
            if platform is not None and not oci.fits(image.platform, platform):
                raise Internal(f"no suitable export target found for platform {platform}")
        return images

    def save(self, chosen: builtins.list[tuple[Image, builtins.list[Reference]]], out: Sink) -> None:
        """Write what `choose` returned to `out`. Raises `NotFound` for an image that was removed since, OSError."""
        with self._leased() as lease:
            with self._lock:
                for image, _ in chosen:
                    rows = self._records.layer_rows(self._records.image(image.id).id)
                    lease(image.id, image.manifest.digest, *(row.blob for row in rows))
            failpoint.hit("save-leased")
            save.write_archive(out, chosen, self._content)

    def _saved(self, ref: str) -> builtins.list[tuple[str, builtins.list[Reference]]]:
        if is_image_id(ref):
            return [(self._resolve(ref), [])]
        reference = parse(ref)
        if not reference.tag and not reference.digest:
            tags = [(i, r) for i in self._records.ids() for r in self._records.references(i) if not r.digest]
            found = [(image_id, [r]) for image_id, r in tags if r.name == reference.name]
            if found:
                return found
        image_id = self._records.lookup(reference)
        if image_id is not None:
            return [(image_id, [reference] if reference.tag and not reference.digest else [])]
        image_id = self._records.find(ref)
        if image_id is not None:
            return [(image_id, [])]
        if any(name.name == reference.name for i in self._records.ids() for name in self._records.references(i)):
            raise NotFound("reference does not exist")
        raise NotFound(f"No such image: {reference.familiar}")

    def _incoming(self) -> Incoming:
        self._layers.purge(wait=True)  # what was removed makes room
        return Incoming(self._content, self._layers, self._paths.layers)

    def _known(self, digest: str, lease: Callable[..., None]) -> KnownLayer | None:
        """A layer blob that is here with its tree; leased from now on."""
        with self._lock:
            row = self._records.layer_of_blob(digest)
            if row is None or not self._layers.has(row.diff_id) or not self._content.has(digest):
                return None
            lease(digest, row.diff_id)
        with open(self._content.path(digest), "rb") as file:
            kind = detect(file.read(16))
            size = os.fstat(file.fileno()).st_size
        return KnownLayer(row, oci.Descriptor(oci.LAYER + (f"+{kind}" if kind else ""), digest, size))

    def _add(self, incoming: Arrived, images: builtins.list[NewImage], *, touch: bool = False) -> dict[Reference, str]:
        """Make received images the store's, all or none; return the names that were another image's, with its id.
        `touch`: that counts as tagging them."""
        blobs: set[str] = set()
        layers: set[str] = set()
        for image in images:
            incoming.document(image.config)
            incoming.document(image.manifest)
            blobs |= {image.id, _sha256(image.manifest), *(row.blob for row in image.layers)}
            layers |= {row.diff_id for row in image.layers}
        taken, trees = incoming.take(blobs, layers)
        sync_file_system(self._paths.layers)
        if os.stat(self._paths.layers).st_dev != os.stat(self._paths.content).st_dev:
            sync_file_system(self._paths.content)
        failpoint.hit("load-synced")
        with self._lock:
            self._content.publish(taken)
            sync_directory(self._paths.blobs)
            self._layers.commit(trees)
            failpoint.hit("load-published")
            moved: dict[Reference, str] = {}
            with self._db.transaction():
                for image in images:
                    moved.update(self._record(image, touch))
            failpoint.hit("load-recorded")
            self._write_index()
            self._sweep(sorted(blobs), [])  # manifests of images that were here already
        return moved

    def _record(self, image: NewImage, touch: bool) -> dict[Reference, str]:
        descriptor = oci.Descriptor(image.manifest_type, _sha256(image.manifest), len(image.manifest))
        self._records.add(image.id, descriptor, image.layers, image.parent)
        before = {name: self._records.tag(name, image.id, touch=touch) for name in image.names}
        return {name: old for name, old in before.items() if old is not None and old != image.id}

    @contextmanager
    def _leased(self) -> Iterator[Callable[..., None]]:
        """A function that keeps digests here until the block ends; what became garbage meanwhile goes then."""
        held: builtins.list[str] = []

        def lease(*digests: str) -> None:
            with self._lock:
                self._leases.take(digests)
                held.extend(digests)

        try:
            yield lease
        finally:
            with self._lock:
                self._leases.end(held)
                self._sweep(held, held)
            self._layers.purge()

    # what pulls and pushes need

    @property
    def records(self) -> Records:
        """What the database knows of the images."""
        return self._records

    @property
    def content(self) -> ContentStore:
        """The blobs. What is read in here without a row's protection is to be leased before."""
        return self._content

    @contextmanager
    def transfer(self) -> Iterator[Callable[..., None]]:
        """A function that keeps digests of blobs and layers here until the block ends. Errors of the disk leave the
        block in the words of the user."""
        with _host_errors(self._paths.data_root), self._leased() as lease:
            yield lease

    def known_layer(self, digest: str, lease: Callable[..., None]) -> KnownLayer | None:
        """The layer whose blob is here with its tree, leased from now on; None when either is not."""
        return self._known(digest, lease)

    def is_whole(self, image_id: str, lease: Callable[..., None]) -> bool:
        """Whether the image is here with all that belongs to it, which is leased from now on."""
        with self._lock:
            if self._records.find(image_id) is None:
                return False
            try:
                image, rows = self._records.image(image_id), self._records.layer_rows(image_id)
            except (NotFound, Internal):  # its config is lost or damaged
                return False
            blobs = [image.id, image.manifest.digest, *(row.blob for row in rows)]
            lease(*blobs, *(row.diff_id for row in rows))
            return all(map(self._content.has, blobs)) and all(self._layers.has(row.diff_id) for row in rows)

    def add_pulled(self, arrived: Arrived, image: NewImage, domain: str, path: str) -> None:
        """Make the image of a repository the store's; with its names, which are taken from other images."""
        self._add(arrived, [image])
        self._records.add_sources({row.blob for row in image.layers}, domain, path)

    def name(self, image_id: str, names: builtins.list[Reference]) -> None:
        """Give an image the names a registry knows it by; they are taken from other images."""
        with self._lock:
            for name in names:
                self._records.name(name, image_id)
            self._write_index()

    def add_form(self, diff_id: str, form: Ingest) -> None:
        """Keep the compressed form of a layer, a finished ingest."""
        sync_file_system(self._paths.content)
        with self._lock:
            self._content.publish([form])
            sync_directory(self._paths.blobs)
            failpoint.hit("form-published")
            self._records.add_form(records.LayerRow(diff_id, form.size, form.digest))

    # upkeep

    def collect_garbage(self) -> builtins.list[str]:
        """Remove what no row names: interrupted loads and removals. At start only, before anything else runs.
        Returns what was removed, for the log."""
        with self._lock:
            self._content.clear_ingest()
            self.downloads.drop_old_partials()
            needed = self._records.blobs()
            blobs = [digest for digest in self._content.digests() if digest not in needed]
            for digest in blobs:
                self._content.delete(digest)
            trees = self._layers.collect(self._records.diff_ids() | self._held.digests() | {_EMPTY_LAYER})
            for key in self._driver.keys() - set(self._records.ids()):
                self._release(key)
            self._write_index()
        return [*blobs, *trees]

    def _write_index(self) -> None:
        with self._lock:
            self._content.write_index(self._records.index())


def _keys(directories: builtins.list[str]) -> builtins.list[str]:
    """What lower directories are named by: digests of layers, or of the image whose merged copy they are."""
    return [f"sha256:{value}" for path in directories for value in _DIGEST.findall(path)]


def _silent(item: dict[str, Any]) -> None:
    """Progress nobody asked for."""


def _announce(images: list[NewImage], moved: dict[Reference, str], report: Progress) -> None:
    """Docker's last words of a load: names, the ones taken from other images, or ids when there are no names."""
    for image in images:
        for name in image.names:
            if name in moved:
                was = f"renaming the old one with ID {moved[name]} to empty string"
                report({"stream": f"The image {name.familiar} already exists, {was}\n"})
            report({"stream": f"Loaded image: {name.familiar}\n"})
    if not any(image.names for image in images):
        for image in images:
            report({"stream": f"Loaded image ID: {image.id}\n"})


@contextmanager
def _host_errors(path: Path) -> Iterator[None]:
    """Errors of the disk in the words of the user, the path included."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            raise
        raise Internal(f"{str(error.strerror).lower()}: writing below {path}") from error


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _copy(stream: BinaryIO, append: Callable[[bytes | memoryview], None]) -> None:
    source = StreamSource(stream)
    while data := source.read(_IMPORT_PIECE):
        append(data)
