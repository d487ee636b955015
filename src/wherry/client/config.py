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

    @property
    def path(self) -> str:
        """The file of the settings."""
        return os.path.join(self.directory, "config.json")

    def _read_settings(self) -> dict[str, Any]:
        """{} with a warning, as Docker does, when the file can't be read: root's, with HOME kept by sudo."""
        try:
            return _read_json(self.path) or {}
        except ConfigError as error:
            text = str(error)
            if text.startswith("parsing "):
                text = text.removeprefix(f"parsing {self.path}: ").replace("end of JSON input", "EOF")
                text = f"Error parsing config file ({self.path}): {text}"
            else:
                text = f"Error loading config file: {text}"
            os.write(2, f"WARNING: {text}\n".encode("utf-8", "surrogateescape"))
            return {}

    def read_again(self) -> dict[str, Any]:
        """The settings as they are in the file now; raises ConfigError rather than to leave something out."""
        return _read_json(self.path) or {}

    def save(self, settings: dict[str, Any], *, secret: bool = False) -> None:
        """Write config.json, through a link if it is one, with the mode it has (0600 when new).

        With `secret` there is something in it that no other user may read. Raises ConfigError.
        """
        from wherry.client.files import write
        from wherry.jsontext import dumps

        path = os.path.realpath(self.path)
        directory = os.path.dirname(path)
        try:
            os.makedirs(directory, 0o700, exist_ok=True)
        except OSError as error:
            reason = "not a directory" if isinstance(error, FileExistsError) else (error.strerror or "").lower()
            raise ConfigError(f"mkdir {directory}: {reason}") from None
        try:
            mode = os.stat(path).st_mode & 0o777 if os.path.exists(path) else 0o600
            write(path, dumps(settings, indent="\t").encode(), mode & 0o700 if secret else mode)
        except OSError as error:
            raise ConfigError(f"open {path}: {(error.strerror or '').lower()}") from None
        self._settings = settings

    def text(self, key: str) -> str:
        """A setting that is a string, such as psFormat or detachKeys; "" when unset."""
        value = self.settings.get(key)
        return value if isinstance(value, str) else ""

    def context(self, name: str) -> dict[str, Any]:
        """The stored metadata of one context; raises ConfigError with Docker's words when there is none."""
        path = os.path.join(self.directory, "contexts", "meta", context_id(name), "meta.json")
        try:
            found = _read_json(path)
        except ConfigError as error:
            raise ConfigError(f'context "{name}": {error}') from None
        if found is None:
            raise ConfigError(f'context "{name}": context not found: open {path}: no such file or directory')
        return found

    def contexts(self) -> list[dict[str, Any]]:
        """The metadata of every stored context, in no order; raises ConfigError when one can't be read."""
        top = os.path.join(self.directory, "contexts", "meta")
        try:
            names = os.listdir(top)
        except FileNotFoundError:
            return []
        try:
            found = [_read_json(os.path.join(top, name, "meta.json")) for name in names]
        except ConfigError as error:
            raise ConfigError(f"failed to read metadata: {error}") from None
        return [each for each in found if each]

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
        raise ConfigError(f"open {path}: {(error.strerror or '').lower()}") from error
    if not data.strip():
        return {}
    from wherry.jsontext import loads

    try:
        value = loads(data)
    except ValueError as error:
        raise ConfigError(f"parsing {path}: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"parsing {path}: not an object")
    return value
