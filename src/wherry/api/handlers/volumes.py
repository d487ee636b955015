"""/volumes."""

from typing import Any

from msgspec import Struct

from wherry.api import decode
from wherry.api.context import Context, json_response
from wherry.api.matching import has_label, search
from wherry.api.shapes import volumes as shapes
from wherry.engine.volumes import Volume
from wherry.errors import NotFound
from wherry.http.message import Response

_FILTERS = frozenset({"dangling", "name", "driver", "label"})


async def list_(ctx: Context) -> Response:
    filters = decode.accept_filters(ctx.filters(), _FILTERS)
    volumes = await ctx.engine.run_blocking(ctx.engine.volumes.list)
    used = _names_in_use(ctx)
    shown = [shapes.inspect(volume) for volume in volumes if _matches(volume, filters, used)]
    return json_response({"Volumes": shown, "Warnings": None})


async def inspect(ctx: Context) -> Response:
    volume = await ctx.engine.run_blocking(ctx.engine.volumes.get, ctx.name)
    return json_response(shapes.inspect(volume))


class CreateOptions(Struct):
    """Body of `POST /volumes/create`."""

    Name: str = ""
    Driver: str = ""
    DriverOpts: dict[str, str] | None = None
    Labels: dict[str, str] | None = None


async def create(ctx: Context) -> Response:
    options = decode.convert(CreateOptions, await ctx.json(), go_type="volume.CreateOptions", at="CreateOptions")

    def make() -> Volume:
        volume, _made = ctx.engine.volumes.create(
            options.Name or None,
            driver=options.Driver or "local",
            labels=options.Labels,
            options=options.DriverOpts,
        )
        return volume

    return json_response(shapes.inspect(await ctx.engine.run_blocking(make)), 201)


async def remove(ctx: Context) -> Response:
    users = [entry.id for entry in ctx.engine.containers if _uses(entry.record.mounts, ctx.name)]
    try:
        await ctx.engine.run_blocking(ctx.engine.volumes.remove, ctx.name, users)
    except NotFound:
        if not ctx.flag("force"):
            raise
    return Response(204)


def _uses(mounts: list[Any], name: str) -> bool:
    return any(mount.Type == "volume" and mount.Name == name for mount in mounts)


def _names_in_use(ctx: Context) -> set[str]:
    mounts = (mount for entry in ctx.engine.containers for mount in entry.record.mounts)
    return {mount.Name for mount in mounts if mount.Type == "volume"}


def _matches(volume: Volume, filters: decode.Filters, used: set[str]) -> bool:
    if filters.get("dangling") and decode.filter_flag(filters, "dangling", True) == (volume.name in used):
        return False
    if filters.get("driver") and volume.driver not in filters["driver"]:
        return False
    if filters.get("name") and not any(search(pattern, volume.name) for pattern in filters["name"]):
        return False
    return all(has_label(volume.labels, label) for label in filters.get("label", ()))
