"""`docker commit`: an image from a container."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from wherry.engine.containers import Entry
from wherry.engine.files.changes import differ
from wherry.engine.model import Container, ContainerConfig, to_wire
from wherry.engine.stop import freeze, thaw
from wherry.errors import Conflict, InvalidArgument, WherryError
from wherry.failpoint import hit
from wherry.images.changes import apply_changes
from wherry.images.commit import Commit
from wherry.images.config_merge import merge
from wherry.images.references import parse, parse_tag

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


class CommitOptions(Struct):
    """`config` replaces the container's before `changes` (Dockerfile instructions) are applied; what neither says comes
    from the container. With `pause` it is frozen meanwhile."""

    reference: str = ""
    comment: str = ""
    author: str = ""
    pause: bool = True
    changes: list[str] = []
    config: ContainerConfig | None = None


async def commit(engine: "Engine", ref: str, options: CommitOptions, *, version: str) -> str:
    """POST /commit: make the image and return its id. `version` is the Docker release that the image names.

    Raises `NotFound`, `InvalidArgument` for a bad name or change, `Conflict` for a container that is dead or going.
    """
    if not ref:
        raise InvalidArgument('invalid name or ID supplied: ""')
    entry = engine.containers.lookup(ref)
    for status, word in (("dead", "Dead"), ("removing", "being removed")):
        if entry.status == status:
            raise Conflict(f"You cannot commit container {entry.id} which is {word}")
    described = _describe(entry.record, options, version)
    return await engine.to_the_end(_commit(engine, entry, options, described))


def target(repository: str, tag: str) -> str:
    """The full name that a commit gives, "" for none: a tag of its own goes before the repository's. Raises
    `InvalidArgument`."""
    if not repository:
        return ""
    reference = parse(repository)
    if reference.digest:
        raise InvalidArgument("cannot import digest reference")
    return str(reference._replace(tag=parse_tag(tag)) if tag else reference.tagged())


def _describe(record: Container, options: CommitOptions, version: str) -> Commit:
    own = to_wire(record.config)
    asked = apply_changes(to_wire(options.config) if options.config else own, options.changes)
    return Commit(
        config=merge(asked, own),
        container=record.id,
        container_config=own,
        created_by=" ".join(record.config.Cmd or []),
        author=options.author,
        comment=options.comment,
        docker_version=version,
    )


async def _commit(engine: "Engine", entry: Entry, options: CommitOptions, described: Commit) -> str:
    upper = str(engine.paths.upper(entry.id))
    async with _frozen(engine, entry, options.pause):
        image_id = await engine.transfer(
            lambda: engine.images.commit(
                entry.record.image_id, upper, described, differ(engine, entry.record), reference=options.reference
            )
        )
        _publish(engine, entry, image_id, options, described)
    return image_id


@asynccontextmanager
async def _frozen(engine: "Engine", entry: Entry, wanted: bool) -> AsyncIterator[None]:
    """Pause the container, if it runs, and resume it whatever happens: if this daemon dies, its monitor does."""
    paused = False
    if wanted:
        async with entry.lock:
            if entry.status == "running" and entry.monitor is not None:
                await freeze(engine, entry, entry.monitor, held=True)
                _now(engine, entry, "paused", "pause")
                paused = True
    try:
        hit("engine.commit.paused")
        yield
    finally:
        if paused:
            await _resume(engine, entry)


async def _resume(engine: "Engine", entry: Entry) -> None:
    async with entry.lock:
        if entry.status != "paused" or entry.monitor is None:
            return  # ended, or resumed by somebody
        try:
            await thaw(engine, entry, entry.monitor)
        except (WherryError, ConnectionError):
            if entry.status == "paused":
                raise
            return
        _now(engine, entry, "running", "unpause")


def _now(engine: "Engine", entry: Entry, status: str, event: str) -> None:
    entry.record.state.status = status
    engine.save_or_later(entry)
    engine.publish(entry.record, event)


def _publish(engine: "Engine", entry: Entry, image_id: str, options: CommitOptions, described: Commit) -> None:
    labels = described.config.get("Labels") or {}
    name = parse(options.reference).tagged().familiar if options.reference else ""
    engine.events.publish("image", "create", image_id, {**labels, "name": image_id})
    if name:
        engine.events.publish("image", "tag", image_id, {**labels, "name": name})
    engine.publish(entry.record, "commit", {"comment": options.comment, "imageID": image_id, "imageRef": name})
