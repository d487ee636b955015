"""`wherry logs`."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.session import write_all
from wherry.client.engine import quote
from wherry.client.stdcopy import STDERR, Demux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session

_TIME = 'timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)'


def _run(session: Session, parsed: Parsed) -> int:
    name = quote(parsed.arguments[0], "/:")
    found = session.engine.json("GET", f"/containers/{name}/json")
    name, tty = found["Id"], found["Config"]["Tty"]
    if parsed["clear"]:
        return _clear(session, parsed, name)
    query = {"stdout": "1", "stderr": "1", "tail": parsed["tail"]}
    query.update((flag, "1") for flag in ("timestamps", "details", "follow") if parsed[flag])
    for flag in ("since", "until"):
        if parsed[flag]:
            query[flag] = _time(flag, parsed[flag])
    response = session.engine.request("GET", f"/containers/{name}/logs", query)
    demux = None if tty else Demux()
    for data in response.pieces():
        if demux is None:
            write_all(1, data)
            continue
        for stream, piece in demux.feed(data):
            write_all(2 if stream == STDERR else 1, piece)
    return 0


def _clear(session: Session, parsed: Parsed, name: str) -> int:
    for flag in FLAGS:
        if flag.name != "clear" and flag.name in parsed.changed:
            raise StatusError(f"--clear and --{flag.name} cannot be used together")
    if session.engine.call("DELETE", f"/containers/{name}/logs", accept=(404, 405)) != 204:
        raise StatusError("the engine does not know --clear")
    return 0


def _time(flag: str, text: str) -> str:
    from wherry.cli.times import timestamp

    try:
        return timestamp(text)
    except StatusError as error:
        raise StatusError(f'invalid value for "{flag}": {error}') from None


FLAGS = (
    Flag("clear", "bool", "Drop what has been logged, and show nothing"),
    Flag("details", "bool", "Show extra details provided to logs"),
    Flag("follow", "bool", "Follow log output", short="f"),
    Flag("since", "string", f"Show logs since {_TIME}"),
    Flag("tail", "string", "Number of lines to show from the end of the logs", short="n", default="all", shown='"all"'),
    Flag("timestamps", "bool", "Show timestamps", short="t"),
    Flag("until", "string", f"Show logs before a {_TIME}"),
)
COMMANDS = {"logs": Command("[OPTIONS] CONTAINER", _run, FLAGS, least=1, most=1)}
