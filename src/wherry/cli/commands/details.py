"""Small questions about one container: top, port, rename."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.cli.errors import StatusError, ValueRefused
from wherry.cli.ports import host_port
from wherry.cli.table import align
from wherry.cli.values import parse_number
from wherry.client.engine import quote
from wherry.client.errors import APIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session


def _top(session: Session, parsed: Parsed) -> int:
    query = {"ps_args": " ".join(parsed.arguments[1:])} if len(parsed.arguments) > 1 else None
    found = session.engine.json("GET", f"/containers/{quote(parsed.arguments[0], '/:')}/top", query)
    lines = [found["Titles"], *(found["Processes"] or [])]
    session.out(align("".join("\t".join(line) + "\n" for line in lines), 20, 3))
    return 0


def _rename(session: Session, parsed: Parsed) -> int:
    old, new = (each.strip() for each in parsed.arguments)
    if not old or not new:
        raise StatusError("Error: Neither old nor new names may be empty")
    try:
        session.engine.call("POST", f"/containers/{quote(old, '/:')}/rename", {"name": new})
    except APIError as error:
        raise StatusError(f"{error}\nError: failed to rename container named {old}") from None
    return 0


def _check_port(text: str) -> None:
    try:
        parse_number(text, bits=16, signed=False, base=10)
    except ValueRefused as error:
        raise StatusError(f"Error: invalid port ({text}): {error}") from None


def _port(session: Session, parsed: Parsed) -> int:
    name, *wanted = parsed.arguments
    settings = session.engine.json("GET", f"/containers/{quote(name, '/:')}/json")["NetworkSettings"]
    ports = settings.get("Ports") or {}
    if wanted:
        key = wanted[0] if "/" in wanted[0] else f"{wanted[0]}/tcp"
        _check_port(key.partition("/")[0])
        if not ports.get(key):
            raise StatusError(f"Error: No public port '{wanted[0]}' published for {name}")
        lines = [host_port(each["HostIp"], each["HostPort"]) for each in ports[key]]
    else:
        lines = [
            f"{port} -> {host_port(each['HostIp'], each['HostPort'])}"
            for port, bindings in ports.items()
            for each in bindings or []
        ]
        from wherry.cli.rows import natural

        lines.sort(key=natural)
    session.out("".join(f"{line}\n" for line in lines))
    return 0


COMMANDS = {
    "top": Command("CONTAINER [ps OPTIONS]", _top, least=1, interspersed=False),
    "rename": Command("CONTAINER NEW_NAME", _rename, least=2, most=2),
    "port": Command("CONTAINER [PRIVATE_PORT[/PROTO]]", _port, least=1, most=2),
}
