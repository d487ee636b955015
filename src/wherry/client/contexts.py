"""Changing the stored contexts and the client's settings: the files are Docker's own, so that either CLI reads them.

client/config.py draws the tree. An archive of a context holds meta.json and tls/<endpoint>/<file>.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile

from wherry.client.config import context_id
from wherry.client.errors import ConfigError
from wherry.client.files import write
from wherry.jsontext import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from wherry.client.config import ClientConfig

    # {endpoint: {file name: content}}
    Material = dict[str, dict[str, bytes]]

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_LARGEST = 10 << 20  # of an archive: what is larger holds no context


def check_name(name: str) -> None:
    """Raises ConfigError for a name that no stored context can have."""
    if not name:
        raise ConfigError("context name cannot be empty")
    if name == "default":
        raise ConfigError('"default" is a reserved context name')
    if len(name) < 2 or name[0] not in _LETTERS or not set(name) <= _LETTERS | set("_.+-"):
        raise ConfigError(
            f'context name "{name}" is invalid, names are validated against regexp "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"'
        )


def metadata_path(config: ClientConfig, name: str) -> str:
    """The directory of a context's metadata."""
    return os.path.join(config.directory, "contexts", "meta", context_id(name))


def tls_path(config: ClientConfig, name: str) -> str:
    """The directory of a context's certificates and keys, by endpoint."""
    return os.path.join(config.directory, "contexts", "tls", context_id(name))


def typed(stored: dict[str, Any]) -> dict[str, Any]:
    """A context's metadata in the order and with the defaults in which Docker writes them."""
    metadata, endpoints = stored.get("Metadata") or {}, stored.get("Endpoints") or {}
    described = {"Description": metadata["Description"]} if metadata.get("Description") else {}
    others = {key: metadata[key] for key in sorted(metadata) if key != "Description"}
    found = {key: endpoints[key] for key in sorted(endpoints)}
    if (docker := endpoints.get("docker")) is not None:
        host = {"Host": docker["Host"]} if docker.get("Host") else {}
        found["docker"] = {**host, "SkipTLSVerify": bool(docker.get("SkipTLSVerify"))}
    return {"Name": stored.get("Name", ""), "Metadata": {**described, **others}, "Endpoints": found}


def save(config: ClientConfig, stored: dict[str, Any]) -> None:
    """Write a context's metadata, whole or not at all."""
    directory = metadata_path(config, stored["Name"])
    os.makedirs(directory, 0o755, exist_ok=True)
    write(os.path.join(directory, "meta.json"), dumps(stored).encode(), 0o644)


def remove(config: ClientConfig, name: str) -> None:
    """Remove a context and its certificates; nothing happens when there is none."""
    for path in (metadata_path(config, name), tls_path(config, name)):
        shutil.rmtree(path, ignore_errors=True)


def material(config: ClientConfig, name: str) -> Material:
    """The certificates and keys stored for a context."""
    top = tls_path(config, name)
    found: Material = {}
    for endpoint in sorted(os.listdir(top)) if os.path.isdir(top) else ():
        directory = os.path.join(top, endpoint)
        found[endpoint] = {file: _read(os.path.join(directory, file)) for file in sorted(os.listdir(directory))}
    return found


def save_material(config: ClientConfig, name: str, files: Material) -> None:
    """Replace a context's certificates and keys by these."""
    top = tls_path(config, name)
    shutil.rmtree(top, ignore_errors=True)
    for endpoint, contents in files.items():
        if contents:
            os.makedirs(os.path.join(config.directory, "contexts"), 0o755, exist_ok=True)
            for path in (os.path.dirname(top), top, os.path.join(top, endpoint)):
                os.makedirs(path, 0o700, exist_ok=True)
        for file, content in contents.items():
            write(os.path.join(top, endpoint, file), content, 0o600)


def set_current(config: ClientConfig, name: str) -> None:
    """Make a context the current one ("" for the default); all other settings stay. Raises ConfigError."""
    if config.text("currentContext") == name:
        return
    settings = {**config.read_again(), "currentContext": name}
    if not name:
        del settings["currentContext"]
    config.save({"auths": {}, **settings})


def export(stored: dict[str, Any], files: Material) -> bytes:
    """A context as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        _add(archive, "meta.json", dumps(stored).encode(), 0o644)
        _add(archive, "tls", None, 0o700)
        for endpoint, contents in files.items():
            _add(archive, f"tls/{endpoint}", None, 0o700)
            for file, content in contents.items():
                _add(archive, f"tls/{endpoint}/{file}", content, 0o600)
    return buffer.getvalue()


def unpack(data: bytes) -> tuple[dict[str, Any], Material]:
    """The metadata and certificates in a tar or zip archive of a context; raises ConfigError."""
    if len(data) > _LARGEST:
        raise ConfigError("read exceeds the defined limit")
    metadata: dict[str, Any] | None = None
    files: Material = {}
    for path, content in _zip_files(data) if data[:4] == b"PK\x03\x04" else _tar_files(data):
        if path == "meta.json":
            metadata = _decoded(content)
        elif path.startswith("tls/"):
            endpoint, _, file = path.removeprefix("tls/").partition("/")
            if not file or {endpoint, file} & {"", ".", ".."} or "/" in file:
                raise ConfigError("archive format is invalid")
            files.setdefault(endpoint, {})[file] = content
        else:
            raise ConfigError(f"{path}: unexpected context file")
    if metadata is None:
        raise ConfigError("invalid context: no metadata found")
    return metadata, files


def _decoded(content: bytes) -> dict[str, Any]:
    try:
        value = loads(content)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if not isinstance(value, dict):
        raise ConfigError("meta.json: not an object")
    return value


def _tar_files(data: bytes) -> Iterator[tuple[str, bytes]]:
    # Docker's own exports lack the padding of the last file and the end of the archive.
    try:
        with tarfile.open(fileobj=io.BytesIO(data + bytes(1536)), mode="r:") as archive:
            for member in archive:
                if member.isreg():
                    file = archive.extractfile(member)
                    yield member.name, file.read() if file else b""
    except tarfile.TarError:
        raise ConfigError("unexpected EOF" if len(data) < 512 else "archive/tar: invalid tar header") from None


def _zip_files(data: bytes) -> Iterator[tuple[str, bytes]]:
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                if member.file_size > _LARGEST:
                    raise ConfigError("read exceeds the defined limit")
                if not member.is_dir():
                    yield member.filename, archive.read(member)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ConfigError(f"zip: {error}") from None


def _add(archive: tarfile.TarFile, name: str, content: bytes | None, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = mode, len(content or b"")
    entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
    archive.addfile(entry, io.BytesIO(content or b""))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
