"""Prune: remove what nothing uses, with Docker's filters (moby daemon/prune.go in effect).

Two things Docker's lacks: a dry run tells what would go without touching it, and the filter `id` lets a client remove
exactly what it was shown. A dry run with `after_containers` tells what would go once the containers that the same
filters choose are gone. Whatever carries the label `wherry.keep` (other than "false") stays.
"""

import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from wherry.engine import images as engine_images
from wherry.engine.containers import Entry
from wherry.engine.remove import remove
from wherry.engine.storage import written_size
from wherry.engine.usage import volume_size
from wherry.engine.volumes import Volume
from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.images.durations import parse_timestamp
from wherry.images.listing import matches_labels
from wherry.images.records import Image

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

log = logging.getLogger("wherry.engine")

Filters = Mapping[str, list[str]]

KEEP_LABEL = "wherry.keep"


class Pruned(NamedTuple):
    """What went, or would go: ids or names of containers and volumes, `{"Untagged"|"Deleted": …}` for images; bytes."""

    deleted: list[str]
    images: list[dict[str, str]]
    reclaimed: int


async def prune_containers(engine: "Engine", filters: Filters, *, dry_run: bool = False) -> Pruned:
    """Remove containers that do not run. `filters`: until, label, label!, id. Raises `InvalidArgument` for a bad time,
    `Conflict` while another prune runs. POST /containers/prune."""
    found = _stopped(engine, filters)
    async with _alone(engine, "container", dry_run) as total:
        deleted = []
        for entry in found:
            size = await engine.run_blocking(written_size, engine, entry.record)
            if dry_run or await _removed(engine, entry):
                deleted.append(entry.id)
                total.append(size)
    return Pruned(deleted, [], sum(total))


def _stopped(engine: "Engine", filters: Filters) -> list[Entry]:
    """The containers that the filters choose of those that do not run."""
    chosen = _chosen(filters)
    return [
        entry
        for entry in engine.containers
        if not entry.record.state.running and chosen(entry.id, entry.record.config.Labels or {}, entry.record.created)
    ]


def _staying(engine: "Engine", filters: Filters, after_containers: bool) -> list[Entry]:
    """The containers whose images and volumes count as used."""
    gone = {entry.id for entry in _stopped(engine, filters)} if after_containers else set()
    return [entry for entry in engine.containers if entry.id not in gone]


async def _removed(engine: "Engine", entry: Entry) -> bool:
    """Remove one; it may have been started, or removed, since it was chosen."""
    try:
        await remove(engine, entry.id)
    except Exception as error:
        _left("container", entry.id, error)
        return False
    return True


async def prune_volumes(
    engine: "Engine", filters: Filters, *, everything: bool, dry_run: bool = False, after_containers: bool = False
) -> Pruned:
    """Remove volumes no container has: anonymous ones, or with `everything` named ones too. `filters`: label, label!,
    id (names). POST /volumes/prune."""
    chosen = _chosen(filters)
    volumes = [
        volume
        for volume in await engine.run_blocking(engine.volumes.list)
        if (everything or volume.anonymous) and chosen(volume.name, volume.labels, volume.created)
    ]
    async with _alone(engine, "volume", dry_run) as total:
        deleted = []
        for volume in volumes:
            staying = {entry.id for entry in _staying(engine, filters, dry_run and after_containers)}
            if staying.intersection(engine.volume_users(volume.name)):
                continue
            size = await engine.run_blocking(volume_size, volume)
            if dry_run or await _volume_removed(engine, volume):
                deleted.append(volume.name)
                total.append(size)
    return Pruned(deleted, [], sum(total))


async def _volume_removed(engine: "Engine", volume: Volume) -> bool:
    try:
        await engine.run_blocking(engine.volumes.remove, volume.name, engine.volume_users(volume.name))
    except Exception as error:
        _left("volume", volume.name, error)
        return False
    engine.events.publish("volume", "destroy", volume.name, {"driver": volume.driver})
    return True


async def prune_images(
    engine: "Engine", filters: Filters, *, dangling: bool, dry_run: bool = False, after_containers: bool = False
) -> Pruned:
    """Remove images no container was made from: those without a name, or without `dangling` all. `filters`: until,
    label, label!, id. POST /images/prune."""
    chosen = _chosen(filters)
    every = await engine_images.list_images(engine, all=True)
    parents = {image.parent for image in every}
    used = {entry.record.image_id for entry in _staying(engine, filters, dry_run and after_containers)}
    found = [
        image
        for image in every
        if image.id not in used
        and not (dangling and image.repo_tags)
        and (image.repo_tags or image.repo_digests or image.id not in parents)
        and chosen(image.id, image.labels, image.created_ns)
    ]
    async with _alone(engine, "image", dry_run) as total:
        before = await engine.run_blocking(engine.images.layers_size)
        deleted: list[dict[str, str]] = []
        if dry_run:
            deleted = [item for image in found for item in _would_go(image)]
            ids = {image.id for image in found}
            total.append(await engine.run_blocking(engine.images.unused_size, ids))
        else:
            for image in found:
                deleted += await _image_removed(engine, image)
            total.append(max(0, before - await engine.run_blocking(engine.images.layers_size)))
            total.append(await engine.run_blocking(engine.images.downloads.drop_partials))
    return Pruned([], deleted, sum(total))


def _would_go(image: Image) -> list[dict[str, str]]:
    names = [*image.repo_tags, *image.repo_digests]
    return [*({"Untagged": name} for name in names), {"Deleted": image.id}]


async def _image_removed(engine: "Engine", image: Image) -> list[dict[str, str]]:
    """Take its names away one by one, or remove it by id; what stands in the way of some leaves them."""
    removed: list[dict[str, str]] = []
    for ref in [*image.repo_tags, *image.repo_digests] or [image.id]:
        try:
            removed += await engine_images.remove(engine, ref)
        except Exception as error:
            _left("image", ref, error)
    return removed


def _left(kind: str, name: str, error: Exception) -> None:
    """One that cannot be removed keeps neither the others from it nor what went from being told."""
    if not isinstance(error, Conflict | NotFound):
        log.warning("prune: %s %s could not be removed: %s", kind, name, error)


async def prune_networks(engine: "Engine", filters: Filters, *, dry_run: bool = False) -> Pruned:
    """Remove networks of a user's own that no container is in; there are none but the predefined ones.
    `filters`: until, label, label!, id. POST /networks/prune."""
    _chosen(filters)
    async with _alone(engine, "network", dry_run):
        return Pruned([], [], 0)


@asynccontextmanager
async def _alone(engine: "Engine", kind: str, dry_run: bool) -> AsyncIterator[list[int]]:
    """One prune of a kind at a time; yields a list for the bytes reclaimed, which the event tells at the end."""
    total: list[int] = []
    if dry_run:
        yield total
        return
    if kind in engine.pruning:
        raise Conflict("a prune operation is already running")
    engine.pruning.add(kind)
    try:
        yield total
    finally:
        engine.pruning.discard(kind)
    engine.events.publish(kind, "prune", "", {"reclaimed": str(sum(total))})


def _chosen(filters: Filters) -> Callable[[str, Mapping[str, str], int], bool]:
    """Whether an object with an id, labels and a time of creation (ns) passes the filters."""
    until = _until(filters)
    ids = filters.get("id")

    def passes(object_id: str, labels: Mapping[str, str], created: int) -> bool:
        if (until is not None and created > until) or (ids is not None and object_id not in ids):
            return False
        if labels.get(KEEP_LABEL, "false") != "false" or not matches_labels(labels, filters.get("label", [])):
            return False
        unwanted = filters.get("label!")
        return not (unwanted and matches_labels(labels, unwanted))

    return passes


def _until(filters: Filters) -> int | None:
    values = filters.get("until", [])
    if len(values) > 1:
        raise InvalidArgument("more than one until filter specified")
    return parse_timestamp(values[0], time.time_ns()) if values else None
