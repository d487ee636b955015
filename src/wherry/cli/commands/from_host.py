"""`wherry image from-host`: an image of this machine's own programs, for a first run without any registry."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session


def _run(session: Session, parsed: Parsed) -> int:
    from tempfile import TemporaryFile

    from wherry.cli.commands.load import pieces, send
    from wherry.cli.references import parse
    from wherry.hostimage import build_archive
    from wherry.hostimage.collect import MissingError

    name, *programs = parsed.arguments
    if not programs and not parsed["python"]:
        raise StatusError("name at least one program, or give --python")
    reference = parse(name).with_default_tag()
    session.engine.ping()  # before the work, not after it
    with TemporaryFile() as archive:
        try:
            build_archive(archive, reference.familiar, programs, parsed["with"], parsed["python"])
        except (MissingError, OSError, ValueError) as error:
            raise StatusError(f"cannot make an image of this host's files: {error}") from None
        archive.flush()
        archive.seek(0)
        send(session, {"quiet": "1"}, pieces(archive.fileno()))
    return 0


FLAGS = (
    Flag("python", "bool", "Add the Python interpreter and its standard library"),
    Flag("with", "list", "Add a file or directory of this host", word="path"),
)
COMMANDS = {"from-host": Command("[OPTIONS] NAME PROGRAM [PROGRAM...]", _run, FLAGS, least=1)}
