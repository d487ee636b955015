"""What the tests of the store share: two layers, and looking at what is on disk."""

import io
import os

from tests.images.mkimg import archive, directory, file, stream
from wherry.images.archive.pack import FunctionSink
from wherry.images.snapshots.overlay import OverlayDriver
from wherry.images.store import MIGRATIONS, ImageStore
from wherry.store.db import open_database

BASE = archive(directory(b"etc/", 0o755), file(b"etc/a", b"base"))
TOP = archive(directory(b"etc/", 0o700), file(b"etc/b", b"top!!"), file(b"etc/.wh.a"))


def nobody(image_id):
    return []


def load(store, data, **options):
    items = []
    images = store.load(stream(data), progress=items.append, **options)
    return images, "".join(item.get("stream", "") for item in items)


def save(store, *refs):
    """The archive of `refs`."""
    out = io.BytesIO()
    store.save(store.choose(list(refs)), FunctionSink(out.write))
    return out.getvalue()


def leftovers(paths):
    """What a finished or failed operation must not leave."""
    return [
        *os.listdir(paths.ingest),
        *os.listdir(paths.trash),
        *(name for name in os.listdir(paths.layers) if name.startswith(".")),
    ]


def contents(paths):
    return sorted(os.listdir(paths.blobs)), sorted(name.partition(".")[0] for name in os.listdir(paths.layers))


form = "tree"
"""of the layers of `driver`; the fixture `form` sets it"""


def driver():
    return OverlayDriver(indexes=form == "erofs")


def layer(paths, diff_id):
    """Where a layer is on disk."""
    tree = paths.layer(diff_id.removeprefix("sha256:"))
    return paths.packed_layer(tree) if form == "erofs" else tree


def reopen(paths):
    """The store as the next daemon opens it."""
    return ImageStore(open_database(paths.database, {"images": MIGRATIONS}), paths, driver())
