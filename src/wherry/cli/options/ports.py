"""--publish and --expose."""

from __future__ import annotations

from wherry.cli.errors import StatusError, ValueRefused
from wherry.cli.options.simple import canonical_ip
from wherry.cli.values import parse_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def parse_publish(specs: list[str]) -> tuple[dict[str, Any], dict[str, list[dict[str, str]]]]:
    """The values of --publish as (exposed ports, bindings), both keyed "80/tcp"; raises StatusError."""
    exposed: dict[str, Any] = {}
    bindings: dict[str, list[dict[str, str]]] = {}
    for spec in specs:
        _publish(_standard(spec) if "=" in spec else spec, exposed, bindings)
    return exposed, bindings


def _refuse(text: str) -> StatusError:
    return StatusError(text, 125)


def _standard(spec: str) -> str:
    """The long syntax (target=80,published=8080,protocol=tcp) in the short one."""
    parameters = {"protocol": "tcp", "published": "", "target": ""}
    for field in spec.split(","):
        parts = field.split("=")
        if len(parts) < 2:
            raise _refuse(f"invalid publish opts format (should be name=value but got '{field}')")
        parameters[parts[0]] = parts[1]
    return f"{parameters['published']}:{parameters['target']}/{parameters['protocol']}"


def _publish(spec: str, exposed: dict[str, Any], bindings: dict[str, list[dict[str, str]]]) -> None:
    parts = spec.split(":")
    port, protocol = split_protocol(parts[-1])
    host = parts[-2] if len(parts) > 1 else ""
    address = ":".join(parts[:-2])
    if address[:1] == "[" and address[-1:] == "]":
        address = address[1:-1]
    if address and canonical_ip(address) is None:
        raise _refuse(f"invalid IP address: {address}")
    if not port:
        raise _refuse(f"no port specified: {spec}<empty>")
    first, last = _range(port, "containerPort")
    host_first, host_last = _range(host, "hostPort") if host else (0, 0)
    if host and last - first != host_last - host_first and last != first:
        raise _refuse(f"invalid ranges specified for container and host Ports: {port} and {host}")
    if protocol.lower() not in ("tcp", "udp", "sctp"):
        raise _refuse(f"invalid proto: {protocol}")
    for offset in range(last - first + 1):
        host_port = str(host_first + offset) if host else ""
        if host and first == last and host_first != host_last:
            host_port += f"-{host_last}"
        key = f"{first + offset}/{protocol.lower()}"
        exposed[key] = {}
        bindings.setdefault(key, []).append({"HostIp": address, "HostPort": host_port})


def split_protocol(text: str) -> tuple[str, str]:
    """ "80/udp" as ("80", "udp"); tcp when none is named; both empty when the port is."""
    parts = text.split("/")
    if not parts[0]:
        return "", ""
    return (parts[0], parts[1]) if len(parts) > 1 and parts[1] else (parts[0], "tcp")


def _range(text: str, what: str) -> tuple[int, int]:
    try:
        return parse_range(text)
    except ValueRefused:
        raise _refuse(f"invalid {what}: {text}") from None


def parse_range(text: str) -> tuple[int, int]:
    """ "80" or "80-90" as (first, last); raises ValueRefused."""
    first, dash, last = text.partition("-")
    low = parse_number(first, bits=16, signed=False, base=10)
    high = parse_number(last, bits=16, signed=False, base=10) if dash else low
    if high < low:
        raise ValueRefused(f"invalid range specified for port: {text}")
    return low, high


def parse_expose(specs: list[str], exposed: dict[str, Any]) -> None:
    """Add the values of --expose to `exposed`."""
    for spec in specs:
        if ":" in spec:
            raise _refuse(f"invalid port format for --expose: {spec}")
        port, protocol = split_protocol(spec)
        try:
            if not port:
                raise ValueRefused("empty string specified for ports")
            first, last = parse_range(port)
        except ValueRefused as refusal:
            raise _refuse(f"invalid range format for --expose: {spec}, error: {refusal}") from None
        for each in range(first, last + 1):
            exposed.setdefault(f"{each}/{protocol}", {})
