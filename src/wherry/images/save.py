"""`docker save`: one archive that is a docker-archive and an OCI layout at once, as Docker's has been since 25.

blobs/sha256/<hex>   configs, manifests and layers, as they came
index.json, oci-layout, manifest.json, repositories
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from wherry.images import oci
from wherry.images.archive import headers, writer
from wherry.images.content.store import ContentStore
from wherry.images.records import Image
from wherry.images.references import Reference

_PIECE = 1 << 20


def write_archive(out: BinaryIO, images: list[tuple[Image, list[Reference]]], content: ContentStore) -> None:
    """Write the images, each with the names it shall have, to `out`. Raises OSError."""
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
    _write_blobs(out, blobs, content)
    _write(out, "index.json", oci.encode(oci.Index(manifests=index, schema_version=2, media_type=oci.INDEX)))
    _write(out, "manifest.json", json.dumps(items, separators=(",", ":")).encode())
    _write(out, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    if repositories:
        _write(out, "repositories", json.dumps(repositories, separators=(",", ":"), sort_keys=True).encode())
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


def _write_blobs(out: BinaryIO, blobs: dict[str, int], content: ContentStore) -> None:
    for directory in (b"blobs/", b"blobs/sha256/"):
        out.write(writer.member(directory, kind=headers.DIRECTORY, mode=0o755))
    for digest in sorted(blobs):
        size = blobs[digest]
        header = writer.member(_member_name(digest).encode(), size=size)
        writer.write_member(out, header, size, _pieces(content.path(digest)))


def _pieces(path: Path) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            yield piece


def _write(out: BinaryIO, name: str, data: bytes) -> None:
    writer.write_member(out, writer.member(name.encode(), size=len(data)), len(data), [data])
