"""What the tests of the registry client share."""

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.registry.servers import Image, PythonRegistry, digest_of, make_image, make_layer
from wherry.registry.client import Registry
from wherry.registry.config import RegistryConfig
from wherry.registry.repository import Repository

NAME = "team/app"


def configured(**options: Any) -> Registry:
    """A client that does not wait long, and reads no settings of this machine."""
    settings: dict[str, Any] = {"certs_dirs": (), "backoff": 0.001, **options}
    return Registry(RegistryConfig(**settings))


def image_of(size: int = 300_000) -> Image:
    """An image of two layers; the second has at least `size` bytes that do not compress."""
    return make_image([make_layer({"a": b"first\n"}), make_layer({"b": os.urandom(size)})], {"Cmd": ["true"]})


def holding(registry: PythonRegistry, tag: str = "latest", size: int = 300_000) -> Image:
    """An image that `registry` has now."""
    return registry.store.put(NAME, tag, image_of(size))


def read_all(repository: Repository, blob: bytes, **options: Any) -> bytes:
    """Read a blob through `repository`."""
    with repository.blob(digest_of(blob), len(blob), **options) as reader:
        return b"".join(iter(reader.read, b""))


def check_pull(repository: Repository, image: Image, reference: str = "latest") -> None:
    """Read an image whole and compare it."""
    resolved = repository.resolve(reference)
    assert (resolved.digest, resolved.media_type) == (image.digest, image.media_type)
    assert repository.manifest(resolved.digest).data == image.manifest
    for digest, blob in image.blobs.items():
        assert repository.small_blob(digest, len(blob)) == blob


def send_blob(repository: Repository, blob: bytes, sent: Callable[[int], None] = lambda count: None) -> None:
    repository.upload_blob(digest_of(blob), len(blob), lambda: io.BytesIO(blob), sent)


def push(repository: Repository, image: Image, reference: str = "latest") -> None:
    """Send an image whole."""
    for blob in image.blobs.values():
        send_blob(repository, blob)
    assert repository.put_manifest(reference, image.manifest, image.media_type) == image.digest


def opener(path: Path, data: bytes) -> Callable[[], BinaryIO]:
    """Opens a file that holds `data`."""
    path.write_bytes(data)
    return lambda: open(path, "rb")


@contextmanager
def telling(kind: type[Exception], text: str) -> Iterator[None]:
    """The body raises `kind` with exactly this text; `…` stands for anything."""
    with pytest.raises(kind) as caught:
        yield
    pattern = ".*".join(re.escape(part) for part in text.split("…"))
    assert re.fullmatch(pattern, str(caught.value), re.DOTALL), str(caught.value)
