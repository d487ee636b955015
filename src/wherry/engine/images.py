"""The image store as the API needs it: off the loop, with events, and with the containers that stand in the way."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from wherry.engine.url_import import UrlImport
from wherry.images.oci import Platform
from wherry.images.references import is_image_id, parse
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
    """ "linux/arm64/v8" as a platform; None for none."""
    if not text:
        return None
    os_name, _, rest = text.partition("/")
    architecture, _, variant = rest.partition("/")
    return Platform(architecture, os_name, variant)


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


async def history(engine: "Engine", ref: str) -> list[HistoryItem]:
    """GET /images/{name}/history. Raises `NotFound`."""
    return await engine.run_blocking(engine.images.history, ref)


async def tag(engine: "Engine", ref: str, target: str) -> None:
    """POST /images/{name}/tag. Raises `NotFound`, `InvalidArgument`."""
    image = await engine.run_blocking(engine.images.tag, ref, target)
    _publish(engine, "tag", image.id, parse(target).tagged().familiar, image.labels)


async def remove(engine: "Engine", ref: str, *, force: bool = False, noprune: bool = False) -> list[dict[str, str]]:
    """DELETE /images/{name}: Docker's list of what was untagged and deleted. Raises `NotFound`, `Conflict`."""
    users: dict[str, list[ImageUser]] = {}
    for entry in engine.containers:
        user = ImageUser(entry.id, entry.status in ("running", "paused", "restarting"))
        users.setdefault(entry.record.image_id, []).append(user)
    image = await engine.run_blocking(engine.images.resolve, ref)
    removed: list[dict[str, str]] = await engine.to_the_end(
        engine.run_blocking(
            lambda: engine.images.remove(ref, force=force, noprune=noprune, users=lambda i: users.get(i, []))
        )
    )
    for item in removed:
        if "Untagged" in item:
            _publish(engine, "untag", image.id, image.id, image.labels)
        elif is_image_id(item["Deleted"]) and item["Deleted"] == image.id:
            _publish(engine, "delete", image.id, image.id, image.labels)
    return removed


async def load(
    engine: "Engine", stream: BinaryIO, *, platform: str | None = None, progress: Progress | None = None
) -> list[Image]:
    """POST /images/load: read an archive from `stream` (blocking reads, in a thread) to its end."""
    report = _on_loop(progress)
    images = await engine.transfer(
        lambda: engine.images.load(stream, platform=parse_platform(platform), progress=report)
    )
    for image in images:
        name = image.repo_tags[0] if image.repo_tags else image.id
        _publish(engine, "load", image.id, name, image.labels)
    return images


async def import_(
    engine: "Engine",
    stream: BinaryIO,
    *,
    reference: str | None = None,
    changes: list[str] | None = None,
    message: str = "",
    platform: str | None = None,
    progress: Progress | None = None,
) -> str:
    """POST /images/create?fromSrc=-: make an image of a root file system's archive; returns its id."""
    report = _on_loop(progress)
    image_id = await engine.transfer(
        lambda: engine.images.import_(
            stream,
            reference=reference or "",
            changes=changes,
            message=message,
            platform=parse_platform(platform),
            progress=report,
        )
    )
    image = await engine.run_blocking(engine.images.resolve, image_id)
    _publish(engine, "import", image_id, image.repo_tags[0] if image.repo_tags else image_id, image.labels)
    return image_id


async def import_url(
    engine: "Engine",
    url: str,
    *,
    reference: str | None,
    changes: list[str],
    message: str,
    platform: str | None,
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
        report=progress,
    )
    await engine.transfers.run(work)
    image = await engine.run_blocking(engine.images.resolve, work.image_id)
    _publish(engine, "import", image.id, image.repo_tags[0] if image.repo_tags else image.id, image.labels)
    return image.id


def _publish(engine: "Engine", action: str, image_id: str, name: str, labels: Mapping[str, str]) -> None:
    engine.events.publish("image", action, image_id, {**labels, "name": name})
