"""/system/df and what frees space: the prunes.

Extensions: `dry-run` tells what would go, with `after-containers` what would go once a prune of containers with the
same filters is done.
"""

from typing import Any

from wherry.api import decode
from wherry.api.context import Context, json_response
from wherry.api.shapes import containers as container_shapes
from wherry.api.shapes import images as image_shapes
from wherry.api.shapes import volumes as volume_shapes
from wherry.engine import prune
from wherry.engine.usage import KINDS, DiskUsage, disk_usage
from wherry.errors import InvalidArgument
from wherry.http.message import Response

_FILTERS = frozenset({"until", "label", "label!", "id"})
_CACHE_FILTERS = frozenset(
    {"until", "unused-for", "label", "label!", "id", "parent", "type", "description", "inuse", "shared", "private"}
)


async def disk(ctx: Context) -> Response:
    """GET /system/df."""
    kinds = (ctx.request.query.get("type") if ctx.version >= (1, 42) else None) or KINDS
    for kind in kinds:
        if kind not in KINDS:
            raise InvalidArgument(f"unknown object type: {kind}")
    usage = await disk_usage(ctx.engine, kinds)
    shown: dict[str, Any] = {
        "LayersSize": usage.layers_size,
        "Images": _images(ctx, usage),
        "Containers": _containers(usage),
        "Volumes": _volumes(usage),
        "BuildCache": [] if "build-cache" in kinds else None,
    }
    return json_response(shown)


def _images(ctx: Context, usage: DiskUsage) -> list[dict[str, Any]] | None:
    if usage.images is None:
        return None
    return [image_shapes.usage(image, ctx.version) for image in usage.images]


def _containers(usage: DiskUsage) -> list[dict[str, Any]] | None:
    if usage.containers is None:
        return None
    return [container_shapes.summary(record, record.config.Image, sizes) for record, sizes in usage.containers]


def _volumes(usage: DiskUsage) -> list[dict[str, Any]] | None:
    if usage.volumes is None:
        return None
    return [
        volume_shapes.inspect(volume) | {"UsageData": {"RefCount": users, "Size": size}}
        for volume, size, users in usage.volumes
    ]


async def prune_containers(ctx: Context) -> Response:
    filters = decode.accept_filters(ctx.filters(), _FILTERS)
    pruned = await prune.prune_containers(ctx.engine, filters, dry_run=ctx.flag("dry-run"))
    return _reply(ContainersDeleted=pruned.deleted or None, SpaceReclaimed=pruned.reclaimed)


async def prune_images(ctx: Context) -> Response:
    filters = decode.accept_filters(ctx.filters(), _FILTERS | {"dangling"})
    dangling = decode.filter_flag(filters, "dangling", default=True)
    after = ctx.flag("after-containers")
    pruned = await prune.prune_images(
        ctx.engine, filters, dangling=dangling, dry_run=ctx.flag("dry-run"), after_containers=after
    )
    return _reply(ImagesDeleted=pruned.images or None, SpaceReclaimed=pruned.reclaimed)


async def prune_networks(ctx: Context) -> Response:
    filters = decode.accept_filters(ctx.filters(), _FILTERS)
    pruned = await prune.prune_networks(ctx.engine, filters, dry_run=ctx.flag("dry-run"))
    return _reply(NetworksDeleted=pruned.deleted or None)


async def prune_volumes(ctx: Context) -> Response:
    """Named volumes only go when asked for; before API 1.42 they always went."""
    filters = decode.accept_filters(ctx.filters(), (_FILTERS - {"until"}) | {"all"})
    everything = ctx.version < (1, 42) or _all_volumes(filters)
    after = ctx.flag("after-containers")
    pruned = await prune.prune_volumes(
        ctx.engine, filters, everything=everything, dry_run=ctx.flag("dry-run"), after_containers=after
    )
    return _reply(VolumesDeleted=pruned.deleted, SpaceReclaimed=pruned.reclaimed)


def _all_volumes(filters: decode.Filters) -> bool:
    values = filters.get("all", [])
    for value in values:
        if value not in ("1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"):
            text = f"invalid filter 'all': strconv.ParseBool: parsing \"{value}\": invalid syntax"
            raise InvalidArgument(text)
    return any(value[0] in "1tT" for value in values)


async def prune_build_cache(ctx: Context) -> Response:
    """POST /build/prune: there is no build cache to free."""
    decode.accept_filters(ctx.filters(), _CACHE_FILTERS)
    return _reply(CachesDeleted=None, SpaceReclaimed=0)


def _reply(**fields: Any) -> Response:
    return json_response(fields)
