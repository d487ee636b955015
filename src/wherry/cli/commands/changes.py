"""`wherry diff`, `wherry export`, `wherry commit`: what became of a container's files."""

from __future__ import annotations

import os

from wherry.cli.command import Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.session import write_all
from wherry.cli.terminal import is_terminal
from wherry.client.engine import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session
    from wherry.client.http import Response

_KINDS = "CAD"


def _diff(session: Session, parsed: Parsed) -> int:
    if not parsed.arguments[0]:
        raise StatusError("container name cannot be empty")
    found = session.engine.json("GET", f"/containers/{quote(parsed.arguments[0], '/:')}/changes") or []
    session.out("".join(f"{_KINDS[change['Kind']]} {change['Path']}\n" for change in found))
    return 0


def _export(session: Session, parsed: Parsed) -> int:
    path = parsed["output"]
    if not path and is_terminal(1):
        raise StatusError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    if path:
        _check_output(path)
    response = session.engine.request("GET", f"/containers/{quote(parsed.arguments[0], '/:')}/export")
    if path:
        _save(response, path)
    else:
        for piece in response.pieces():
            write_all(1, piece)
    return 0


def _check_output(path: str) -> None:
    prefix = "failed to export container: "
    if os.path.isdir(path):
        raise StatusError(f"{prefix}cannot write to a directory")
    directory = os.path.dirname(os.path.normpath(path))
    if directory and not os.path.isdir(directory):
        raise StatusError(f"{prefix}invalid output path: stat {directory}: no such file or directory")


def _save(response: Response, path: str) -> None:
    """Under another name first, so that what fails leaves nothing behind that looks whole."""
    unfinished = f"{path}.{os.getpid()}.tmp"
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for piece in response.pieces():
            write_all(fd, piece)
        os.rename(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise
    finally:
        os.close(fd)


def _commit(session: Session, parsed: Parsed) -> int:
    name, *reference = parsed.arguments
    query = [("author", parsed["author"])]
    query += [("changes", change) for change in parsed["change"]]
    query += [("comment", parsed["message"]), ("container", name)]
    if parsed["no-pause"] or not parsed["pause"]:
        query.append(("pause", "0"))
    if reference and reference[0]:
        from wherry.cli.references import parse

        parse(reference[0])
        repository, tag = _split(reference[0])
        query += [("repo", repository), ("tag", tag)]
    session.out(session.engine.json("POST", "/commit", query)["Id"] + "\n")
    return 0


def _split(reference: str) -> tuple[str, str]:
    head, colon, tag = reference.rpartition(":")
    return (head, tag) if colon and "/" not in tag and "@" not in reference else (reference, "")


EXPORT_FLAGS = (Flag("output", "string", "Write to a file, instead of STDOUT", short="o"),)
COMMIT_FLAGS = (
    Flag("author", "string", 'Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")', short="a"),
    Flag("change", "list", "Apply Dockerfile instruction to the created image", short="c"),
    Flag("message", "string", "Commit message", short="m"),
    Flag("no-pause", "bool", "Disable pausing container during commit", hidden=True),
    Flag("pause", "bool", "Pause container during commit", short="p", default=True, shown="true"),
)
COMMANDS = {
    "diff": Command("CONTAINER", _diff, least=1, most=1),
    "export": Command("[OPTIONS] CONTAINER", _export, EXPORT_FLAGS, least=1, most=1),
    "commit": Command("[OPTIONS] CONTAINER [REPOSITORY[:TAG]]", _commit, COMMIT_FLAGS, least=1, most=2),
}
