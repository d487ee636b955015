"""--mount, and the short syntax of --volume."""

from __future__ import annotations

import os

from wherry.cli.errors import StatusError, ValueRefused
from wherry.cli.options.csvline import split_csv
from wherry.cli.values import is_bool, parse_number, size_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FLAGS = ("readonly", "ro", "volume-nocopy", "bind-nonrecursive")
_GROUPS = (("volume", "VolumeOptions"), ("bind", "BindOptions"), ("tmpfs", "TmpfsOptions"), ("image", "ImageOptions"))
_RECURSIVE = {"disabled": "NonRecursive", "writable": "ReadOnlyNonRecursive", "readonly": "ReadOnlyForceRecursive"}


def parse_mount(text: str) -> dict[str, Any]:
    """One --mount as the API's Mount."""
    mount: dict[str, Any] = {"Type": "volume"}
    for field in split_csv(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        if not equals:
            if key not in _FLAGS:
                raise ValueRefused(f"invalid field '{field}' must be a key=value pair")
            value = "true"
        _apply(mount, key, value, field)
    _check(mount)
    return mount


def _apply(mount: dict[str, Any], key: str, value: str, field: str) -> None:
    if key == "type":
        mount["Type"] = value.lower()
    elif key in ("source", "src"):
        mount["Source"] = absolute(value)
    elif key in ("target", "dst", "destination"):
        mount["Target"] = value
    elif key in ("readonly", "ro"):
        _set_true(mount, "ReadOnly", key, value)
    elif key == "consistency":
        mount["Consistency"] = value.lower()
    elif key.startswith("bind-"):
        _apply_bind(mount.setdefault("BindOptions", {}), key, value, field)
    elif key.startswith("volume-"):
        _apply_volume(mount.setdefault("VolumeOptions", {"DriverConfig": {}}), key, value, field)
    elif key.startswith("tmpfs-"):
        _apply_tmpfs(mount.setdefault("TmpfsOptions", {}), key, value, field)
    elif key == "image-subpath":
        mount.setdefault("ImageOptions", {})["Subpath"] = value
    else:
        raise _unexpected(key, field)


def _unexpected(key: str, field: str) -> ValueRefused:
    return ValueRefused(f"unexpected key '{key}' in '{field}'")


def _set_true(target: dict[str, Any], name: str, key: str, value: str) -> None:
    truth = is_bool(value)
    if truth is None:
        raise ValueRefused(f"invalid value for {key}: {value}")
    target.pop(name, None)
    if truth:
        target[name] = True


def _apply_bind(options: dict[str, Any], key: str, value: str, field: str) -> None:
    if key == "bind-propagation":
        options["Propagation"] = value.lower()
    elif key == "bind-nonrecursive":
        _set_true(options, "NonRecursive", key, value)
    elif key == "bind-recursive":
        if value in _RECURSIVE:
            options[_RECURSIVE[value]] = True
        elif value != "enabled":
            raise ValueRefused(
                f'invalid value for {key}: {value} (must be "enabled", "disabled", "writable", or "readonly")'
            )
    else:
        raise _unexpected(key, field)


def _apply_volume(options: dict[str, Any], key: str, value: str, field: str) -> None:
    name, _, content = value.partition("=")
    if key == "volume-nocopy":
        _set_true(options, "NoCopy", key, value)
    elif key == "volume-subpath":
        options["Subpath"] = value
    elif key == "volume-label":
        options.setdefault("Labels", {})[name] = content
    elif key == "volume-driver":
        options["DriverConfig"]["Name"] = value
    elif key == "volume-opt":
        options["DriverConfig"].setdefault("Options", {})[name] = content
    else:
        raise _unexpected(key, field)


def _apply_tmpfs(options: dict[str, Any], key: str, value: str, field: str) -> None:
    if key == "tmpfs-size":
        size = size_of(value)
        if size is None:
            raise ValueRefused(f"invalid value for {key}: {value}")
        options["SizeBytes"] = size
    elif key == "tmpfs-mode":
        try:
            options["Mode"] = parse_number(value, bits=32, signed=False, base=8)
        except ValueRefused:
            raise ValueRefused(f"invalid value for {key}: {value}") from None
    else:
        raise _unexpected(key, field)


def _check(mount: dict[str, Any]) -> None:
    if not mount["Type"]:
        raise ValueRefused("type is required")
    if not mount.get("Target"):
        raise ValueRefused("target is required")
    for prefix, group in _GROUPS:
        if group in mount and mount["Type"] != prefix:
            raise ValueRefused(f"cannot mix '{prefix}-*' options with mount type '{mount['Type']}'")
    bind = mount.get("BindOptions", {})
    for word, name in (("writable", "ReadOnlyNonRecursive"), ("readonly", "ReadOnlyForceRecursive")):
        if bind.get(name) and not mount.get("ReadOnly"):
            raise ValueRefused(f"option 'bind-recursive={word}' requires 'readonly' to be specified in conjunction")
    if bind.get("ReadOnlyForceRecursive") and bind.get("Propagation") != "rprivate":
        raise ValueRefused(
            "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction"
        )


def absolute(path: str) -> str:
    """A path beginning with "." seen from the client's working directory; others as they are."""
    return os.path.abspath(path) if path.startswith(".") else path


def split_volumes(specs: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The values of --volume as (binds, anonymous volumes {path: {}}); raises StatusError on a bad one."""
    binds: list[str] = []
    volumes: dict[str, Any] = {}
    for spec in dict.fromkeys(specs):
        if not _has_source(spec):
            volumes[spec] = {}
            continue
        source, _, rest = spec.partition(":")
        binds.append(f"{absolute(source)}:{rest}")
    return binds, volumes


def _has_source(spec: str) -> bool:
    """Whether the spec names a source; checks its sections on the way (a single letter may be a drive)."""
    if not spec:
        raise StatusError("invalid empty volume spec", 125)
    if len(spec) <= 2:
        return False
    sections: list[str] = []
    section = ""
    for at, character in enumerate(spec + "\0"):
        if character == ":" and len(section) == 1 and section.isalpha():
            section += character
        elif character in (":", "\0"):
            if not section:
                raise StatusError(f"invalid spec: {spec}: empty section between colons", 125)
            if len(sections) == 2 and at < len(spec):
                raise StatusError(f"invalid spec: {spec}: too many colons", 125)
            sections.append(section)
            section = ""
        else:
            section += character
    return len(sections) > 1
