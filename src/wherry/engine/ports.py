"""Port specifications of the API: "80", "80/tcp", "80-90/udp"."""

from collections.abc import Iterable

from wherry.engine.model import PortMap
from wherry.errors import InvalidArgument

PROTOCOLS = ("tcp", "udp", "sctp")


def parse_range(text: str) -> tuple[int, int]:
    """ "80" or "80-90" as (first, last); raises `InvalidArgument` with Docker's words."""
    first, dash, last = text.partition("-")
    low = _number(first, text)
    high = _number(last, text) if dash else low
    if high < low:
        raise InvalidArgument(f'invalid port specification: "{text}"')
    return low, high


def _number(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > 65535:
        raise InvalidArgument(f'invalid port specification: "{whole}"')
    return int(text)


def split_port(port: str) -> tuple[str, str]:
    """ "80/TCP" as ("80", "tcp"); the protocol defaults to tcp."""
    number, _, protocol = port.partition("/")
    return number, protocol.lower() or "tcp"


def check_bindings(bindings: PortMap | None) -> None:
    """Raise `InvalidArgument` for a port or host port that is not a number (or a range of them)."""
    for port, hosts in (bindings or {}).items():
        number, _ = split_port(port)
        parse_range(number)
        for host in hosts or []:
            if host.HostPort:
                parse_range(host.HostPort)


def expand(ports: Iterable[str]) -> list[str]:
    """Exposed ports one by one: ["80-81/tcp"] → ["80/tcp", "81/tcp"]; what is no port is left out."""
    out: dict[str, None] = {}
    for port in ports:
        number, protocol = split_port(port)
        try:
            low, high = parse_range(number)
        except InvalidArgument:
            continue
        if protocol in PROTOCOLS:
            out.update((f"{n}/{protocol}", None) for n in range(low, high + 1))
    return list(out)
