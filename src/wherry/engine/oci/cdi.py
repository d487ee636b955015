"""Devices described by files of their vendors: the Container Device Interface (CNCF TAG Runtime, CDI 1.0).

A name `vendor.com/class=device` is looked up in the `*.json` and `*.yaml` files of the specification directories. A
later directory goes before an earlier one; two files of one directory that describe the same device describe none.
"""

import json
import logging
import os
from collections.abc import Iterable, Sequence
from typing import Any

from wherry.engine.model import DeviceRequest
from wherry.engine.oci.nodes import node_of
from wherry.errors import InvalidArgument

log = logging.getLogger("wherry.engine")

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
_PREFIX = "CDI device injection failed: "
_HOOKS = frozenset(
    ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"),
)

Edits = dict[str, Any]
Spec = dict[str, Any]


def requested(requests: Iterable[DeviceRequest]) -> list[str]:
    """The names of the CDI devices in HostConfig.DeviceRequests. Raises InvalidArgument, in Docker's words, for a
    request that is another driver's: there is none here."""
    names: list[str] = []
    for request in requests:
        if request.Driver != "cdi":
            groups = " ".join(f"[{' '.join(group)}]" for group in request.Capabilities or ())
            raise InvalidArgument(f'could not select device driver "{request.Driver}" with capabilities: [{groups}]')
        if request.Count:
            raise InvalidArgument("unexpected count in CDI device request")
        if request.Options:
            raise InvalidArgument("unexpected options in CDI device request")
        names += request.DeviceIDs or []
    return names


def inject(config: dict[str, Any], names: Sequence[str], directories: Sequence[str]) -> None:
    """Edit the OCI configuration as the specifications of the devices `names` want it. Raises InvalidArgument for
    devices that nobody describes, and for descriptions that make no sense."""
    if not names:
        return
    known = _devices(directories)
    missing = [name for name in names if known.get(name) is None]
    if missing:
        raise InvalidArgument(f"{_PREFIX}unresolvable CDI devices {', '.join(missing)}")
    begun: list[int] = []
    for name in names:
        spec, device = known[name] or ({}, {})
        if id(spec) not in begun:
            begun.append(id(spec))
            _edit(config, spec.get("containerEdits") or {})
        _edit(config, device.get("containerEdits") or {})


def devices(directories: Sequence[str]) -> list[str]:
    """The names of all devices that the specifications describe, sorted."""
    return sorted(name for name, found in _devices(directories).items() if found)


def _devices(directories: Sequence[str]) -> dict[str, tuple[Spec, Edits] | None]:
    """Every device with its specification; None where two of equal rank describe it."""
    found: dict[str, tuple[Spec, Edits] | None] = {}
    for directory in directories:
        here: dict[str, tuple[Spec, Edits] | None] = {}
        for spec in _specs(directory):
            for device in spec["devices"]:
                name = f"{spec['kind']}={device['name']}"
                here[name] = None if name in here else (spec, device)
        found |= here
    return found


def _specs(directory: str) -> list[Spec]:
    """The specifications in a directory, which need not exist; a file that is none is told in the log."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    specs = []
    for path in (f"{directory}/{name}" for name in names if name.endswith((".json", ".yaml"))):
        try:
            specs.append(_checked(_read(path)))
        except (OSError, ValueError) as error:
            log.warning("CDI specification %s: %s", path, error)
    return specs


def _read(path: str) -> Any:
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if path.endswith(".json"):
        return json.loads(text)
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _checked(spec: Any) -> Spec:
    """Raises ValueError for what has not got the shape of a specification."""
    if not isinstance(spec, dict) or not isinstance(spec.get("kind"), str) or spec["kind"].count("/") != 1:
        raise ValueError("it has no kind vendor/class")
    listed = spec.get("devices")
    if not isinstance(listed, list) or not listed:
        raise ValueError("it has no devices")
    for device in listed:
        if not isinstance(device, dict) or not isinstance(device.get("name"), str) or not device["name"]:
            raise ValueError("a device has no name")
    for edits in (spec.get("containerEdits"), *(device.get("containerEdits") for device in listed)):
        _check_edits(edits or {})
    return spec


_EDITS = {"env": str, "deviceNodes": dict, "mounts": dict, "hooks": dict, "additionalGids": int}


def _check_edits(edits: Any) -> None:
    if not isinstance(edits, dict):
        raise ValueError("containerEdits is no object")
    for name, kind in _EDITS.items():
        listed = edits.get(name) or []
        if not isinstance(listed, list) or not all(isinstance(each, kind) for each in listed):
            raise ValueError(f"containerEdits.{name} is no list of {kind.__name__}")
    # What is not known would be left undone without a word.
    unknown = sorted(name for name, value in edits.items() if name not in _EDITS and value)
    if unknown:
        raise ValueError(f"containerEdits.{unknown[0]} is not supported")


def _edit(config: dict[str, Any], edits: Edits) -> None:
    _add_environment(config["process"], edits.get("env") or [])
    for node in edits.get("deviceNodes") or ():
        _add_node(config["linux"], node)
    for mount in edits.get("mounts") or ():
        _add_mount(config["mounts"], mount)
    for hook in edits.get("hooks") or ():
        _add_hook(config.setdefault("hooks", {}), hook)
    if groups := edits.get("additionalGids"):
        config["process"]["user"].setdefault("groupAdd", []).extend(str(group) for group in groups)


def _add_environment(process: dict[str, Any], entries: list[str]) -> None:
    names = {entry.partition("=")[0] for entry in entries}
    process["env"] = [entry for entry in process["env"] if entry.partition("=")[0] not in names] + entries


def _add_node(linux: dict[str, Any], wanted: dict[str, Any]) -> None:
    """The description goes before what the host's node says."""
    inside = _text(wanted, "path")
    node = dict(_host_node(wanted.get("hostPath") or inside, wanted)) | {"path": inside}
    node |= {key: wanted[key] for key in ("type", "major", "minor", "fileMode", "uid", "gid") if wanted.get(key)}
    linux["devices"] = [each for each in linux.get("devices") or () if each["path"] != inside] + [node]
    if node["type"] in ("b", "c"):
        rule = {key: node[key] for key in ("type", "major", "minor")}
        access = wanted.get("permissions") or "rwm"
        linux["resources"]["devices"].append({"allow": True, "access": access, **rule})


def _host_node(path: str, wanted: dict[str, Any]) -> dict[str, Any]:
    if wanted.get("type") and (wanted["type"] == "p" or wanted.get("major")):
        return {"major": 0, "minor": 0, "fileMode": 0o666, "uid": 0, "gid": 0}
    try:
        node = node_of(path)
    except OSError as error:
        raise InvalidArgument(f"{_PREFIX}failed to stat CDI host device {path!r}: {error.strerror}") from None
    if node is None:
        raise InvalidArgument(f"{_PREFIX}CDI host device {path!r} is not a device node")
    return node


def _add_mount(mounts: list[dict[str, Any]], wanted: dict[str, Any]) -> None:
    destination, source = _text(wanted, "containerPath"), _text(wanted, "hostPath")
    options = list(wanted.get("options") or ["ro", "nosuid", "nodev", "bind"])
    mounts[:] = [mount for mount in mounts if mount["destination"] != destination]
    mounts.append(
        {"destination": destination, "source": source, "type": wanted.get("type") or "bind", "options": options}
    )
    mounts.sort(key=lambda mount: os.path.normpath(mount["destination"]).count("/"))


def _add_hook(hooks: dict[str, Any], wanted: dict[str, Any]) -> None:
    name = _text(wanted, "hookName")
    if name not in _HOOKS:
        raise InvalidArgument(f'{_PREFIX}invalid hook name "{name}"')
    hook = {key: wanted[key] for key in ("args", "env", "timeout") if wanted.get(key)}
    hooks.setdefault(name, []).append({"path": _text(wanted, "path"), **hook})


def _text(wanted: dict[str, Any], key: str) -> str:
    value = wanted.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidArgument(f"{_PREFIX}{key} is missing in {json.dumps(wanted)}")
    return value
