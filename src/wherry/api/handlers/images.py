"""/images."""

from collections.abc import Callable
from typing import Any

from wherry.api import credentials, decode, progress
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
from wherry.images.records import Image
from wherry.images.references import Reference, parse, parse_tag

_FILTERS = frozenset({"dangling", "label", "label!", "before", "since", "reference", "until"})


async def list_(ctx: Context) -> Response:
    filters = decode.accept_filters(ctx.filters(), _FILTERS)
    images = await engine_images.list_images(
        ctx.engine, all=ctx.flag("all"), filters=filters, shared_size=ctx.flag("shared-size")
    )
    return json_response([shapes.summary(image, ctx.version) for image in images])


async def inspect(ctx: Context) -> Response:
    image, layers = await ctx.engine.run_blocking(_find, ctx)
    return json_response(shapes.inspect(image, layers, ctx.version, ctx.engine.images.driver.name))


def _find(ctx: Context) -> tuple[Image, list[str]]:
    """The image and its unpacked layers; none when they are damaged, which must not hide the image."""
    image = ctx.engine.images.resolve(ctx.name)
    try:
        return image, ctx.engine.images.layer_dirs(image)
    except Internal:
        return image, []


async def history(ctx: Context) -> Response:
    items = await ctx.engine.run_blocking(ctx.engine.images.history, ctx.name)
    return json_response([shapes.history(item) for item in items])


async def tag(ctx: Context) -> Response:
    repository, tag = ctx.text("repo"), ctx.text("tag")
    await engine_images.tag(ctx.engine, ctx.name, f"{repository}:{tag}" if tag else repository)
    return Response(201)


async def remove(ctx: Context) -> Response:
    removed = await engine_images.remove(ctx.engine, ctx.name, force=ctx.flag("force"), noprune=ctx.flag("noprune"))
    return json_response(removed)


async def load(ctx: Context) -> Response:
    """POST /images/load: answers 200 whatever comes, and tells errors in band."""
    file = ctx.request.body.as_file()

    async def work(report: Callable[[progress.Step], None]) -> None:
        await engine_images.load(ctx.engine, file, progress=report)

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
    repository, tag = ctx.text("repo"), ctx.text("tag")
    if tag and not repository:
        raise InvalidArgument("invalid reference format")
    source = ctx.text("fromSrc")
    file = ctx.request.body.as_file() if source == "-" else None

    async def work(report: Callable[[progress.Step], None]) -> None:
        options: dict[str, Any] = {
            "reference": f"{repository}:{tag}" if tag else repository or None,
            "changes": ctx.request.query.get("changes", []),
            "message": ctx.text("message"),
            "platform": ctx.text("platform") or None,
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
