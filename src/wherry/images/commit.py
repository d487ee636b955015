"""An image from a container: its layer on top of the image's, a config with one more step of history.

What Docker's `daemon/commit.go` and `image.NewChildImage` make, asked from a real one.
"""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from wherry.images import oci
from wherry.images.archive.pack import FunctionSink
from wherry.images.archive.pack_layer import LayerPacker
from wherry.images.records import Image
from wherry.images.snapshots.diff import DELETED, Change, Differ


class Commit(NamedTuple):
    """What the new image says of itself. `config` is its "config" object, `container` the id of the container it was
    made of, with that one's config; `created_by` its command."""

    config: dict[str, Any]
    container: str
    container_config: dict[str, Any]
    created_by: str
    author: str
    comment: str
    docker_version: str


def pack_layer(upper: str, append: Callable[[bytes | memoryview], None], differ: Differ) -> None:
    """Hand the archive of the upper directory to `append`, piece by piece: of a complete tree what differs, else all
    but what the engine itself put there. Raises OSError."""
    fd = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        changes = differ.changes(fd)
        if differ.whole:
            _pack_changes(LayerPacker(FunctionSink(append)), fd, changes)
        else:
            changed = {os.fsencode(change.path[1:]) for change in changes}
            LayerPacker(FunctionSink(append), differ.assumed - changed).layer(fd)
    finally:
        os.close(fd)


def _pack_changes(packer: LayerPacker, root: int, changes: list[Change]) -> None:
    for change in changes:
        path = os.fsencode(change.path[1:])
        if change.kind == DELETED:
            packer.removed(path)
        else:
            packer.one(root, path)
    packer.finish()


def image_config(parent: Image, commit: Commit, diff_id: str | None) -> bytes:
    """The JSON of the new image; `diff_id` is None when the container changed nothing."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    created = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"
    step = oci.History(
        created=created,
        created_by=commit.created_by,
        author=commit.author,
        comment=commit.comment,
        empty_layer=diff_id is None,
    )
    image = oci.CommittedImage(
        rootfs=oci.RootFS([*parent.diff_ids, *([diff_id] if diff_id else [])]),
        architecture=parent.architecture,
        os=parent.os,
        variant=parent.variant,
        os_version=parent.os_version,
        created=created,
        author=commit.author,
        comment=commit.comment,
        docker_version=commit.docker_version,
        config=commit.config,
        history=[*parent.history, step],
        container=commit.container,
        container_config=commit.container_config,
    )
    return oci.encode(image)


def imported_config(image: oci.ImageConfig, where: oci.Platform, message: str) -> bytes:
    """The config of an imported image, made now: `image` with what it runs on and one step of history."""
    now = time.time_ns()
    seconds, nanoseconds = divmod(now, 10**9)
    created = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"
    image.architecture, image.os, image.variant = where.architecture, where.os or "linux", where.variant
    image.created, image.comment = created, message
    image.history = [oci.History(created=created, comment=message)]
    return oci.encode(image)
