"""`wherry load` and `wherry import`: archives into images."""

from __future__ import annotations

import os

from wherry.cli.command import Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.progress import show
from wherry.cli.terminal import is_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session

_CHUNK = 1 << 20


def pieces(fd: int, name: str = "/dev/stdin", *, close: bool = False) -> Iterator[bytes]:
    """What a descriptor has, in large pieces; `close` it at the end. Raises StatusError that says `name`."""
    try:
        while data := _read(fd, name):
            yield data
    finally:
        if close:
            os.close(fd)


def _read(fd: int, name: str) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except OSError as error:
        from wherry.cli.options.files import go_error

        raise StatusError(f"read {name}: {go_error(error)}") from None


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        from wherry.cli.options.files import go_error

        raise StatusError(f"open {path}: {go_error(error)}") from None


def _load(session: Session, parsed: Parsed) -> int:
    path = parsed["input"]
    if path:
        body = pieces(_open(path), path, close=True)
    elif is_terminal(0):
        raise StatusError("requested load from stdin, but stdin is empty")
    else:
        body = pieces(0)
    query = {"quiet": "1"} if parsed["quiet"] or not is_terminal(1) else {"quiet": "0"}
    if parsed["platform"]:
        from wherry.cli.platforms import as_json

        query["platform"] = as_json(parsed["platform"])
    send(session, query, body)
    return 0


def send(session: Session, query: dict[str, str], body: Iterator[bytes], *, shown: bool = True) -> None:
    """Send an archive to the engine and show what it makes of it, if it shall be `shown`; raises StatusError."""
    response = session.engine.request(
        "POST", "/images/load", query, body, headers={"Content-Type": "application/x-tar"}
    )
    show(response, 1 if shown else None)


def _import(session: Session, parsed: Parsed) -> int:
    source, *repository = parsed.arguments
    query = {"fromSrc": "-", "repo": repository[0] if repository else ""}
    if parsed["message"]:
        query["message"] = parsed["message"]
    changes = parsed["change"]
    body = None
    if source == "-":
        body = pieces(0)
    elif source.startswith(("http://", "https://")):
        query["fromSrc"] = source
    else:
        body = pieces(_open(source), source, close=True)
    if repository:
        from wherry.cli.references import parse

        parse(repository[0])
    if parsed["platform"]:
        query["platform"] = parsed["platform"].lower()
    headers = {"Content-Type": "text/plain"} if body is not None else {}
    pairs = [*query.items(), *(("changes", change) for change in changes)]
    response = session.engine.request("POST", "/images/create", pairs, body, headers=headers)
    show(response, 1)
    return 0


LOAD_FLAGS = (
    Flag("input", "string", "Read from tar archive file, instead of STDIN", short="i"),
    Flag(
        "platform", "string",
        'Load only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")',
    ),
    Flag("quiet", "bool", "Suppress the load output", short="q"),
)  # fmt: skip
IMPORT_FLAGS = (
    Flag("change", "list", "Apply Dockerfile instruction to the created image", short="c"),
    Flag("message", "string", "Set commit message for imported image", short="m"),
    Flag("platform", "string", "Set platform if server is multi-platform capable"),
)
COMMANDS = {
    "load": Command("[OPTIONS]", _load, LOAD_FLAGS, most=0),
    "import": Command("[OPTIONS] file|URL|- [REPOSITORY[:TAG]]", _import, IMPORT_FLAGS, least=1),
}
