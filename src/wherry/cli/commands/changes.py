"""`wherry diff`, `wherry export`, `wherry commit`: what became of a container's files."""

from __future__ import annotations

from wherry.cli import outfile
from wherry.cli.command import Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.terminal import is_terminal
from wherry.client.engine import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session

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
        outfile.check(path, "failed to export container")
    outfile.receive(session.engine.request("GET", f"/containers/{quote(parsed.arguments[0], '/:')}/export"), path)
    return 0


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
