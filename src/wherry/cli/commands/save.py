"""`wherry save`: images into an archive."""

from __future__ import annotations

from wherry.cli import outfile
from wherry.cli.command import Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.terminal import is_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session


def _save(session: Session, parsed: Parsed) -> int:
    path = parsed["output"]
    if path:
        outfile.check(path, "failed to save image")
    elif is_terminal(1):
        raise StatusError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    query = [("names", name) for name in parsed.arguments]
    if parsed["platform"]:
        from wherry.cli.platforms import as_json

        query.append(("platform", as_json(parsed["platform"])))
    outfile.receive(session.engine.request("GET", "/images/get", query), path)
    return 0


FLAGS = (
    Flag("output", "string", "Write to a file, instead of STDOUT", short="o"),
    Flag(
        "platform", "string",
        'Save only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")',
    ),
)  # fmt: skip
COMMANDS = {"save": Command("[OPTIONS] IMAGE [IMAGE...]", _save, FLAGS, least=1)}
