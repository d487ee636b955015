"""`wherry manifest`: lists of images for several platforms, made here and pushed to a registry."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.manifests import as_list, blobs_of, descriptor_of, fetch_all, fetch_image
from wherry.cli.references import parse
from wherry.cli.registries import Remote
from wherry.client import manifests
from wherry.jsontext import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.references import Reference
    from wherry.cli.session import Session

# Systems, and what they run on.
_PLATFORMS = {
    "darwin": "386 amd64 arm arm64", "dragonfly": "amd64", "freebsd": "386 amd64 arm", "netbsd": "386 amd64 arm",
    "linux": "386 amd64 arm arm64 mips64 mips64le ppc64le riscv64 s390x", "openbsd": "386 amd64 arm",
    "plan9": "386 amd64", "solaris": "amd64", "windows": "386 amd64",
}  # fmt: skip


def _create(session: Session, parsed: Parsed) -> int:
    name, *given = parsed.arguments
    target = _named(name, f"error parsing name for manifest list {name}: ")
    if manifests.exists(session.config, target.full) and not parsed["amend"]:
        raise StatusError("refusing to amend an existing manifest list with no --amend flag")
    for each in given:
        reference = _named(each)
        found = manifests.get(session.config, target.full, reference.full)
        if not found:
            with Remote(session, reference, insecure=parsed["insecure"]) as remote:
                found = fetch_image(remote, reference)
        manifests.save(session.config, target.full, found)
    session.out(f"Created manifest list {target.full}\n")
    return 0


def _named(text: str, complaint: str = "") -> Reference:
    """A reference with the default tag; raises StatusError that begins with `complaint`."""
    try:
        return parse(text).with_default_tag()
    except StatusError as error:
        raise StatusError(f"{complaint}{error}") from None


def _annotate(session: Session, parsed: Parsed) -> int:
    of, name = parsed.arguments
    target = _named(of, f"annotate: error parsing name for manifest list {of}: ")
    reference = _named(name, f"annotate: error parsing name for manifest {name}: ")
    found = manifests.get(session.config, target.full, reference.full)
    if not found:
        raise StatusError(f"manifest for image {name} does not exist in {of}")
    platform = found["Descriptor"].setdefault("platform", {"architecture": "", "os": ""})
    for flag, key in (("os", "os"), ("arch", "architecture"), ("os-version", "os.version"), ("variant", "variant")):
        if parsed[flag]:
            platform[key] = parsed[flag]
    features = [each for values in parsed["os-features"] for each in values]
    if features:
        platform["os.features"] = list(dict.fromkeys([*(platform.get("os.features") or []), *features]))
    if platform.get("architecture") not in _PLATFORMS.get(platform.get("os", ""), "").split():
        combination = f"{parsed['os']}/{parsed['arch']}"
        raise StatusError(f"manifest entry for image has unsupported os/arch combination: {combination}")
    found["Descriptor"] = descriptor_of(found["Descriptor"])
    manifests.save(session.config, target.full, found)
    return 0


def _inspect(session: Session, parsed: Parsed) -> int:
    *of, name = parsed.arguments
    reference = _named(name)
    if of:
        found = manifests.get(session.config, _named(of[0]).full, reference.full)
        if not found:
            raise StatusError(f"No such manifest: {reference.full}")
        return _show_image(session, parsed, found)
    listed: Any = manifests.entries(session.config, reference.full)
    if listed is None:
        with Remote(session, reference, insecure=parsed["insecure"]) as remote:
            listed = fetch_all(remote, reference)
    if isinstance(listed, dict):
        return _show_image(session, parsed, listed)
    session.out((dumps(listed, indent="\t") if parsed["verbose"] else as_list(listed)[0]) + "\n")
    return 0


def _show_image(session: Session, parsed: Parsed, image: dict[str, Any]) -> int:
    shown = image if parsed["verbose"] else loads(_raw(image))
    session.out(dumps(shown, indent="\t", html=parsed["verbose"]) + "\n")
    return 0


def _raw(image: dict[str, Any]) -> bytes:
    """A manifest as its registry has it."""
    from binascii import a2b_base64

    if image.get("Raw"):
        return a2b_base64(image["Raw"])
    return dumps(image.get("SchemaV2Manifest") or image.get("OCIManifest"), indent="   ").encode()


def _push(session: Session, parsed: Parsed) -> int:
    target = _named(parsed.arguments[0])
    listed = manifests.entries(session.config, target.full)
    if listed is None:
        raise StatusError(f"No such manifest: {target.full}")
    if not listed:
        raise StatusError(f"{target.full} not found")
    images = [(parse(image["Ref"]), image) for image in listed]
    for reference, _ in images:
        if reference.domain != target.domain:
            raise StatusError(
                "cannot use source images from a different registry than the target image: "
                f"{reference.domain} != {target.domain}"
            )
    text, media_type = as_list(listed)
    with Remote(session, target, insecure=parsed["insecure"]) as remote:
        for reference, image in images:
            if reference.path != target.path:
                _take_over(session, remote, target, reference, image, insecure=parsed["insecure"])
        digest = remote.repository.put_manifest(target.digest or target.tag, text.encode(), media_type)
    session.out(f"{digest}\n")
    if parsed["purge"]:
        manifests.remove(session.config, target.full)
    return 0


def _take_over(
    session: Session, remote: Remote, target: Reference, reference: Reference, image: dict[str, Any], *, insecure: bool
) -> None:
    """Have an image of another repository of the same registry in this one, too."""
    digest = image["Descriptor"]["digest"]
    blobs = blobs_of(loads(_raw(image)), reference.full)
    missing = [blob for blob in blobs if not remote.repository.mount_blob(blob[0], reference.path)]
    if missing:
        with Remote(session, reference, insecure=insecure) as source:
            for blob in missing:
                _copy(source, remote, *blob)
    remote.repository.put_manifest(digest, _raw(image), image["Descriptor"]["mediaType"])
    session.out(f"Pushed ref {target.name}@{digest} with digest: {digest}\n")


def _copy(source: Remote, remote: Remote, digest: str, size: int) -> None:
    """Carry a blob over that the registry does not let us mount; it checks the digest."""
    from os import dup
    from tempfile import TemporaryFile

    with TemporaryFile() as file, source.repository.blob(digest, size) as reader:
        while data := reader.read(1 << 20):
            file.write(data)
        file.flush()

        def opened() -> Any:
            file.seek(0)
            return open(dup(file.fileno()), "rb")

        remote.repository.upload_blob(digest, size, opened, lambda _: None)


def _remove(session: Session, parsed: Parsed) -> int:
    failures = []
    for name in parsed.arguments:
        try:
            reference = _named(name)
            if not manifests.exists(session.config, reference.full):
                raise StatusError(f"No such manifest: {reference.full}")
            manifests.remove(session.config, reference.full)
        except StatusError as error:
            failures.append(str(error))
    if failures:
        raise StatusError("\n".join(failures))
    return 0


def _comma_separated(text: str) -> list[str]:
    from wherry.cli.options.csvline import split_csv

    return split_csv(text) if text else []


_INSECURE = Flag("insecure", "bool", "Allow communication with an insecure registry")
COMMANDS = {
    "annotate": Command(
        "[OPTIONS] MANIFEST_LIST MANIFEST", _annotate,
        (
            Flag("arch", "string", "Set architecture"),
            Flag("os", "string", "Set operating system"),
            Flag("os-features", "list", "Set operating system feature", word="strings", parse=_comma_separated),
            Flag("os-version", "string", "Set operating system version"),
            Flag("variant", "string", "Set architecture variant"),
        ),
        least=2, most=2,
    ),
    "create": Command(
        "MANIFEST_LIST MANIFEST [MANIFEST...]", _create,
        (Flag("amend", "bool", "Amend an existing manifest list", short="a"), _INSECURE), least=2,
    ),
    "inspect": Command(
        "[OPTIONS] [MANIFEST_LIST] MANIFEST", _inspect,
        (_INSECURE, Flag("verbose", "bool", "Output additional info including layers and platform", short="v")),
        least=1, most=2,
    ),
    "push": Command(
        "[OPTIONS] MANIFEST_LIST", _push,
        (
            Flag("insecure", "bool", "Allow push to an insecure registry"),
            Flag("purge", "bool", "Remove the local manifest list after push", short="p"),
        ),
        least=1, most=1,
    ),
    "rm": Command("MANIFEST_LIST [MANIFEST_LIST...]", _remove, least=1),
}  # fmt: skip
