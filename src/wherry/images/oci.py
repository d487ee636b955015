"""The OCI image specification's documents as far as an engine reads them, and the Docker variants of the same.

Decoding is lenient about what is unknown and strict about types: a document that lies about a type raises
`InvalidArgument`, never anything else. Sources: image-spec `manifest.md`, `image-index.md`, `config.md`,
`descriptor.md`, `image-layout.md`; Docker's `image/spec/docker-v1.2.md` for the archive of `docker save`.
"""

from typing import Any, TypeVar

import msgspec

from wherry.errors import InvalidArgument

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

INDEX_TYPES = (INDEX, DOCKER_INDEX)
MANIFEST_TYPES = (MANIFEST, DOCKER_MANIFEST)
CONFIG_TYPES = (CONFIG, DOCKER_CONFIG)

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"

# The largest manifest or index registries accept, and a config no real image comes near.
MANIFEST_MAX = 4 << 20
CONFIG_MAX = 8 << 20
_LAYERS_MAX = 500  # overlay's own limit


class Platform(msgspec.Struct, omit_defaults=True, frozen=True):
    """What a program was built for."""

    architecture: str = ""
    os: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


def fits(offered: Platform, wanted: Platform) -> bool:
    """Whether what is for `offered` is what somebody wants who asks for `wanted`; what either leaves open fits."""
    if (offered.os or "linux") != (wanted.os or "linux"):
        return False
    if wanted.architecture and offered.architecture != wanted.architecture:
        return False
    return not (wanted.variant and offered.variant and offered.variant != wanted.variant)


class Descriptor(msgspec.Struct, omit_defaults=True, rename="camel"):
    """A reference to a blob: what it is, its digest, its size in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] | None = None
    platform: Platform | None = None
    artifact_type: str = ""


class Manifest(msgspec.Struct, omit_defaults=True, rename="camel", kw_only=True):
    """One image: its config and its layers, lowest first."""

    schema_version: int = 0
    media_type: str = ""
    config: Descriptor
    layers: list[Descriptor]
    annotations: dict[str, str] | None = None


class Index(msgspec.Struct, omit_defaults=True, rename="camel", kw_only=True):
    """Several manifests: the platforms of one image, or the images of a layout."""

    schema_version: int = 0
    media_type: str = ""
    manifests: list[Descriptor]
    annotations: dict[str, str] | None = None


class RootFS(msgspec.Struct):
    """`diff_ids`: digests of the uncompressed layers, lowest first."""

    diff_ids: list[str] = []
    type: str = "layers"


class History(msgspec.Struct, omit_defaults=True):
    """How one step of the image came to be; `empty_layer` steps have no layer."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, omit_defaults=True):
    """The image's own description; its digest is the image's id. `config` is kept as it came."""

    rootfs: RootFS
    architecture: str = ""
    os: str = ""
    variant: str = ""
    created: str | None = None
    author: str = ""
    comment: str = ""
    docker_version: str = ""
    config: dict[str, Any] | None = None
    history: list[History] | None = None
    os_version: str = msgspec.field(default="", name="os.version")

    @property
    def platform(self) -> Platform:
        return Platform(self.architecture, self.os, self.variant)


class CommittedImage(ImageConfig, omit_defaults=True, kw_only=True):
    """The description of an image made from a container, with what Docker adds to it."""

    container: str = ""
    container_config: dict[str, Any] | None = None


class ArchiveImage(msgspec.Struct, rename="pascal"):
    """An element of `manifest.json` in a docker-archive; paths are names of members."""

    config: str
    layers: list[str]
    repo_tags: list[str] | None = None
    parent: str = ""


_T = TypeVar("_T")
_DEPTH_MAX = 64


def _check_depth(data: bytes) -> None:
    """Refuse documents nested so deeply that a recursive decoder would run out of stack."""
    depth = 0
    for byte in data.translate(None, _NOT_BRACKETS):
        depth += 1 if byte in b"[{" else -1
        if depth > _DEPTH_MAX * 4:
            raise InvalidArgument("invalid JSON: nested too deeply")


_NOT_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))


def decode(data: bytes | memoryview, kind: type[_T], what: str, *, limit: int = MANIFEST_MAX) -> _T:
    """Decode JSON `data` of at most `limit` bytes into `kind`; `what` names it in the `InvalidArgument` raised when
    it is too large, too deep, not JSON or of other types."""
    if len(data) > limit:
        raise InvalidArgument(f"{what}: larger than {limit} bytes")
    _check_depth(bytes(data))
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"{what}: {error}") from None


class _Kinds(msgspec.Struct, rename="camel"):
    media_type: str = ""
    manifests: Any = None
    layers: Any = None
    config: Any = None
    fs_layers: Any = None


def decode_manifest_or_index(data: bytes, descriptor: Descriptor) -> Manifest | Index:
    """Decode the document `descriptor` points to. A document that could be read as both a manifest and an index, or
    whose own media type contradicts the descriptor's, is refused (CVE-2021-41190)."""
    kinds = decode(data, _Kinds, "manifest")
    if kinds.fs_layers is not None:
        raise InvalidArgument("manifest: schema 1 manifests are not supported")
    if kinds.manifests is not None and (kinds.layers is not None or kinds.config is not None):
        raise InvalidArgument("manifest: ambiguous document, both manifest and index")
    if kinds.media_type and kinds.media_type != descriptor.media_type:
        raise InvalidArgument(
            f"manifest: media type {kinds.media_type!r} is not {descriptor.media_type!r} as announced"
        )
    if descriptor.media_type in INDEX_TYPES:
        return decode(data, Index, "image index")
    if descriptor.media_type in MANIFEST_TYPES:
        return decode(data, Manifest, "image manifest")
    raise InvalidArgument(f"manifest: unsupported media type {descriptor.media_type!r}")


def check_layers(count: int) -> None:
    """Raise `InvalidArgument` for an image of more layers than a container could have below it."""
    if count > _LAYERS_MAX:
        raise InvalidArgument(f"the image has {count} layers: no more than {_LAYERS_MAX} can be mounted")


def encode(document: msgspec.Struct) -> bytes:
    """The document as compact JSON, fields in the order of their definition."""
    return msgspec.json.encode(document)
