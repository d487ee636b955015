"""Platforms as people write them and as indexes list them: parsing, and which one to take.

The rules are containerd's `platforms` package, which Docker uses: `x86_64` is amd64, `linux/arm64` is v8; a machine
takes what an older one of its family runs (arm/v7 also v6 and v5, arm64 also arm, amd64 also 386), the nearest first.
"""

import platform
import re
from collections.abc import Sequence

from wherry.errors import InvalidArgument
from wherry.images.oci import Descriptor, Platform

_PART = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_ARCHITECTURES = {
    "i386": ("386", ""),
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
_AMD64_LEVELS = {
    "v2": ("cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"),
    "v3": ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"),
    "v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
}
# fmt: off
_SYSTEMS = frozenset((
    "aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js", "linux", "netbsd", "openbsd",
    "plan9", "solaris", "windows",
))
_KNOWN_ARCHITECTURES = frozenset((
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc64", "ppc64le", "riscv64",
    "s390x", "wasm",
))
# fmt: on


def host_platform() -> Platform:
    """The platform this machine runs."""
    machine = platform.machine()
    if machine.startswith("armv"):
        return Platform("arm", "linux", machine[3:5])
    return Platform(_architecture(machine, "")[0], "linux")


def best_platform() -> Platform:
    """The most demanding platform this machine runs: what an index is searched for when no platform was asked for."""
    host = host_platform()
    return Platform("amd64", "linux", _amd64_level()) if host.architecture == "amd64" else host


def _amd64_level() -> str:
    """The microarchitecture level of the x86-64 psABI: "" for the first, "v2" to "v4"."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            flags = next((set(line.split()) for line in file if line.startswith("flags")), set())
    except OSError:
        return ""
    level = ""
    for name, wanted in _AMD64_LEVELS.items():
        if not flags.issuperset(wanted):
            break
        level = name
    return level


def parse(text: str) -> Platform:
    """`linux/arm64/v8`, `arm64` or `linux` as a platform; what is not said comes from this machine. Raises
    `InvalidArgument` with Docker's words."""
    parts = text.split("/", 3)
    for part in parts:
        if not _PART.fullmatch(part):
            raise InvalidArgument(
                f'"{part}" is an invalid component of "{text}": platform specifier component must match '
                f'"^[A-Za-z0-9_.-]+$": invalid argument'
            )
    if len(parts) > 3:
        raise InvalidArgument(f'"{text}": cannot parse platform specifier: invalid argument')
    if len(parts) > 1:
        architecture, variant = _architecture(parts[1], parts[2] if len(parts) == 3 else "")
        return Platform(architecture, _system(parts[0]), variant)
    if _system(text) in _SYSTEMS:
        return Platform(host_platform().architecture, _system(text), host_platform().variant)
    architecture, variant = _architecture(text, "")
    if architecture not in _KNOWN_ARCHITECTURES:
        raise InvalidArgument(f'"{text}": unknown operating system or architecture: invalid argument')
    return Platform(architecture, "linux", variant)


def normalize(found: Platform) -> Platform:
    """One spelling for each platform."""
    architecture, variant = _architecture(found.architecture, found.variant)
    return Platform(architecture, _system(found.os), variant)


def _system(name: str) -> str:
    return {"": "linux", "macos": "darwin"}.get(name.lower(), name.lower())


def _architecture(name: str, variant: str) -> tuple[str, str]:
    name, variant = name.lower(), variant.lower()
    if name in _ARCHITECTURES:
        name, implied = _ARCHITECTURES[name]
        variant = implied or variant
    if (name == "amd64" and variant == "v1") or (name == "arm64" and variant in ("8", "v8", "v8.0")):
        variant = ""
    elif name == "arm":
        variant = f"v{variant}" if variant in ("5", "6", "7", "8") else variant or "v7"
    return name, variant


def acceptable(wanted: Platform) -> list[Platform]:
    """The platforms a machine of platform `wanted` runs, best first, normalised."""
    wanted = normalize(wanted)
    found = [(wanted.architecture, wanted.variant), *_older(wanted.architecture, wanted.variant)]
    if wanted.architecture == "amd64":
        found.append(("386", ""))
    elif wanted.architecture == "arm64":
        found += [("arm", "v8"), *_older("arm", "v8")]
    return [Platform(architecture, wanted.os, variant) for architecture, variant in found]


def _older(architecture: str, variant: str) -> list[tuple[str, str]]:
    oldest = {"arm": 5, "amd64": 1}.get(architecture)
    if oldest is None or not variant[1:].isdecimal():
        return []
    versions = range(int(variant[1:3]) - 1, oldest - 1, -1)
    return [_architecture(architecture, f"v{version}") for version in versions]


def runs_on(found: Platform, wanted: Platform) -> bool:
    """Whether a machine of platform `wanted` runs what was built for `found`."""
    return normalize(found) in acceptable(wanted)


def choose(manifests: Sequence[Descriptor], wanted: Platform) -> Descriptor | None:
    """The entry of an index for `wanted`: the best, of equals the first; one without a platform fits anything, last."""
    ranks = acceptable(wanted)
    best: tuple[int, Descriptor] | None = None
    for entry in manifests:
        rank = len(ranks)
        if entry.platform is not None:
            found = normalize(entry.platform)
            if found not in ranks:
                continue
            rank = ranks.index(found)
        if best is None or rank < best[0]:
            best = (rank, entry)
    return best[1] if best else None
