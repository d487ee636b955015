"""`wherry cp`: files and directories between a container and here."""

from __future__ import annotations

import base64
import os
import posixpath
import time

from wherry.cli.command import Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.session import write_all
from wherry.cli.terminal import is_terminal
from wherry.cli.units import short_size
from wherry.client.engine import quote
from wherry.client.errors import APIError
from wherry.jsontext import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session
    from wherry.client.http import Response

_GO_DIRECTORY, _GO_SYMLINK = 1 << 31, 1 << 27
_GO_IRREGULAR = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19
_INTERVAL_S = 0.075
_CANNOT_COPY_DIRECTORY = "cannot copy directory"
_NO_SUCH_DIRECTORY = "no such directory"


def _cp(session: Session, parsed: Parsed) -> int:
    source, destination = parsed.arguments
    for value, word in ((source, "source"), (destination, "destination")):
        if not value:
            raise StatusError(f"{word} can not be empty")
    from_container, from_path = _split(source)
    to_container, to_path = _split(destination)
    if from_container and to_container:
        raise StatusError("copying between containers is not supported")
    if not from_container and not to_container:
        raise StatusError("must specify at least one container source")
    quiet = parsed["quiet"] if "quiet" in parsed.changed else not is_terminal(1)
    if from_container:
        _copy_out(session, parsed, from_container, from_path, to_path, quiet)
    else:
        _copy_in(session, parsed, from_path, to_container, to_path, quiet)
    return 0


def _split(argument: str) -> tuple[str, str]:
    """(container, path), or ("", path) for a local one: absolute, without colon, or with a dot before it."""
    container, colon, path = argument.partition(":")
    if argument.startswith("/") or not colon or container.startswith("."):
        return "", argument
    return container, path


# out of a container


def _copy_out(session: Session, parsed: Parsed, container: str, path: str, target: str, quiet: bool) -> None:
    if target != "-":
        target = _local(target)
        _check_output(target)
    rename_first = ""
    if parsed["follow-link"]:
        path, rename_first = _followed(session, container, path)
    response = session.engine.request("GET", _archive(container), {"path": path})
    if target == "-":
        for piece in response.pieces():
            write_all(1, piece)
        return
    meter = _Meter(session, quiet, "Copying from container - ", target)
    directory, rename = _destination(_stat(response), path, target, rename_first)
    from wherry.cli.localtar import unpack

    try:
        unpack(_reader(response, meter), directory, rename)
    except OSError as error:
        raise StatusError(_words(error)) from None
    for _ in response.pieces():
        pass
    meter.finish()


def _followed(session: Session, container: str, path: str) -> tuple[str, str]:
    """The path a link leads to, and the name the copy is to have then."""
    try:
        found = _stat(session.engine.request("HEAD", _archive(container), {"path": path}))
    except APIError:
        return path, ""
    if not found["mode"] & _GO_SYMLINK:
        return path, ""
    target = found["linkTarget"]
    if not target.startswith("/"):
        target = posixpath.join(posixpath.dirname(path), target)
    return target, posixpath.basename(path.rstrip("/"))


def _destination(
    found: dict[str, Any], path: str, target: str, rename_first: str
) -> tuple[str, tuple[str, str] | None]:
    """The directory to unpack in, and (name in the archive, name it gets) where that differs."""
    is_directory = bool(found["mode"] & _GO_DIRECTORY)
    clean = posixpath.normpath("/" + path.lstrip("/"))
    base = "." if posixpath.basename(path) == "." else posixpath.basename(clean) or "/"
    if os.path.isdir(target):
        return target, (base, rename_first) if rename_first else None
    directory, name = os.path.split(target.rstrip("/"))
    if os.path.lexists(target):
        if is_directory:
            raise StatusError(_CANNOT_COPY_DIRECTORY)
    elif not is_directory and target.endswith("/"):
        raise StatusError(_NO_SUCH_DIRECTORY)
    return directory or ".", (base, name)


def _check_output(target: str) -> None:
    directory = os.path.dirname(target.rstrip("/")) or "/"
    if not os.path.isdir(directory):
        raise StatusError(f'invalid output path: directory "{directory}" does not exist')
    mode = os.stat(target).st_mode if os.path.exists(target) else 0
    if mode and not (os.path.isdir(target) or os.path.isfile(target)):
        raise StatusError(f'invalid output path: "{target}" must be a directory or a regular file')


def _reader(response: Response, meter: _Meter) -> Callable[[int], bytes]:
    """The body as something to read at most so much from."""
    rest = b""

    def read(limit: int) -> bytes:
        nonlocal rest
        data = rest or response.read_some()
        meter.add(0 if rest else len(data))
        data, rest = data[:limit], data[limit:]
        return data

    return read


# into a container


def _copy_in(session: Session, parsed: Parsed, source: str, container: str, path: str, quiet: bool) -> None:
    shown = f"{container}:{path}"
    path, found = _target_in(session, container, path)
    if found and found["mode"] & _GO_IRREGULAR:
        raise StatusError(f"destination `{shown}` must be a directory or a regular file")
    is_directory = bool(found and found["mode"] & _GO_DIRECTORY)
    meter = _Meter(session, quiet, "Copying to container - ", shown)
    if source == "-":
        if not is_directory:
            raise StatusError(f'destination "{shown}" must be a directory')
        from wherry.cli.commands.load import pieces

        body: Iterable[bytes] = pieces(0)
    else:
        path, body = _packed(_local(source), path, found is not None, is_directory, parsed["follow-link"])
    query = {"noOverwriteDirNonDir": "true", "path": path}
    if parsed["archive"]:
        query["copyUIDGID"] = "true"
    try:
        response = session.engine.request("PUT", _archive(container), query, meter.counted(body))
    except OSError as error:
        raise StatusError(_words(error)) from None
    response.read()
    meter.finish()


def _target_in(session: Session, container: str, path: str) -> tuple[str, dict[str, Any] | None]:
    """Where a path of the container leads, one link followed, and its stat; None for what is not there."""
    found = _stat_of(session, container, path)
    if found and found["mode"] & _GO_SYMLINK:
        target = found["linkTarget"]
        if not target.startswith("/"):
            target = posixpath.join(posixpath.dirname(path), target)
        path, found = target, _stat_of(session, container, target)
    return path, found


def _stat_of(session: Session, container: str, path: str) -> dict[str, Any] | None:
    try:
        response = session.engine.request("HEAD", _archive(container), {"path": path})
    except APIError:
        return None
    session.engine.done(response)
    return _stat(response)


def _packed(source: str, path: str, exists: bool, is_directory: bool, follow: bool) -> tuple[str, Iterator[bytes]]:
    """The directory of the container to unpack in, and the archive of the local `source`."""
    from wherry.cli.localtar import pack

    real = source
    try:
        if follow or source.endswith(("/", "/.")):
            real = os.path.realpath(source)
        source_is_directory = os.path.isdir(real) and not os.path.islink(real.rstrip("/") or "/")
        os.lstat(source)
    except OSError as error:
        raise StatusError(_words(error)) from None
    name = "." if source.endswith("/.") or source == "/" else os.path.basename(source.rstrip("/"))
    if not (exists and is_directory):
        if source_is_directory and exists:
            raise StatusError(_CANNOT_COPY_DIRECTORY)
        if not source_is_directory and not exists and path.endswith(("/", "/.")):
            raise StatusError(_NO_SUCH_DIRECTORY)
        path, name = posixpath.split(path.rstrip("/"))
    return path or "/", pack(real, name)


def _words(error: OSError) -> str:
    from wherry.cli.options.files import go_error

    return f"lstat {error.filename}: {go_error(error)}" if error.filename else go_error(error)


# both


def _archive(container: str) -> str:
    return f"/containers/{quote(container, '/:')}/archive"


def _stat(response: Response) -> dict[str, Any]:
    text = response.headers.get("x-docker-container-path-stat", "")
    try:
        found = loads(base64.b64decode(text))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise StatusError("unable to decode container path stat header")
    return found


def _local(path: str) -> str:
    """An absolute path that keeps the `/` or `/.` at its end."""
    absolute = os.path.abspath(path)
    if path == "." or path.endswith("/."):
        return absolute.rstrip("/") + "/."
    return absolute.rstrip("/") + "/" if path.endswith("/") else absolute


class _Meter:
    """Counts what passes, and shows it where somebody watches."""

    def __init__(self, session: Session, quiet: bool, header: str, target: str) -> None:
        self._session, self._quiet, self._header, self._target = session, quiet, header, target
        self._total = 0
        self._next = 0.0
        self._live = not quiet and is_terminal(2)
        if self._live:
            session.err("\x1b[s")

    def add(self, count: int) -> None:
        """`count` bytes more."""
        self._total += count
        if self._live and (now := time.monotonic()) >= self._next:
            self._next = now + _INTERVAL_S
            self._session.err(f"\x1b[u\x1b[2K{self._header}{short_size(self._total)}")

    def counted(self, body: Iterable[bytes]) -> Iterator[bytes]:
        """The pieces of `body`, counted."""
        for piece in body:
            self.add(len(piece))
            yield piece

    def finish(self) -> None:
        """Say that it is done."""
        if self._live:
            self._session.err("\x1b[u\x1b[2K")
        if not self._quiet:
            self._session.err(f"Successfully copied {short_size(self._total)} to {self._target}\n")


CP_FLAGS = (
    Flag("archive", "bool", "Archive mode (copy all uid/gid information)", short="a"),
    Flag("follow-link", "bool", "Always follow symbol link in SRC_PATH", short="L"),
    Flag(
        "quiet", "bool",
        "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached",
        short="q",
    ),
)  # fmt: skip
COMMANDS = {
    "cp": Command(
        "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\twherry cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
        _cp,
        CP_FLAGS,
        least=2,
        most=2,
        long="Copy files/folders between a container and the local filesystem\n\n"
        "Use '-' as the source to read a tar archive from stdin\n"
        "and extract it to a directory destination in a container.\n"
        "Use '-' as the destination to stream a tar archive of a\n"
        "container source to stdout.",
    ),
}
