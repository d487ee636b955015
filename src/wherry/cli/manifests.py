"""Images of registries as `manifest` has them, and lists of them."""

from __future__ import annotations

from wherry.cli.errors import StatusError
from wherry.cli.references import Reference
from wherry.cli.registries import DOCKER_LIST, IMAGES, LISTS, OCI_INDEX, document
from wherry.jsontext import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.registries import Remote
    from wherry.registry.repository import RawManifest

_DOCKER_IMAGE, _OCI_IMAGE = IMAGES
_PLATFORM = ("architecture", "os", "os.version", "os.features", "variant")


def fetch_image(remote: Remote, reference: Reference) -> dict[str, Any]:
    """An image of a registry, as it is stored for lists. Raises StatusError when there is none, or it is a list."""
    found = _fetch(remote, reference)
    if found.media_type in LISTS:
        raise StatusError(f"{reference.full} is a manifest list")
    return _described(remote, reference, found, None)


def fetch_all(remote: Remote, reference: Reference) -> dict[str, Any] | list[dict[str, Any]]:
    """An image of a registry, or the images of a list; raises StatusError."""
    found = _fetch(remote, reference)
    if found.media_type not in LISTS:
        return _described(remote, reference, found, None)
    images = []
    for entry in members(document(found.data, reference.full)):
        member = Reference(reference.domain, reference.path, reference.tag, digest_in(entry, reference.full))
        images.append(_described(remote, member, _fetch(remote, member), mapping(entry.get("platform"))))
    return images


def members(index: dict[str, Any]) -> list[dict[str, Any]]:
    """The descriptors of an index, which is a registry's and may hold anything."""
    found = index.get("manifests")
    return [mapping(each) for each in found] if isinstance(found, list) else []


def digest_in(entry: dict[str, Any], what: str) -> str:
    """The digest of an index's entry, which becomes part of a URL; raises StatusError that says `what`."""
    from wherry.digests import check_digest
    from wherry.errors import InvalidArgument

    try:
        return check_digest(str(entry.get("digest") or ""))
    except InvalidArgument as error:
        raise StatusError(f"{what}: an entry of this manifest list: {error}") from None


def mapping(value: Any) -> dict[str, Any]:
    """A registry's word where an object belongs."""
    return value if isinstance(value, dict) else {}


def blobs_of(manifest: dict[str, Any], what: str) -> list[tuple[str, int]]:
    """(digest, size) of an image's layers and, last, its configuration; raises StatusError that says `what`."""
    layers = manifest.get("layers")
    found = [mapping(each) for each in (*(layers if isinstance(layers, list) else ()), manifest.get("config"))]
    if any(not (isinstance(each.get("digest"), str) and isinstance(each.get("size"), int)) for each in found):
        raise StatusError(f"{what}: this is no manifest of an image")
    return [(each["digest"], each["size"]) for each in found]


def _fetch(remote: Remote, reference: Reference) -> RawManifest:
    found = remote.manifest(reference)
    if found is None:
        raise StatusError(f"no such manifest: {reference.full}")
    return found


def _described(
    remote: Remote, reference: Reference, found: RawManifest, platform: dict[str, Any] | None
) -> dict[str, Any]:
    """An image with the platform that a list says, or else its configuration."""
    from binascii import b2a_base64

    if found.media_type not in IMAGES:
        raise StatusError(f"unsupported manifest format: {found.media_type}")
    manifest = document(found.data, reference.full)
    if platform is None:
        data = remote.repository.small_blob(*blobs_of(manifest, reference.full)[-1])
        platform = document(data, f"configuration of {reference.full}")
    descriptor = {"mediaType": found.media_type, "digest": found.digest, "size": len(found.data), "platform": platform}
    kind = "OCIManifest" if found.media_type == _OCI_IMAGE else "SchemaV2Manifest"
    raw = b2a_base64(found.data, newline=False).decode()
    return {"Ref": reference.full, "Descriptor": descriptor_of(descriptor), "Raw": raw, kind: manifest}


def descriptor_of(descriptor: dict[str, Any]) -> dict[str, Any]:
    """A descriptor with the keys of its platform in their order, those that say nothing left out."""
    given = mapping(descriptor.get("platform"))
    platform = {key: given.get(key) or "" for key in _PLATFORM[:2]}
    platform |= {key: given[key] for key in _PLATFORM[2:] if given.get(key)}
    return {**descriptor, "platform": platform}


def as_list(images: list[dict[str, Any]]) -> tuple[str, str]:
    """The JSON of a list of images, and its media type: the first image's kind decides."""
    found = [
        {key: descriptor[key] for key in ("mediaType", "size", "digest", "platform")}
        for descriptor in (descriptor_of(image["Descriptor"]) for image in images)
    ]
    media_type = OCI_INDEX if found and found[0]["mediaType"] == _OCI_IMAGE else DOCKER_LIST
    return dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": found}, indent="   "), media_type
