"""Platforms: "linux/arm/v7" as Docker's requests want them."""

from __future__ import annotations

import os

from wherry.cli.errors import StatusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Parsed

_ARCHITECTURES = {
    "i386": ("386", ""), "x86_64": ("amd64", None), "x86-64": ("amd64", None), "aarch64": ("arm64", None),
    "armhf": ("arm", "v7"), "armel": ("arm", "v6"),
}  # fmt: skip
_KNOWN_SYSTEMS = frozenset(
    (
        "aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js", "linux", "nacl", "netbsd",
        "openbsd", "plan9", "solaris", "windows", "zos",
    )
)  # fmt: skip
_KNOWN_ARCHITECTURES = frozenset(
    (
        "386", "amd64", "amd64p32", "arm", "armbe", "arm64", "arm64be", "ppc64", "ppc64le", "loong64", "mips",
        "mipsle", "mips64", "mips64le", "mips64p32", "mips64p32le", "ppc", "riscv", "riscv64", "s390", "s390x",
        "sparc", "sparc64", "wasm",
    )
)  # fmt: skip
_SHORT_VARIANTS = {("arm", v): f"v{v}" for v in "5678"} | {("arm64", "8"): ""}
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_SYSTEM_RULE = '"^([A-Za-z0-9_-]+)(?:\\\\(([A-Za-z0-9_.%-]*)((?:\\\\+[A-Za-z0-9_.%-]+)*)\\\\))?$"'


def platform_of(parsed: Parsed) -> str:
    """What --platform or else the environment asks for, as the user wrote it; "" for any."""
    text: str = parsed["platform"]
    return text if "platform" in parsed.changed else os.environ.get("DOCKER_DEFAULT_PLATFORM", "")


def parse(text: str) -> list[str]:
    """[os, architecture, perhaps variant]; what is missing comes from this machine. Raises StatusError."""
    from wherry.goquote import quote

    parts = text.split("/", 3)
    if "*" in text:
        raise StatusError(f"{quote(text)}: wildcards not yet supported: invalid argument")
    for part in parts:
        _check(part, text, first=part is parts[0])
    system = _system(parts[0])
    if len(parts) == 1 and system not in _KNOWN_SYSTEMS:
        architecture, _ = _architecture(parts[0], "")
        if architecture not in _KNOWN_ARCHITECTURES:
            raise StatusError(f"{quote(text)}: unknown operating system or architecture: invalid argument")
        return ["linux", architecture]
    if len(parts) > 3:
        raise StatusError(f"{quote(text)}: cannot parse platform specifier: invalid argument")
    named = parts[1] if len(parts) > 1 else os.uname().machine
    architecture, variant = _architecture(named, parts[2] if len(parts) > 2 else "")
    if len(parts) < 3 and variant == "v7":
        variant = ""
    if len(parts) == 3 and architecture == "arm64":
        variant = variant or "v8"
    return [system, architecture, variant] if variant else [system, architecture]


def normalised(parts: list[str]) -> list[str]:
    """[os, architecture, variant or ""] of an image by the names that are usual, without what is empty."""
    system, architecture, variant = parts
    return [part for part in (_system(system), *_architecture(architecture, variant)) if part]


def _check(part: str, whole: str, *, first: bool) -> None:
    from wherry.goquote import quote

    name, bracket, version = part.partition("(") if first else (part, "", "")
    letters = _LETTERS if first else _LETTERS | {"."}
    if name and set(name) <= letters and (not bracket or version.endswith(")")):
        return
    kind, rule = "component", 'platform specifier component must match "^[A-Za-z0-9_.-]+$"'
    if first:
        kind, rule = "OS component", f"OSAndVersion specifier component must match {_SYSTEM_RULE}"
    raise StatusError(f"{quote(part)} is an invalid {kind} of {quote(whole)}: {rule}: invalid argument")


def _system(text: str) -> str:
    name = text.partition("(")[0].lower()
    return "darwin" if name == "macos" else name


def _architecture(text: str, variant: str) -> tuple[str, str]:
    name, variant = text.lower(), variant.lower()
    name, fixed = _ARCHITECTURES.get(name, (name, None))
    variant = variant if fixed is None else fixed
    variant = _SHORT_VARIANTS.get((name, variant), variant)
    if (name, variant) in (("amd64", "v1"), ("arm64", "v8")):
        variant = ""
    return name, variant


def as_json(text: str) -> str:
    """One platform as the OCI object that load, save and inspect take. Raises StatusError."""
    try:
        return _object(text)
    except StatusError as error:
        raise StatusError(f"invalid platform: {error}") from None


def _object(text: str) -> str:
    from wherry.jsontext import dumps

    parts = parse(text)
    platform: dict[str, Any] = {"architecture": parts[1], "os": parts[0]}
    if len(parts) > 2:
        platform["variant"] = parts[2]
    return dumps(platform)


def as_query(name: str, texts: list[str]) -> list[tuple[str, str]]:
    """Several platforms, each perhaps several with commas between, as the query parameters `name`. Raises
    StatusError."""
    return [(name, _object(text)) for several in texts for text in several.split(",")]
