"""Volumes on the wire: definition Volume."""

from typing import Any

from wherry.api.times import rfc3339_seconds
from wherry.engine.volumes import Volume


def inspect(volume: Volume) -> dict[str, Any]:
    """GET /volumes/{name}; empty maps are shown as null."""
    return {
        "CreatedAt": rfc3339_seconds(volume.created),
        "Driver": volume.driver,
        "Labels": volume.labels or None,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": volume.options or None,
        "Scope": "local",
    }
