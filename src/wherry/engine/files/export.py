"""`docker export`: the root file system of a container, without what is mounted on it, as one archive."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from wherry.engine.files import paths
from wherry.engine.files.view import View, open_view
from wherry.errors import Conflict
from wherry.images.archive.pack import Packer, Sink

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


async def export(engine: "Engine", ref: str) -> Callable[[Sink], None]:
    """GET /containers/{id}/export: what writes the archive, in a worker thread. Raises `NotFound`, `Conflict` for a
    dead container, `Internal`."""
    entry = engine.containers.lookup(ref)
    if entry.status == "dead":
        raise Conflict(f"You cannot export container {entry.id} which is Dead")
    if entry.status == "removing":
        raise Conflict(f"You cannot export container {entry.id} which is being removed")
    view = await engine.on_files(lambda: open_view(engine, entry, mounts=False))
    engine.publish(entry.record, "export")
    return lambda sink: _write(view, sink)


def _write(view: View, sink: Sink) -> None:
    with view:
        root = paths.reopen(view.root, os.O_DIRECTORY)
        try:
            packer = Packer(sink)
            packer.tree(root, b"", top=False)
            packer.finish()
        finally:
            os.close(root)
