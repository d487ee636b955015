"""What wherry can do with the files of images beyond Docker: `image flatten`, `image diff`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from wherry.engine.files.image_view import image_root
from wherry.images.archive.pack import FunctionSink
from wherry.images.archive.pack_exact import ExactPacker
from wherry.images.references import parse
from wherry.images.snapshots import compare
from wherry.images.store import Image

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


class FileChange(NamedTuple):
    """One path that differs between two images. `kind` as in `docker diff`; `size` is that of the file in bytes, of the
    old one where it was deleted, with all below it; 0 for other directories."""

    path: str
    kind: int
    size: int


async def flatten(engine: "Engine", ref: str, reference: str) -> str:
    """Make an image of one layer with the files and the configuration of the image `ref`; returns its id. `reference`
    is the name it gets, "" for none. Raises `NotFound`, `InvalidArgument` for a bad name."""
    image = await engine.run_blocking(engine.images.resolve, ref)
    image_id = await engine.to_the_end(engine.transfer(lambda: _flatten(engine, image, reference)))
    engine.events.publish("image", "create", image_id, {**image.labels, "name": image_id})
    if reference:
        engine.events.publish("image", "tag", image_id, {**image.labels, "name": parse(reference).tagged().familiar})
    return image_id


def _flatten(engine: "Engine", image: Image, reference: str) -> str:
    with image_root(engine, image) as root:
        return engine.images.flatten(
            image, lambda append: ExactPacker(FunctionSink(append)).layer(root), reference=reference
        )


async def differences(engine: "Engine", ref: str, since: str) -> list[FileChange]:
    """What the image `ref` changes of the image `since`, in the order of the paths. Raises `NotFound`."""
    new = await engine.run_blocking(engine.images.resolve, ref)
    old = await engine.run_blocking(engine.images.resolve, since)
    return await engine.on_files(lambda: list(_differences(engine, old, new)))


def _differences(engine: "Engine", old: Image, new: Image) -> Iterator[FileChange]:
    with image_root(engine, old) as before, image_root(engine, new) as after:
        for change in compare.between(before, after, contents=True):
            yield FileChange(change.path, change.kind, compare.size_of(change, before))
