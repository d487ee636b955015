"""Of /images what Docker has not: layers and who shares them, differences, flattening."""

from wherry.api.context import Context, json_response
from wherry.engine.files import commit as engine_commit
from wherry.engine.files import image_files
from wherry.http.message import Response


async def layers(ctx: Context) -> Response:
    """GET /images/layers: every image with its layers, lowest first."""
    found = await ctx.engine.run_blocking(ctx.engine.images.layers)
    return json_response(
        [
            {
                "Id": image.id,
                "RepoTags": image.repo_tags,
                "Size": image.size,
                "Layers": [{"Id": row.diff_id, "Size": row.size, "Blob": row.blob} for row in rows],
            }
            for image, rows in found
        ]
    )


async def changes(ctx: Context) -> Response:
    """GET /images/{name}/changes?since=IMAGE: the paths that differ from that image, as those of a container."""
    found = await image_files.differences(ctx.engine, ctx.name, ctx.text("since"))
    return json_response([{"Path": each.path, "Kind": each.kind, "Size": each.size} for each in found])


async def flatten(ctx: Context) -> Response:
    """POST /images/{name}/flatten: the same in one layer, called `repo` and `tag`."""
    reference = engine_commit.target(ctx.text("repo"), ctx.text("tag"))
    return json_response({"Id": await image_files.flatten(ctx.engine, ctx.name, reference)}, 201)
