"""Another name for a container."""

from typing import TYPE_CHECKING

from wherry.engine import links
from wherry.engine.containers import Entry
from wherry.engine.create import write_meta
from wherry.errors import Conflict, InvalidArgument
from wherry.failpoint import hit

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


async def rename(engine: "Engine", ref: str, name: str) -> None:
    """Raises `InvalidArgument` (bad or same name) or `Conflict` (taken). POST /containers/{id}/rename."""
    entry = engine.containers.lookup(ref)
    if not name:
        raise InvalidArgument("Neither old nor new names may be empty")
    await engine.to_the_end(_rename(engine, entry, ref, name))


async def _rename(engine: "Engine", entry: Entry, ref: str, name: str) -> None:
    async with entry.lock:
        entry.check("rename", ref)
        old = entry.record.name
        if name.removeprefix("/") == old:
            raise InvalidArgument("Renaming a container with the same name as its current name")
        try:
            bare = engine.containers.reserve_name("/" + name.removeprefix("/"), entry.id)
        except (InvalidArgument, Conflict) as error:
            raise type(error)(f"Error when allocating new name: {error}") from None
        entry.record.name = bare
        try:
            hit("engine.rename.before_row")
            engine.save(entry.record)
        except BaseException:
            entry.record.name = old
            engine.containers.release_name(bare, entry.id)
            raise
        engine.containers.release_name(old, entry.id)
        for changed in (entry.record, *links.renamed(engine, entry.record)):
            engine.save(changed)
        engine.publish(entry.record, "rename", {"oldName": f"/{old}"})
    engine.background(write_meta(engine, entry.record))
