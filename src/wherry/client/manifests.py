"""Manifest lists in the making, in the files where Docker keeps them.

manifests/<list>/<manifest>    JSON: {"Ref", "Descriptor", "Raw", "SchemaV2Manifest" or "OCIManifest"}

Names are full references with "/" as "_" and ":" as "-".
"""

from __future__ import annotations

import os
import shutil

from wherry.client.errors import ConfigError
from wherry.client.files import write
from wherry.jsontext import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.client.config import ClientConfig


def exists(config: ClientConfig, of: str) -> bool:
    """Whether the list called `of`, a full reference, is being made."""
    return os.path.isdir(_path(config, of))


def get(config: ClientConfig, of: str, manifest: str) -> dict[str, Any] | None:
    """One manifest of a list; None when it has none of that name. Raises ConfigError when it can't be read."""
    return _read(_path(config, of, manifest))


def entries(config: ClientConfig, of: str) -> list[dict[str, Any]] | None:
    """All manifests of a list; None when there is no such list. Raises ConfigError when one can't be read."""
    try:
        names = sorted(os.listdir(_path(config, of)))
    except FileNotFoundError:
        return None
    found = [_read(os.path.join(_path(config, of), name)) for name in names]
    return [each for each in found if each]


def save(config: ClientConfig, of: str, manifest: dict[str, Any]) -> None:
    """Put a manifest on a list, which comes to be with its first one."""
    path = _path(config, of, manifest["Ref"])
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    write(path, dumps(manifest).encode(), 0o644)


def remove(config: ClientConfig, of: str) -> None:
    """Forget a list; nothing happens when there is none."""
    shutil.rmtree(_path(config, of), ignore_errors=True)


def _path(config: ClientConfig, *references: str) -> str:
    files = [reference.replace(":", "-").replace("/", "_") for reference in references]
    return os.path.join(config.directory, "manifests", *files)


def _read(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            found = loads(file.read())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if not (
        isinstance(found, dict) and isinstance(found.get("Ref"), str) and isinstance(found.get("Descriptor"), dict)
    ):
        raise ConfigError(f"{path}: this is no manifest of a list")
    return found
