"""/images."""

from collections.abc import Callable
from typing import Any

from wherry.api import credentials, decode, platforms, progress
from wherry.api.app import COMPATIBLE_WITH
from wherry.api.context import Context, json_response
from wherry.api.shapes import images as shapes
from wherry.digests import check_digest
from wherry.engine import images as engine_images
from wherry.engine import transfers
from wherry.engine.files import commit as engine_commit
from wherry.engine.model import ContainerConfig
from wherry.errors import Internal, InvalidArgument
from wherry.http.message import Response
from wherry.images.oci import Platform
from wherry.images.records import Image
from wherry.images.references import Reference, parse, parse_tag

_FILTERS = frozenset({"dangling", "label", "label!", "before", "since", "reference", "until"})


async def list_(ctx: Context) -> Response:
    filters = decode.accept_filters(ctx.filters(), _FILTERS)
    shared_size = ctx.version >= (1, 42) and ctx.flag("shared-size")
    images = await engine_images.list_images(ctx.engine, all=ctx.flag("all"), filters=filters, shared_size=shared_size)
    return json_response([shapes.summary(image, ctx.version) for image in images])


async def inspect(ctx: Context) -> Response:
    platform = platforms.first(ctx, (1, 49))
    if platform is not None and ctx.flag("manifests"):
        raise InvalidArgument("conflicting options: manifests and platform options cannot both be set")
    image, layers = await ctx.engine.run_blocking(_find, ctx, platform)
    return json_response(shapes.inspect(image, layers, ctx.version, ctx.engine.images.driver.name))


def _find(ctx: Context, platform: Platform | None) -> tuple[Image, list[str]]:
    """The image and its unpacked layers; none when they are damaged, which must not hide the image."""
    image = ctx.engine.images.resolve(ctx.name, platform)
    try:
        return image, ctx.engine.images.layer_dirs(image)
    except Internal:
        return image, []


async def history(ctx: Context) -> Response:
    platform = platforms.first(ctx, (1, 48))
    items = await engine_images.history(ctx.engine, ctx.name, platform)
    return json_response([shapes.history(item) for item in items])


async def tag(ctx: Context) -> Response:
    await engine_images.tag(ctx.engine, ctx.name, engine_commit.target(ctx.text("repo"), ctx.text("tag")))
    return Response(201)


async def remove(ctx: Context) -> Response:
    platform = platforms.only(ctx, "platforms", (1, 50), too_many="multiple platforms are not supported")
    removed = await engine_images.remove(
        ctx.engine, ctx.name, force=ctx.flag("force"), noprune=ctx.flag("noprune"), platform=platform
    )
    return json_response(removed)


async def save(ctx: Context) -> Response:
    """GET /images/get and /images/{name}/get: an archive of images."""
    platform = _platform(ctx)
    names = [ctx.name] if "name" in ctx.vars else ctx.request.query.get("names", [])
    write = await engine_images.save(ctx.engine, names, platform=platform)
    return Response(200, content_type="application/x-tar", produce=write)


def _platform(ctx: Context) -> Platform | None:
    return platforms.only(ctx, "platform", (1, 48), too_many="multiple platform parameters not supported")


async def load(ctx: Context) -> Response:
    """POST /images/load: answers 200 whatever the archive is, and tells errors in band. Progress is told unless
    `quiet`."""
    platform, quiet = _platform(ctx), ctx.flag("quiet", True)
    file = ctx.request.body.as_file()

    async def work(report: Callable[[progress.Step], None]) -> None:
        def tell(step: progress.Step) -> None:
            if not (quiet and "progressDetail" in step):
                report(step)

        await engine_images.load(ctx.engine, file, platform=platform, progress=tell)

    return await progress.respond(work, always_ok=True)


async def create(ctx: Context) -> Response:
    """POST /images/create: a pull (`fromImage`), or an import of the body (`fromSrc=-`) or of a URL."""
    if ctx.text("fromImage"):
        return await _pull(ctx)
    return await _import(ctx)


async def _pull(ctx: Context) -> Response:
    reference = _pulled(ctx.text("fromImage"), ctx.text("tag"))
    given = credentials.from_request(ctx.request)
    platform = ctx.text("platform") or None

    async def work(report: Callable[[progress.Step], None]) -> None:
        await transfers.pull(ctx.engine, reference, platform=platform, credentials=given, report=report)

    return await progress.respond(work)


def _pulled(image: str, tag: str) -> Reference:
    """What to pull: `tag`, which may be a digest, in the place of what the name says."""
    reference = parse(image)
    if not tag:
        return reference
    if ":" not in tag:
        return reference._replace(tag=parse_tag(tag), digest="")
    try:
        return reference._replace(tag="", digest=check_digest(tag))
    except InvalidArgument:
        raise InvalidArgument("invalid tag format") from None


async def _import(ctx: Context) -> Response:
    reference = engine_commit.target(ctx.text("repo"), ctx.text("tag"))
    source = ctx.text("fromSrc")
    file = ctx.request.body.as_file() if source == "-" else None

    async def work(report: Callable[[progress.Step], None]) -> None:
        options: dict[str, Any] = {
            "reference": reference,
            "changes": ctx.request.query.get("changes", []),
            "message": ctx.text("message"),
            "platform": ctx.text("platform"),
            "docker_version": COMPATIBLE_WITH,
            "progress": report,
        }
        if file is not None:
            image_id = await engine_images.import_(ctx.engine, file, **options)
        else:
            image_id = await engine_images.import_url(ctx.engine, source, **options)
        report({"status": image_id})

    return await progress.respond(work)


async def commit(ctx: Context) -> Response:
    """POST /commit: an image from a container; the body is a container's config, or nothing."""
    data = await ctx.json(optional=True)
    options = engine_commit.CommitOptions(
        reference=engine_commit.target(ctx.text("repo"), ctx.text("tag")),
        comment=ctx.text("comment"),
        author=ctx.text("author"),
        pause=ctx.flag("pause", True),
        changes=ctx.request.query.get("changes", []),
        config=None if data is None else decode.convert(ContainerConfig, data, go_type="container.Config"),
    )
    image_id = await engine_commit.commit(ctx.engine, ctx.text("container"), options, version=COMPATIBLE_WITH)
    return json_response({"Id": image_id}, 201)
