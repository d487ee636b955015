"""Docker-archives without `manifest.json` (before Docker 1.10): one directory per layer, each with `json` (what the
layer's image says, with the id of its parent), `VERSION` and `layer.tar`, and `repositories` with the names.

Their configs are turned into today's: the top layer's `json` without what only the old format had, plus the layers
and the history collected on the way down. Source: Docker's `image/spec/docker-v1.md`.
"""

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from wherry.errors import InvalidArgument
from wherry.images import oci
from wherry.images.references import Reference

_ID = re.compile(r"[a-f0-9]{64}")
_DEPTH_MAX = 1000
_OLD_FIELDS = ("id", "parent", "Size", "parent_id", "layer_id", "throwaway")


class LegacyImage(NamedTuple):
    """An old image: the top layer's description, the history and the layers' member names, both lowest first."""

    top: dict[str, Any]
    history: list[dict[str, Any]]
    layers: list[str]
    names: list[Reference]


def images(document: Callable[[str], bytes | None], name: Callable[[str, str], Reference]) -> list[LegacyImage]:
    """The images that `repositories` names. `document` gives a member's content, `name(repository, tag)` a reference.
    Raises `InvalidArgument`."""
    data = document("repositories") or b"{}"
    repositories = oci.decode(data, dict[str, dict[str, str]], "repositories", limit=oci.CONFIG_MAX)
    names: dict[str, list[Reference]] = {}
    for repository, tags in repositories.items():
        for tag, image_id in tags.items():
            names.setdefault(image_id, []).append(name(repository, tag))
    return [_image(document, image_id, names[image_id]) for image_id in names]


def _image(document: Callable[[str], bytes | None], image_id: str, names: list[Reference]) -> LegacyImage:
    chain: list[tuple[str, dict[str, Any]]] = []
    at = image_id
    while at:
        if not _ID.fullmatch(at):
            raise InvalidArgument(f"invalid archive: image id {at!r}")
        data = document(f"{at}/json")
        if data is None or len(chain) >= _DEPTH_MAX:
            raise InvalidArgument(f"invalid archive: {at}/json is missing or the chain of parents does not end")
        description = oci.decode(data, dict[str, Any], f"{at}/json", limit=oci.CONFIG_MAX)
        chain.append((at, description))
        at = str(description.get("parent") or "")
    chain.reverse()
    history = [_history(description) for _, description in chain]
    return LegacyImage(chain[-1][1], history, [f"{at}/layer.tar" for at, _ in chain], names)


def _history(description: dict[str, Any]) -> dict[str, Any]:
    made_by = description.get("container_config")
    command = made_by.get("Cmd") if isinstance(made_by, dict) else None
    items = {
        "author": description.get("author"),
        "created": description.get("created"),
        "created_by": " ".join(map(str, command)) if isinstance(command, list) else None,
        "comment": description.get("comment"),
    }
    return {key: value for key, value in items.items() if value}


def config(image: LegacyImage, diff_ids: list[str]) -> bytes:
    """Today's config of an old image."""
    document = {key: value for key, value in image.top.items() if key not in _OLD_FIELDS}
    document["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
    document["history"] = image.history
    data = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    oci.decode(data, oci.ImageConfig, "image config", limit=oci.CONFIG_MAX)
    return data
