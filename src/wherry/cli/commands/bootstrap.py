"""`wherry image bootstrap`: a distribution's base image, made here of its own packages."""

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
    from wherry.hostimage.bootstrap import BootstrapError, Wanted, bootstrap, parse_name

    if parsed["format"] not in ("", "json"):
        raise StatusError(f'unknown format "{parsed["format"]}": only json is known')
    try:
        wanted = Wanted(
            *parse_name(parsed.arguments[0]), parsed["mirror"], parsed["variant"], _words(parsed["include"]),
            parsed["apt-option"],
        )  # fmt: skip
        name = parse(parsed["tag"] or parsed.arguments[0]).with_default_tag().familiar
        session.engine.ping()  # before the work, not after it
        with TemporaryFile() as archive:
            image_id = bootstrap(archive, wanted, name, lambda line: session.err(f"{line}\n"))
            archive.flush()
            archive.seek(0)
            send(session, {"quiet": "1"}, pieces(archive.fileno()), shown=not parsed["format"])
    except (BootstrapError, OSError, ValueError) as error:
        raise StatusError(f"cannot make the image: {error}") from None
    if parsed["format"]:
        from wherry.jsontext import dumps

        session.out(dumps({"Id": image_id, "Name": name}) + "\n")
    return 0


def _words(given: list[str]) -> list[str]:
    return [word for text in given for word in text.replace(",", " ").split()]


FLAGS = (
    Flag("apt-option", "list", "Add a line to apt's configuration while the image is made", word="line"),
    Flag("format", "string", 'Format of the output ("json"; what the engine loaded when not given)'),
    Flag("include", "list", "Install these packages, too", word="packages"),
    Flag("mirror", "string", "Take the packages from this archive (default: the tool's own for the release)"),
    Flag("tag", "string", 'Name and optionally a tag of the image (format: "name:tag")', short="t"),
    Flag("variant", "string", "How much to install (see mmdebstrap)", default="minbase"),
)
COMMANDS = {"bootstrap": Command("[OPTIONS] DISTRIBUTION:RELEASE", _run, FLAGS, least=1, most=1)}
