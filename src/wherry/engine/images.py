"""The image store as the API needs it: off the loop, with events, and with the containers that stand in the way."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from wherry.engine.url_import import UrlImport
from wherry.errors import InvalidArgument, NotFound
from wherry.images import platforms
from wherry.images.archive.pack import Sink
from wherry.images.oci import Platform
from wherry.images.references import parse
from wherry.images.store import HistoryItem, Image, ImageUser

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

Progress = Callable[[dict[str, Any]], None]


def _on_loop(progress: Progress | None) -> Progress | None:
    """`progress`, called on the loop's thread however far away the caller is."""
    if progress is None:
        return None
    loop = asyncio.get_running_loop()
    wanted = progress

    def report(item: dict[str, Any]) -> None:
        loop.call_soon_threadsafe(wanted, item)

    return report


def parse_platform(text: str | None) -> Platform | None:
    """ "linux/arm64/v8" as the platform of an image made here; None for none. Raises `InvalidArgument`."""
    if not text:
        return None
    found = platforms.parse(text)
    if found.os != "linux":
        raise InvalidArgument("operating system is not supported")
    return found


async def list_images(
    engine: "Engine",
    *,
    all: bool = False,
    filters: Mapping[str, Sequence[str]] | None = None,
    shared_size: bool = False,
) -> list[Image]:
    """GET /images/json."""
    chosen = {key: list(values) for key, values in (filters or {}).items()}
    counts: dict[str, int] = {}
    for entry in engine.containers:
        counts[entry.record.image_id] = counts.get(entry.record.image_id, 0) + 1
    return await engine.run_blocking(
        lambda: engine.images.list(
            all=all, filters=chosen, shared_size=shared_size, in_use=lambda image_id: counts.get(image_id, 0)
        )
    )


async def inspect(engine: "Engine", ref: str) -> Image:
    """GET /images/{name}/json. Raises `NotFound`."""
    return await engine.run_blocking(engine.images.resolve, ref)


async def history(engine: "Engine", ref: str, platform: Platform | None = None) -> list[HistoryItem]:
    """GET /images/{name}/history. Raises `NotFound`, for an image of another platform than `platform`, too."""
    return await engine.run_blocking(engine.images.history, ref, platform)


async def tag(engine: "Engine", ref: str, target: str) -> None:
    """POST /images/{name}/tag. Raises `NotFound`, `InvalidArgument`."""
    image = await engine.run_blocking(engine.images.tag, ref, target)
    _publish(engine, "tag", image.id, parse(target).tagged().familiar, image.labels)


async def remove(
    engine: "Engine", ref: str, *, force: bool = False, noprune: bool = False, platform: Platform | None = None
) -> list[dict[str, str]]:
    """DELETE /images/{name}: Docker's list of what was untagged and deleted. Raises `NotFound`, for an image of another
    platform than `platform`, too, and `Conflict`."""
    if platform is not None:
        await engine.run_blocking(engine.images.resolve, ref, platform)
    users: dict[str, list[ImageUser]] = {}
    for entry in engine.containers:
        user = ImageUser(entry.id, entry.status in ("running", "paused", "restarting"))
        users.setdefault(entry.record.image_id, []).append(user)
    image_id, labels = await engine.run_blocking(engine.images.labels_of, ref)
    removed: list[dict[str, str]] = await engine.to_the_end(
        engine.run_blocking(
            lambda: engine.images.remove(
                ref, force=force, noprune=noprune, users=lambda i: users.get(i, []), purge=False
            )
        )
    )
    engine.background(engine.run_blocking(engine.images.purge))
    for item in removed:
        if "Untagged" in item:
            _publish(engine, "untag", image_id, image_id, labels)
        elif item["Deleted"] == image_id:
            _publish(engine, "delete", image_id, image_id, {})  # the image is gone, and what it said of itself
    return removed


async def load(
    engine: "Engine", stream: BinaryIO, *, platform: Platform | None = None, progress: Progress | None = None
) -> list[Image]:
    """POST /images/load: read an archive from `stream` (blocking reads, in a thread) to its end."""
    report = _on_loop(progress)
    images = await engine.transfer(lambda: engine.images.load(stream, platform=platform, progress=report))
    for image in images:
        _publish(engine, "load", image.id, image.id, image.labels)
    return images


async def save(
    engine: "Engine", refs: Sequence[str], *, platform: Platform | None = None
) -> Callable[[Sink], Awaitable[None]]:
    """GET /images/get: what writes the archive. Raises `NotFound`, `Internal` for another platform."""
    chosen = await engine.run_blocking(engine.images.choose, list(refs), platform)

    async def write(sink: Sink) -> None:
        await engine.on_files(lambda: engine.images.save(chosen, sink))
        for image, _ in chosen:
            _publish(engine, "save", image.id, image.id, image.labels)

    return write


async def import_(
    engine: "Engine",
    stream: BinaryIO,
    *,
    reference: str | None = None,
    changes: list[str] | None = None,
    message: str = "",
    platform: str | None = None,
    docker_version: str = "",
    progress: Progress | None = None,
) -> str:
    """POST /images/create?fromSrc=-: make an image of a root file system's archive; returns its id. `docker_version` is
    the release the image names."""
    report = _on_loop(progress)
    where = parse_platform(platform)
    image_id = await engine.transfer(
        lambda: engine.images.import_(
            stream,
            reference=reference or "",
            changes=changes,
            message=message,
            platform=where,
            docker_version=docker_version,
            progress=report,
        )
    )
    await _imported(engine, image_id, reference)
    return image_id


async def import_url(
    engine: "Engine",
    url: str,
    *,
    reference: str | None,
    changes: list[str],
    message: str,
    platform: str | None,
    docker_version: str,
    progress: Progress,
) -> str:
    """POST /images/create?fromSrc=URL: make an image of an archive that is fetched; returns its id."""
    work = UrlImport(
        engine.images,
        url,
        reference=reference or "",
        changes=changes,
        message=message,
        platform=parse_platform(platform),
        docker_version=docker_version,
        report=progress,
    )
    await engine.transfers.run(work)
    await _imported(engine, work.image_id, reference)
    return work.image_id


async def _imported(engine: "Engine", image_id: str, reference: str | None) -> None:
    try:
        _, labels = await engine.run_blocking(engine.images.labels_of, image_id)
    except NotFound:
        labels = {}  # somebody has removed it again
    if reference:
        _publish(engine, "tag", image_id, parse(reference).tagged().familiar, labels)
    _publish(engine, "import", image_id, image_id, labels)


def _publish(engine: "Engine", action: str, image_id: str, name: str, labels: Mapping[str, str]) -> None:
    engine.events.publish("image", action, image_id, {**labels, "name": name})
