"""`wherry buildx imagetools inspect`: what a registry has under a name."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.manifests import blobs_of, descriptor_of, digest_in, mapping, members
from wherry.cli.platforms import normalised
from wherry.cli.references import parse
from wherry.cli.registries import LISTS, Remote, document
from wherry.cli.rows import printable
from wherry.cli.table import align
from wherry.jsontext import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.references import Reference
    from wherry.cli.session import Session
    from wherry.registry.repository import RawManifest


_ATTESTS = "vnd.docker.reference.type"  # the annotation of what is no image but tells of one


class _Shown:
    """A value of a template: `value` as JSON, and what it says of itself."""

    def __init__(self, value: dict[str, Any], text: str = "") -> None:
        self._value, self._text = value, text

    def as_json(self) -> str:
        return dumps(self._value, indent="  ", html=False)

    def __str__(self) -> str:
        return self._text or self.as_json()


class _Image:
    """What a template sees; the configurations are fetched when they are asked for."""

    def __init__(self, reference: Reference, found: RawManifest, images: Callable[[], dict[str, Any]]) -> None:
        self.type_name = "imagetools.tplInputs" if len(_platforms(reference, found)) > 1 else "imagetools.tplInput"
        self._reference, self._found, self._images = reference, found, images

    def column(self, name: str) -> Any:
        """A field; KeyError when there is none of that name."""
        if name == "Name":
            return self._reference.full
        if name == "Manifest":
            return _Shown(_descriptor(self._found), describe(self._reference, self._found))
        if name == "Image":
            return _Shown(self._images())
        raise KeyError(name)

    def as_json(self) -> str:
        manifest, images = _descriptor(self._found), self._images()
        return _Shown({"name": self._reference.full, "manifest": manifest, "image": images}).as_json()


def _inspect(session: Session, parsed: Parsed) -> int:
    form = parsed["format"]
    if form and parsed["raw"]:
        raise StatusError("format and raw cannot be used together")
    reference = parse(parsed.arguments[0]).with_default_tag()
    with Remote(session, reference) as remote:
        found = remote.manifest(reference)
        if found is None:
            raise StatusError(f"{reference.full}: not found")
        if parsed["raw"]:
            session.out(found.data.decode("utf-8", "surrogateescape"))
        elif form and form != "{{.Manifest}}":
            session.out(_formatted(form, _Image(reference, found, lambda: _images(remote, reference, found))))
        else:
            session.out(describe(reference, found))
    return 0


def _formatted(form: str, image: _Image) -> str:
    from wherry.gotemplate import Template, TemplateError

    try:
        return Template(form).execute(image)
    except TemplateError as error:
        raise StatusError(str(error)) from None


def _descriptor(found: RawManifest) -> dict[str, Any]:
    """The descriptor of what was found, with the contents of an index."""
    descriptor = {"mediaType": found.media_type, "digest": found.digest, "size": len(found.data)}
    if found.media_type not in LISTS:
        return descriptor
    index = document(found.data, found.digest)
    rest = {"manifests": [_ordered(each) for each in members(index)]}
    if index.get("annotations"):
        rest["annotations"] = index["annotations"]
    return {"schemaVersion": index.get("schemaVersion"), **descriptor, **rest}


def _ordered(descriptor: dict[str, Any]) -> dict[str, Any]:
    keys = ("mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType")
    found = {key: descriptor[key] for key in keys if descriptor.get(key) is not None}
    return descriptor_of(found) if "platform" in found else found


def _images(remote: Remote, reference: Reference, found: RawManifest) -> dict[str, Any]:
    """The configuration of an image, or those of an index by platform where it has several."""
    if found.media_type not in LISTS:
        return _config(remote, reference, found.data)
    entries = sorted(_platforms(reference, found).items())
    digests = {name: digest_in(entry, reference.full) for name, entry in entries}
    images = {name: _config(remote, reference, remote.repository.manifest(digests[name]).data) for name in digests}
    return images if len(images) != 1 else next(iter(images.values()))


def _platforms(reference: Reference, found: RawManifest) -> dict[str, dict[str, Any]]:
    """The descriptors of an index's images by platform; {} for what is no index."""
    descriptors = {}
    for member in members(document(found.data, reference.full)) if found.media_type in LISTS else ():
        platform, attests = mapping(member.get("platform")), _ATTESTS in mapping(member.get("annotations"))
        if platform and not attests:
            descriptors["/".join(normalised(_platform(platform)))] = member
    return descriptors


def _config(remote: Remote, reference: Reference, manifest: bytes) -> dict[str, Any]:
    blobs = blobs_of(document(manifest, reference.full), reference.full)
    config = document(remote.repository.small_blob(*blobs[-1]), reference.full)
    first = ("created", "author", "architecture", "os", "os.version", "os.features", "variant", "config")
    return {key: config[key] for key in (*first, *config) if key in config}


def _platform(platform: dict[str, Any]) -> list[str]:
    return [str(platform.get(key) or "") for key in ("os", "architecture", "variant")]


def describe(reference: Reference, found: RawManifest) -> str:
    """What was found, for people to read."""
    head = f"Name:\t{reference.full}\nMediaType:\t{found.media_type}\nDigest:\t{found.digest}\n"
    if found.media_type not in LISTS:
        return align(head, 0, 1)
    listed = [_member(reference, each) for each in members(document(found.data, reference.full))]
    return align(f"{head}\t\nManifests:\t\n", 0, 1) + align("  \t\n".join(listed), 0, 1)


def _member(reference: Reference, descriptor: dict[str, Any]) -> str:
    """One descriptor of an index, as cells."""
    platform, text = mapping(descriptor.get("platform")), printable
    rows = (
        ("Name", f"{reference.full}@{text(descriptor.get('digest'))}"),
        ("MediaType", text(descriptor.get("mediaType"))),
        ("ArtifactType", text(descriptor.get("artifactType") or "")),
        ("Platform", text("/".join(filter(None, _platform(platform))))),
        ("OSVersion", text(platform.get("os.version") or "")),
        ("OSFeatures", _listed(platform.get("os.features"))),
        ("URLs", _listed(descriptor.get("urls"))),
    )
    shown = "".join(f"  {name}:\t{value}\n" for name, value in rows if value)
    if annotations := mapping(descriptor.get("annotations")):
        shown += "  Annotations:\t\n"
        shown += "".join(f"    {text(key)}: {text(annotations[key])}\n" for key in sorted(annotations))
    return shown


def _listed(values: Any) -> str:
    return ", ".join(printable(each) for each in values) if isinstance(values, list) else ""


COMMANDS = {
    "inspect": Command(
        "[OPTIONS] NAME", _inspect,
        (
            Flag("format", "string", "Format the output using the given Go template"),
            Flag("raw", "bool", "Show original, unformatted JSON manifest"),
        ),
        least=1, most=1,
    ),
}  # fmt: skip
