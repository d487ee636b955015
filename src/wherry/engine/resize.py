"""The size of a container's terminal."""

from typing import TYPE_CHECKING

from wherry.errors import Conflict

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


async def resize(engine: "Engine", ref: str, height: int, width: int) -> None:
    """Set it, in characters. Raises `Conflict` when the container does not run. POST /containers/{id}/resize."""
    entry = engine.containers.lookup(ref)
    entry.check("resize", ref)
    if entry.monitor is None:
        raise Conflict(f"container {entry.id} is not running")
    await entry.monitor.resize(height, width)
    engine.publish(entry.record, "resize", {"height": str(height), "width": str(width)})
