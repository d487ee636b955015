"""The device allow-list of a cgroup, computed from OCI device rules the way the v1 controller understands them.

Rules apply in order on top of "deny everything": a list without a deny-all at its head is an allow-list all the same
(never the reverse: GHSA-g54h-m393-cpwq). What every container needs is appended at the end, as runc does. See
Documentation/admin-guide/cgroup-v1/devices.rst.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

ANY = -1
"""a wildcard major or minor number"""


class Device(NamedTuple):
    """Which nodes a rule is about."""

    kind: str
    """ "b" or "c" """
    major: int
    minor: int

    def covers(self, other: "Device") -> bool:
        """Every node of `other` is one of ours."""
        return self.kind == other.kind and self.major in (ANY, other.major) and self.minor in (ANY, other.minor)

    def meets(self, other: "Device") -> bool:
        """Some node is both of ours and of `other`."""
        return (
            self.kind == other.kind
            and (ANY in (self.major, other.major) or self.major == other.major)
            and (ANY in (self.minor, other.minor) or self.minor == other.minor)
        )

    def __str__(self) -> str:
        return f"{self.kind} {_number(self.major)}:{_number(self.minor)}"


class DeviceAccess(NamedTuple):
    """What a cgroup may do with devices."""

    default_allow: bool
    """False: `exceptions` are what is allowed; True: what is denied"""
    exceptions: dict[Device, frozenset[str]]
    """device -> subset of "rwm" """


# mknod of anything is harmless without the right to open it; the rest are the nodes runc makes in every container,
# its ptys, and the tun device that VPN images expect.
_ALWAYS = (
    (Device("c", ANY, ANY), "m"),
    (Device("b", ANY, ANY), "m"),
    (Device("c", 1, 3), "rwm"),
    (Device("c", 1, 8), "rwm"),
    (Device("c", 1, 7), "rwm"),
    (Device("c", 5, 0), "rwm"),
    (Device("c", 1, 5), "rwm"),
    (Device("c", 1, 9), "rwm"),
    (Device("c", 136, ANY), "rwm"),
    (Device("c", 5, 2), "rwm"),
    (Device("c", 10, 200), "rwm"),
)


def access_of(rules: Iterable[dict[str, Any]], *, with_defaults: bool = True) -> DeviceAccess:
    """Fold OCI rules ({"allow": bool, "type": "a|b|c", "major": n, "minor": n, "access": "rwm"}) into one answer.
    Raises ValueError for a malformed rule and for one that would cut a hole into a wider exception, which neither
    kernel interface can express."""
    access = DeviceAccess(False, {})
    for rule in rules:
        access = _apply(access, rule)
    if with_defaults:
        for device, letters in _ALWAYS:
            access = _permit(access, device, frozenset(letters), True)
    return access


def _apply(access: DeviceAccess, rule: dict[str, Any]) -> DeviceAccess:
    allow = bool(rule.get("allow"))
    letters = frozenset(rule.get("access") or "rwm")
    kind = rule.get("type") or "a"
    if kind not in ("a", "b", "c", "u") or not letters <= frozenset("rwm"):
        raise ValueError(f"invalid device cgroup rule {rule!r}")
    major, minor = _wildcard(rule.get("major")), _wildcard(rule.get("minor"))
    if kind == "a" and major == minor == ANY and len(letters) == 3:
        return DeviceAccess(allow, {})
    for one in ("b", "c") if kind == "a" else ("c" if kind == "u" else kind,):
        access = _permit(access, Device(one, major, minor), letters, allow)
    return access


def _permit(access: DeviceAccess, device: Device, letters: frozenset[str], allow: bool) -> DeviceAccess:
    exceptions = dict(access.exceptions)
    if allow != access.default_allow:
        exceptions[device] = exceptions.get(device, frozenset()) | letters
        return DeviceAccess(access.default_allow, exceptions)
    for other, held in access.exceptions.items():
        if not device.meets(other) or not held & letters:
            continue
        if not device.covers(other):
            verb = "allow" if allow else "deny"
            raise ValueError(f"device cgroup rule to {verb} {device} would punch a hole in the rule for {other}")
        exceptions[other] = held - letters
        if not exceptions[other]:
            del exceptions[other]
    return DeviceAccess(access.default_allow, exceptions)


def parse_list(text: str) -> DeviceAccess:
    """What `devices.list` of the v1 controller says."""
    exceptions: dict[Device, frozenset[str]] = {}
    for line in text.splitlines():
        kind, numbers, letters = line.split()
        if kind == "a":
            # With default allow the kernel shows this one line, whatever the exceptions.
            return DeviceAccess(True, {})
        major, minor = numbers.split(":")
        exceptions[Device(kind, _parse_number(major), _parse_number(minor))] = frozenset(letters)
    return DeviceAccess(False, exceptions)


def legacy_writes(current: DeviceAccess, target: DeviceAccess) -> list[tuple[str, str]]:
    """(file, line) writes that turn a v1 cgroup from `current` into `target`, without taking away in between what
    both allow."""
    writes: list[tuple[str, str]] = []
    held = current.exceptions
    if current.default_allow or target.default_allow:
        if current != target or target.default_allow:
            writes.append(("devices.allow" if target.default_allow else "devices.deny", "a"))
        held = {}
    add, take = ("devices.deny", "devices.allow") if target.default_allow else ("devices.allow", "devices.deny")
    for device, letters in target.exceptions.items():
        if missing := letters - held.get(device, frozenset()):
            writes.append((add, f"{device} {_letters(missing)}"))
    for device, letters in held.items():
        if surplus := letters - target.exceptions.get(device, frozenset()):
            writes.append((take, f"{device} {_letters(surplus)}"))
    return writes


def _letters(access: frozenset[str]) -> str:
    return "".join(letter for letter in "rwm" if letter in access)


def _wildcard(number: int | None) -> int:
    return ANY if number is None or number < 0 else number


def _parse_number(text: str) -> int:
    return ANY if text == "*" else int(text)


def _number(number: int) -> str:
    return "*" if number == ANY else str(number)
