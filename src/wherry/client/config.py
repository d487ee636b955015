"""The client's configuration: DOCKER_CONFIG/config.json and the contexts stored beside it (Docker's own layout).

contexts/meta/<sha256 of the name>/meta.json   {"Name", "Metadata": {"Description"}, "Endpoints": {"docker": {...}}}
contexts/tls/<sha256 of the name>/docker/      ca.pem, cert.pem, key.pem
"""

from __future__ import annotations

import os

from wherry.client.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class ClientConfig:
    """`directory` is where the files are; `settings` the decoded config.json ({} when there is none)."""

    def __init__(self, directory: str | None = None) -> None:
        self.directory = directory or os.environ.get("DOCKER_CONFIG") or os.path.join(_home(), ".docker")
        self._settings: dict[str, Any] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        if self._settings is None:
            self._settings = self._read_settings()
        return self._settings

    def _read_settings(self) -> dict[str, Any]:
        """{} with a warning, as Docker does, when the file can't be read: root's, with HOME kept by sudo."""
        try:
            return _read_json(os.path.join(self.directory, "config.json")) or {}
        except ConfigError as error:
            os.write(2, f"WARNING: Error loading config file: {error}\n".encode("utf-8", "surrogateescape"))
            return {}

    def text(self, key: str) -> str:
        """A setting that is a string, such as psFormat or detachKeys; "" when unset."""
        value = self.settings.get(key)
        return value if isinstance(value, str) else ""

    def context(self, name: str) -> dict[str, Any]:
        """The stored metadata of one context; raises ConfigError with Docker's words when there is none."""
        found = _read_json(os.path.join(self.directory, "contexts", "meta", context_id(name), "meta.json"))
        if found is None:
            raise ConfigError(
                f'context "{name}": context not found: open '
                f"{os.path.join(self.directory, 'contexts', 'meta', context_id(name), 'meta.json')}: "
                "no such file or directory"
            )
        return found

    def contexts(self) -> list[dict[str, Any]]:
        """The metadata of every stored context, by name."""
        top = os.path.join(self.directory, "contexts", "meta")
        try:
            names = os.listdir(top)
        except FileNotFoundError:
            return []
        found = [_read_json(os.path.join(top, name, "meta.json")) for name in names]
        return sorted((each for each in found if each), key=lambda each: str(each.get("Name", "")))

    def context_tls(self, name: str) -> str:
        """The directory with a context's certificates; "" when it has none."""
        path = os.path.join(self.directory, "contexts", "tls", context_id(name), "docker")
        return path if os.path.isdir(path) else ""


def context_id(name: str) -> str:
    """The directory name of a context: the SHA-256 of its name, in hex."""
    from hashlib import sha256

    return sha256(name.encode()).hexdigest()


def _home() -> str:
    return os.environ.get("HOME") or os.path.expanduser("~")


def _read_json(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    from wherry.client.jsontext import loads

    try:
        value = loads(data)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    return value if isinstance(value, dict) else None
