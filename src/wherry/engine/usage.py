"""What takes up the disk: GET /system/df. Everything is measured when asked, off the loop."""

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from wherry.engine import images as engine_images
from wherry.engine import storage
from wherry.engine.model import Container
from wherry.engine.volumes import Volume
from wherry.errors import NotFound
from wherry.images.records import Image
from wherry.store.trees import tree_size

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

KINDS = frozenset({"container", "image", "volume", "build-cache"})


class Sizes(NamedTuple):
    """Bytes a container has written, and with its image."""

    writable: int
    root_fs: int


class VolumeUsage(NamedTuple):
    """A volume, the bytes in it, and how many containers have it."""

    volume: Volume
    size: int
    users: int


class DiskUsage(NamedTuple):
    """What was asked for; None for the kinds that were not. `layers_size` counts shared layers once."""

    layers_size: int
    images: list[Image] | None
    containers: list[tuple[Container, Sizes]] | None
    volumes: list[VolumeUsage] | None


async def disk_usage(engine: "Engine", kinds: Collection[str]) -> DiskUsage:
    """Measure the objects of `kinds` (of `KINDS`). GET /system/df."""
    images = containers = volumes = None
    layers_size = 0
    if "image" in kinds:
        images = await engine_images.list_images(engine, shared_size=True)
        layers_size = await engine.run_blocking(engine.images.layers_size)
    if "container" in kinds:
        newest_first = sorted((entry.record for entry in engine.containers), key=lambda record: -record.created)
        containers = [(record, await container_sizes(engine, record)) for record in newest_first]
    if "volume" in kinds:
        volumes = await engine.run_blocking(_volumes, engine)
    return DiskUsage(layers_size, images, containers, volumes)


async def container_sizes(engine: "Engine", record: Container) -> Sizes:
    """What the container has written, and that with its image; measured now, in a worker thread."""

    def measure() -> Sizes:
        written = storage.written_size(engine, record)
        try:
            image = engine.images.resolve(record.image_id).size if record.image_id else 0
        except NotFound:
            image = 0
        return Sizes(written, written + image)

    return await engine.run_blocking(measure)


def volume_size(volume: Volume) -> int:
    """Bytes in the volume; blocking."""
    return tree_size(volume.mountpoint)


def _volumes(engine: "Engine") -> list[VolumeUsage]:
    return [
        VolumeUsage(volume, volume_size(volume), len(engine.volume_users(volume.name)))
        for volume in engine.volumes.list()
    ]
