"""/containers: create, list, inspect and the verbs of the life cycle."""

from collections.abc import AsyncIterator
from typing import NamedTuple

from wherry.api import creation, decode
from wherry.api.context import Context, json_bytes, json_response
from wherry.api.listing import select
from wherry.api.shapes import containers as shapes
from wherry.api.shapes import stats as stats_shapes
from wherry.engine import create as engine_create
from wherry.engine import links
from wherry.engine import remove as engine_remove
from wherry.engine import rename as engine_rename
from wherry.engine import resize as engine_resize
from wherry.engine import start as engine_start
from wherry.engine import stats as engine_stats
from wherry.engine import stop as engine_stop
from wherry.engine import top as engine_top
from wherry.engine import update as engine_update
from wherry.engine.model import Container, ContainerConfig, HostConfig, NetworkingConfig
from wherry.engine.usage import container_sizes
from wherry.errors import InvalidArgument, NotFound
from wherry.http.message import Response

_NO_CONFIG = "config cannot be empty in order to create a container"
_CONFIG_FIELDS = frozenset(name.lower() for name in ContainerConfig.__struct_fields__)
_EMPTY_OBJECT = 7  # bytes: what is longer, or of unknown length, says something
_NO_BODY = "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"


async def list_(ctx: Context) -> Response:
    records = await select(ctx.engine, ctx.filters(), everything=ctx.flag("all"), limit=ctx.number("limit") or 0)
    names = {record.config.Image for record in records if not record.config.Image.startswith("sha256:")} - {""}
    current = await ctx.engine.run_blocking(_current_ids, ctx, names) if names else {}
    with_sizes = ctx.flag("size")
    aliases, shown = links.aliases(ctx.engine), []
    for record in records:
        sizes = await container_sizes(ctx.engine, record) if with_sizes else None
        shown.append(shapes.summary(record, _shown_image(record, current), sizes, aliases.get(record.id, ())))
    return json_response(shown)


def _current_ids(ctx: Context, names: set[str]) -> dict[str, str]:
    """Which image each name means now; in one visit to a worker thread for a whole list."""
    ids = {}
    for name in names:
        try:
            ids[name] = ctx.engine.images.resolve(name).id
        except (NotFound, InvalidArgument):
            continue
    return ids


def _shown_image(record: Container, current: dict[str, str]) -> str:
    """The name the container was created with while that name still means its image, else the image's id."""
    asked = record.config.Image
    return asked if asked.startswith("sha256:") or current.get(asked) == record.image_id else record.image_id


async def create(ctx: Context) -> Response:
    data = await ctx.json()
    if data is None or data == {}:
        raise InvalidArgument(_NO_CONFIG)
    host = networking = None
    if isinstance(data, dict):
        host = decode.pop_any_case(data, "HostConfig")
        networking = decode.pop_any_case(data, "NetworkingConfig")
    wanted = Wanted(
        decode.convert(ContainerConfig, data, go_type="container.CreateRequest"),
        decode.convert(HostConfig, host, go_type="container.HostConfig", at=".HostConfig"),
        decode.convert(NetworkingConfig, networking, go_type="network.NetworkingConfig", at=".NetworkingConfig"),
    )
    if not any(key.lower() in _CONFIG_FIELDS for key in data):
        raise InvalidArgument(_NO_CONFIG)
    return await _create(ctx, wanted)


class Wanted(NamedTuple):
    """The three parts of a create request."""

    config: ContainerConfig
    host: HostConfig
    networking: NetworkingConfig


async def _create(ctx: Context, wanted: Wanted) -> Response:
    warnings = creation.adapt(*wanted, ctx.version)
    result = await engine_create.create(
        ctx.engine,
        name=ctx.text("name") or None,
        config=wanted.config,
        host_config=wanted.host,
        networking=wanted.networking,
        platform=(ctx.text("platform") or None) if ctx.version >= (1, 41) else None,
    )
    return json_response({"Id": result.id, "Warnings": warnings + result.warnings}, 201)


async def inspect(ctx: Context) -> Response:
    entry = ctx.engine.containers.lookup(ctx.name)
    record = entry.record
    paths = ctx.engine.paths
    shown = shapes.inspect(
        record,
        exec_ids=list(entry.exec_ids),
        version=ctx.version,
        data_dir=str(paths.container(record.id)),
        rootfs=str(paths.rootfs(record.id)),
        sizes=await container_sizes(ctx.engine, record) if ctx.flag("size") else None,
    )
    return json_response(shown)


async def start(ctx: Context) -> Response:
    if ctx.request.body_length is None or ctx.request.body_length > _EMPTY_OBJECT:
        raise InvalidArgument(_NO_BODY)
    await engine_start.start(ctx.engine, ctx.name, detach_keys=ctx.text("detachKeys") or None)
    return Response(204)


async def stop(ctx: Context) -> Response:
    hint = await engine_stop.stop(ctx.engine, ctx.name, timeout=ctx.number("t"), signal=_stop_signal(ctx))
    # RFC 7234, 5.5: clients that know nothing of warnings ignore them.
    return Response(204, headers=[("Warning", f'199 wherry "{hint}"')] if hint else None)


def _stop_signal(ctx: Context) -> str | None:
    return (ctx.text("signal") or None) if ctx.version >= (1, 42) else None


async def restart(ctx: Context) -> Response:
    await engine_stop.restart(ctx.engine, ctx.name, timeout=ctx.number("t"), signal=_stop_signal(ctx))
    return Response(204)


async def kill(ctx: Context) -> Response:
    await engine_stop.kill(ctx.engine, ctx.name, ctx.text("signal") or None)
    return Response(204)


async def pause(ctx: Context) -> Response:
    await engine_stop.pause(ctx.engine, ctx.name)
    return Response(204)


async def unpause(ctx: Context) -> Response:
    await engine_stop.unpause(ctx.engine, ctx.name)
    return Response(204)


async def rename(ctx: Context) -> Response:
    await engine_rename.rename(ctx.engine, ctx.name, ctx.text("name"))
    return Response(204)


async def update(ctx: Context) -> Response:
    wanted = decode.convert(HostConfig, await ctx.json(), go_type="container.UpdateConfig", at="UpdateConfig")
    warnings = await engine_update.update(ctx.engine, ctx.name, wanted)
    return json_response({"Warnings": warnings or None})


async def resize(ctx: Context) -> Response:
    height, width = dimensions(ctx)
    await engine_resize.resize(ctx.engine, ctx.name, height, width)
    return Response(200)


def dimensions(ctx: Context) -> tuple[int, int]:
    """The height and width that the query asks a terminal to have."""
    query = ctx.request.query
    return decode.dimension(query, "h", "height"), decode.dimension(query, "w", "width")


async def top(ctx: Context) -> Response:
    titles, processes = await engine_top.top(ctx.engine, ctx.name, ctx.text("ps_args") or "-ef")
    return json_response({"Processes": processes, "Titles": titles})


async def stats(ctx: Context) -> Response:
    """GET /containers/{name}/stats: a line per reading."""
    watch = ctx.flag("stream", True)
    readings = await engine_stats.stats(ctx.engine, ctx.name, stream=watch, one_shot=ctx.flag("one-shot"))
    lines = _lines(readings, ctx.engine.cgroup_version)
    return Response(200, content_type="application/json", stream=lines, watch=watch)


async def _lines(readings: AsyncIterator[engine_stats.Reading], cgroup_version: int) -> AsyncIterator[bytes]:
    async for reading in readings:
        yield json_bytes(stats_shapes.stats(reading, cgroup_version))


async def remove(ctx: Context) -> Response:
    await engine_remove.remove(
        ctx.engine, ctx.name, force=ctx.flag("force"), volumes=ctx.flag("v"), link=ctx.flag("link")
    )
    return Response(204)
