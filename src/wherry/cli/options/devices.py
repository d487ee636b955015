"""--device and --gpus."""

from __future__ import annotations

import posixpath

from wherry.cli.errors import StatusError, ValueRefused
from wherry.cli.options.csvline import split_csv
from wherry.cli.values import parse_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def parse_gpus(text: str) -> dict[str, Any]:
    """One --gpus as the API's DeviceRequest."""
    request: dict[str, Any] = {"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}
    seen = set()
    for field in split_csv(text):
        key, equals, value = field.partition("=")
        if key in seen:
            raise ValueRefused(f"gpu request key '{key}' can be specified only once")
        seen.add(key)
        if not equals:
            seen.add("count")
            request["Count"] = _count(key)
        elif key == "driver":
            request["Driver"] = value
        elif key == "count":
            request["Count"] = _count(value)
        elif key == "device":
            request["DeviceIDs"] = value.split(",")
        elif key == "capabilities":
            request["Capabilities"] = [[*value.split(","), "gpu"]]
        elif key == "options":
            request["Options"] = dict(pair.partition("=")[::2] for pair in split_csv(value))
        else:
            raise ValueRefused(f"unexpected key '{key}' in '{field}'")
    if "count" not in seen and request["DeviceIDs"] is None:
        request["Count"] = 1
    return request


def _count(text: str) -> int:
    if text == "all":
        return -1
    try:
        return parse_number(text, base=10)
    except ValueRefused as refusal:
        reason = str(refusal).rpartition(": ")[2]
        raise ValueRefused(f'invalid count ({text}): value must be either "all" or an integer: {reason}') from None


def split_devices(specs: list[str]) -> tuple[list[dict[str, str]], list[str]]:
    """The values of --device as (device mappings, names of CDI devices); raises StatusError."""
    mappings: list[dict[str, str]] = []
    cdi = []
    for spec in specs:
        if _is_cdi(spec):
            cdi.append(spec)
        else:
            mappings.extend(_mappings(_validate(spec)))
    return mappings, cdi


def _is_cdi(spec: str) -> bool:
    """vendor.com/class=name"""
    kind, equals, name = spec.partition("=")
    vendor, slash, cls = kind.partition("/")
    return bool(equals and slash and name and vendor[:1].isalpha() and cls[:1].isalpha() and "/" not in cls)


def _refuse(text: str) -> StatusError:
    return StatusError(text, 125)


def _is_mode(text: str) -> bool:
    return bool(text) and set(text) <= set("rwm") and len(set(text)) == len(text)


def _validate(spec: str) -> str:
    parts = spec.split(":", 2)
    if spec.count(":") > 2 or not parts[0]:
        raise _refuse(f"bad format for path: {spec}")
    inside = parts[0]
    if len(parts) == 1:
        spec = posixpath.normpath(inside)
    elif len(parts) == 2 and _is_mode(parts[1]):
        spec = f"{posixpath.normpath(inside)}:{parts[1]}"
    elif len(parts) == 2:
        inside = parts[1]
        spec = f"{parts[0]}:{posixpath.normpath(inside) if inside else '.'}"
    else:
        inside = parts[1]
        if not _is_mode(parts[2]):
            raise _refuse(f"bad mode specified: {parts[2]}")
    if not inside.startswith("/"):
        raise _refuse(f"{inside} is not an absolute path")
    return spec


def _mappings(spec: str) -> list[dict[str, str]]:
    parts = spec.split(":")
    source, inside, permissions = parts[0], "", "rwm"
    if len(parts) == 3:
        permissions = parts[2]
    if len(parts) > 1:
        if _is_mode(parts[1]):
            permissions = parts[1]
        else:
            inside = parts[1]
    paths = [(source, inside or source)]
    if source.endswith("*"):
        if inside:
            raise _refuse(f"device with * suffix can't have dst: {spec}")
        from glob import glob

        paths = [(path, path) for path in sorted(glob(source))]
    return [
        {"PathOnHost": outside, "PathInContainer": path, "CgroupPermissions": permissions} for outside, path in paths
    ]
