"""Images on the wire: definitions ImageSummary, ImageInspect, HistoryResponseItem."""

import os
from typing import Any

from wherry.api.times import ZERO, rfc3339
from wherry.api.versions import Version
from wherry.engine.model import ContainerConfig, to_wire
from wherry.images.records import HistoryItem, Image

_NO_CONFIG: dict[str, Any] = {
    "Cmd": None,
    "Entrypoint": None,
    "Env": None,
    "Labels": None,
    "OnBuild": None,
    "User": "",
    "Volumes": None,
    "WorkingDir": "",
}
# Fields of a container that images carried along until API 1.50, whatever they meant there.
_CONTAINER_FIELDS: dict[str, Any] = {
    "AttachStderr": False,
    "AttachStdin": False,
    "AttachStdout": False,
    "Domainname": "",
    "Hostname": "",
    "Image": "",
    "OpenStdin": False,
    "StdinOnce": False,
    "Tty": False,
}
_IMAGE_FIELDS = (*_NO_CONFIG, "ArgsEscaped", "ExposedPorts", "Healthcheck", "Shell", "StopSignal")


def summary(image: Image, version: Version) -> dict[str, Any]:
    """One entry of GET /images/json."""
    tags: list[str] | None = image.repo_tags
    digests: list[str] | None = image.repo_digests
    if version < (1, 43):
        no_names = (["<none>:<none>"], ["<none>@<none>"])
        tags, digests = (tags or None, digests or None) if tags or digests else no_names
    entry = {
        "Containers": image.containers if version >= (1, 51) else -1,
        "Created": image.created_ns // 1_000_000_000,
        "Id": image.id,
        "Labels": image.config.get("Labels"),
        "ParentId": image.parent,
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": image.shared_size,
        "Size": image.size,
    }
    if version < (1, 44):
        entry["VirtualSize"] = image.size
    return entry


def usage(image: Image, version: Version) -> dict[str, Any]:
    """One image of GET /system/df."""
    shown = summary(image, version) | {"Containers": image.containers}
    return shown | {"RepoDigests": image.repo_digests or None, "RepoTags": image.repo_tags or None}


def inspect(image: Image, layer_dirs: list[str], version: Version, driver: str = "overlay2") -> dict[str, Any]:
    """GET /images/{name}/json. `layer_dirs` are the unpacked layers, top first; `driver` is that of new containers."""
    shown: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Parent": image.parent,
        "Comment": image.comment,
        "Created": rfc3339(image.created_ns) if image.created else ZERO,
        "DockerVersion": image.docker_version,
        "Author": image.author,
        "Architecture": image.architecture,
        "Os": image.os,
        "Size": image.size,
    }
    if image.variant:
        shown["Variant"] = image.variant
    if image.os_version:
        shown["OsVersion"] = image.os_version
    if version < (1, 45):
        shown["ContainerConfig"] = to_wire(ContainerConfig())
    if version < (1, 44):
        shown["VirtualSize"] = image.size
    return shown | {
        "GraphDriver": {"Data": None if driver == "vfs" else _graph_driver(layer_dirs), "Name": driver},
        "RootFS": {"Type": "layers", "Layers": image.diff_ids},
        "Metadata": {"LastTagTime": rfc3339(image.tagged_ns)},
        "Config": _config(image.config, version),
    }


def _graph_driver(layer_dirs: list[str]) -> dict[str, str]:
    if not layer_dirs:
        return {}
    top, *lower = layer_dirs
    data = {"LowerDir": ":".join(lower)} if lower else {}
    parent = os.path.dirname(top)
    return data | {
        "MergedDir": os.path.join(parent, "merged"),
        "UpperDir": top,
        "WorkDir": os.path.join(parent, "work"),
    }


def _config(config: dict[str, Any], version: Version) -> dict[str, Any]:
    """The image's configuration: what an image can say, and before API 1.50 a container's fields beside it."""
    shown = _NO_CONFIG | {name: config[name] for name in _IMAGE_FIELDS if config.get(name)}
    if version < (1, 50):
        shown |= _CONTAINER_FIELDS
    return dict(sorted(shown.items()))


def history(item: HistoryItem) -> dict[str, Any]:
    """One layer of GET /images/{name}/history."""
    return {
        "Comment": item.comment,
        "Created": item.created,
        "CreatedBy": item.created_by,
        "Id": item.id,
        "Size": item.size,
        "Tags": item.tags,
    }
