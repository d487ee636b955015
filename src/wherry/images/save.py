"""`docker save`: one archive that is a docker-archive and an OCI layout at once, as Docker's has been since 25.

blobs/sha256/<hex>   configs, manifests and layers, as they came
index.json, oci-layout, manifest.json, repositories
"""

import json
import os
from typing import Any

import msgspec

from wherry.errors import Internal
from wherry.images import oci
from wherry.images.archive import headers, writer
from wherry.images.archive.pack import Sink
from wherry.images.content.store import ContentStore
from wherry.images.records import Image
from wherry.images.references import Reference

_LINE_END = b"\n"  # as Go's encoder ends a document


def write_archive(out: Sink, images: list[tuple[Image, list[Reference]]], content: ContentStore) -> None:
    """Write the images, each with the names it shall have, to `out`. Raises OSError, and `Internal` when a blob is
    damaged."""
    blobs: dict[str, int] = {}
    index: list[oci.Descriptor] = []
    items: list[dict[str, Any]] = []
    repositories: dict[str, dict[str, str]] = {}
    for image, names in images:
        layers = _layers(image, content)
        for layer in layers:
            blobs[layer.digest] = layer.size
        blobs[image.id] = content.size(image.id)
        blobs[image.manifest.digest] = image.manifest.size
        index.extend(_descriptors(image, names))
        items.append(_item(image, names, layers))
        for name in names:
            top = layers[-1].digest.removeprefix("sha256:") if layers else ""
            repositories.setdefault(name.familiar_name, {})[name.tag] = top
    if blobs:
        _write_blobs(out, blobs, content)
    _write(out, "index.json", oci.encode(oci.Index(manifests=index, schema_version=2, media_type=oci.INDEX)))
    _write(out, "manifest.json", json.dumps(items, separators=(",", ":")).encode() + _LINE_END)
    _write(out, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    if repositories:
        names_of = json.dumps(repositories, separators=(",", ":"), sort_keys=True)
        _write(out, "repositories", names_of.encode() + _LINE_END)
    out.write(writer.end())


def _layers(image: Image, content: ContentStore) -> list[oci.Descriptor]:
    document = content.read(image.manifest.digest, oci.MANIFEST_MAX)
    manifest = oci.decode_manifest_or_index(document, image.manifest)
    assert isinstance(manifest, oci.Manifest)
    return manifest.layers


def _descriptors(image: Image, names: list[Reference]) -> list[oci.Descriptor]:
    if not names:
        return [image.manifest]
    return [
        msgspec.structs.replace(image.manifest, annotations={oci.CONTAINERD_NAME: str(name), oci.REF_NAME: name.tag})
        for name in names
    ]


def _member_name(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _item(image: Image, names: list[Reference], layers: list[oci.Descriptor]) -> dict[str, Any]:
    item: dict[str, Any] = {
        "Config": _member_name(image.id),
        "RepoTags": [name.familiar for name in names] or None,
        "Layers": [_member_name(layer.digest) for layer in layers],
    }
    if image.parent:
        item["Parent"] = image.parent
    sources = {
        diff_id: {"mediaType": layer.media_type, "size": layer.size, "digest": layer.digest}
        for diff_id, layer in zip(image.diff_ids, layers, strict=True)
    }
    return {**item, "LayerSources": sources} if sources else item


def _write_blobs(out: Sink, blobs: dict[str, int], content: ContentStore) -> None:
    for directory in (b"blobs/", b"blobs/sha256/"):
        out.write(writer.member(directory, kind=headers.DIRECTORY, mode=0o755))
    for digest in sorted(blobs):
        _write_blob(out, digest, blobs[digest], content)


def _write_blob(out: Sink, digest: str, size: int, content: ContentStore) -> None:
    """One blob, which the kernel copies. What is not of the size its manifest says is no longer what it was."""
    fd = os.open(content.path(digest), os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_size != size:
            raise Internal(f"content {digest} is damaged on disk: it should have {size} bytes")
        out.write(writer.member(_member_name(digest).encode(), size=size))
        out.send_file(fd, size)
        out.write(writer.padding(size))
    finally:
        os.close(fd)


def _write(out: Sink, name: str, data: bytes) -> None:
    out.write(writer.member(name.encode(), size=len(data)) + data + writer.padding(len(data)))
