"""/containers/{name}/archive, changes, export."""

import base64
from collections.abc import Awaitable, Callable

from wherry.api.context import Context, json_bytes, json_response
from wherry.api.times import rfc3339
from wherry.engine.files import changes as engine_changes
from wherry.engine.files import copy as engine_copy
from wherry.engine.files import export as engine_export
from wherry.engine.files.paths import PathStat
from wherry.http.message import Response
from wherry.http.sink import Sink
from wherry.images.archive.sources import StreamSource

_TAR = "application/x-tar"
_EPOCH = "1970-01-01T00:00:00Z"


async def head(ctx: Context) -> Response:
    """HEAD archive: the stat of a path in a header."""
    return Response(200, headers=[_stat_header(await engine_copy.stat_path(ctx.engine, ctx.name, ctx.text("path")))])


async def get(ctx: Context) -> Response:
    """GET archive: a path as a tar archive."""
    outgoing = await engine_copy.copy_out(ctx.engine, ctx.name, ctx.text("path"))
    produce = _in_thread(ctx, outgoing.write)
    return Response(200, content_type=_TAR, headers=[_stat_header(outgoing.stat)], produce=produce)


async def put(ctx: Context) -> Response:
    """PUT archive: unpack the body into a directory."""
    await engine_copy.copy_in(
        ctx.engine,
        ctx.name,
        ctx.text("path"),
        StreamSource(ctx.request.body.as_file()),
        keep_kinds=ctx.flag("noOverwriteDirNonDir"),
        copy_owner=ctx.flag("copyUIDGID"),
    )
    return Response(200)


async def export(ctx: Context) -> Response:
    """GET export: the whole root file system."""
    write = await engine_export.export(ctx.engine, ctx.name)
    return Response(200, content_type="application/octet-stream", produce=_in_thread(ctx, write))


async def changes(ctx: Context) -> Response:
    """GET changes: what differs from the image."""
    found = await engine_changes.changes(ctx.engine, ctx.name)
    return json_response([{"Path": change.path, "Kind": change.kind} for change in found] or None)


def _in_thread(ctx: Context, write: Callable[[Sink], None]) -> Callable[[Sink], Awaitable[None]]:
    return lambda sink: ctx.engine.on_files(lambda: write(sink))


def _stat_header(stat: PathStat) -> tuple[str, str]:
    shown = {
        "name": stat.name,
        "size": stat.size,
        "mode": stat.mode,
        "mtime": _mtime(stat.mtime_ns),
        "linkTarget": stat.link_target,
    }
    return "X-Docker-Container-Path-Stat", base64.b64encode(json_bytes(shown).rstrip()).decode("ascii")


def _mtime(time_ns: int) -> str:
    """Files have a time always, and any: what has no four-digit year is shown as the first or last that has."""
    return rfc3339(min(max(time_ns, -62_135_596_800 * 10**9), 253_402_300_799 * 10**9)) if time_ns else _EPOCH
