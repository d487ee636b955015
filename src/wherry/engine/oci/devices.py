"""Device nodes and device rules."""

import os
import re
from collections.abc import Iterator
from typing import Any

from wherry.engine import defaults
from wherry.engine.model import DeviceMapping, HostConfig
from wherry.engine.oci.nodes import node_of
from wherry.errors import InvalidArgument

_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")
# Below /dev, but not the host's to give: the container has its own.
_SKIPPED = frozenset(("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"))
_LARGEST = 2**63 - 1

Nodes = list[dict[str, Any]]
Rules = list[dict[str, Any]]


def devices_of(host: HostConfig) -> tuple[Nodes, Rules]:
    """`linux.devices` and `linux.resources.devices`. Raises InvalidArgument."""
    nodes: Nodes = []
    rules = defaults.device_rules()
    if host.Privileged:
        nodes += host_devices()
        for mapping in host.Devices or ():
            # The node is there already under its own name.
            if mapping.PathOnHost != mapping.PathInContainer:
                nodes += _mapped(mapping)[0]
        rules.append({"allow": True, "access": "rwm"})
        return nodes, rules
    for mapping in host.Devices or ():
        found, allowed = _mapped(mapping)
        nodes += found
        rules += allowed
    rules += [_parse_rule(rule) for rule in host.DeviceCgroupRules or ()]
    return nodes, rules


def host_devices(root: str = "/dev") -> Nodes:
    """All device nodes of the host, for privileged containers."""
    found: Nodes = []
    for entry in sorted(os.scandir(root), key=lambda each: each.name):
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in _SKIPPED:
                found += host_devices(entry.path)
        elif entry.name != "console" and (node := node_of(entry.path)) is not None:
            found.append(node)
    return found


def _mapped(mapping: DeviceMapping) -> tuple[Nodes, Rules]:
    """A device, or all below a directory, under the path in the container."""
    source = mapping.PathOnHost
    resolved = os.path.realpath(source) if os.path.islink(source) else source
    inside = mapping.PathInContainer or source
    access = mapping.CgroupPermissions or "rwm"
    try:
        node = node_of(resolved)
    except OSError as error:
        raise InvalidArgument(_gathering(source, (error.strerror or "").lower())) from None
    if node is not None:
        nodes = [node | {"path": inside}]
    else:
        nodes = [each | {"path": inside + each["path"][len(resolved) :]} for each in _below(resolved)]
    if not nodes:
        raise InvalidArgument(_gathering(source, "not a device node"))
    rules = [
        {"allow": True, "type": each["type"], "major": each["major"], "minor": each["minor"], "access": access}
        for each in nodes
    ]
    return nodes, rules


def _gathering(path: str, reason: str) -> str:
    return f'error gathering device information while adding custom device "{path}": {reason}'


def _below(directory: str) -> Iterator[dict[str, Any]]:
    for parent, directories, files in os.walk(directory):
        directories.sort()
        for name in sorted(files):
            try:
                node = node_of(os.path.join(parent, name))
            except OSError:
                continue
            if node is not None:
                yield node


def _parse_rule(text: str) -> dict[str, Any]:
    """`c 42:* rmw`, as --device-cgroup-rule has it."""
    match = _RULE.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"invalid device cgroup rule format: '{text}'")
    kind, major, minor, access = match.groups()
    numbers = {"major": -1 if major == "*" else int(major), "minor": -1 if minor == "*" else int(minor)}
    for name, value in numbers.items():
        if value > _LARGEST:
            raise InvalidArgument(f"invalid {name} value in device cgroup rule format: '{text}'")
    return {"allow": True, "type": kind, **numbers, "access": access}
