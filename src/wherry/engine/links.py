"""Legacy links (`--link`) on the default bridge: names in /etc/hosts and variables that tell of the linked container.

Source: moby daemon/links/links.go, daemon/container_operations_unix.go (setupLinkedContainers).
"""

from typing import TYPE_CHECKING

from wherry.engine.model import Container, HostConfig
from wherry.engine.ports import expand
from wherry.errors import Conflict, InvalidArgument, NotFound

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

_UNTOLD = ("HOME", "PATH")
"""Variables of the image, more likely, than of who made the container."""


def resolve(engine: "Engine", host: HostConfig) -> dict[str, str]:
    """HostConfig.Links (`NAME[:ALIAS]`) as {alias: container id}. Raises `InvalidArgument`, in Docker's words."""
    found = {}
    for link in host.Links or ():
        ref, alias = _parse(link)
        try:
            record = engine.containers.lookup(ref).record
        except NotFound as error:
            raise InvalidArgument(f"could not get container for {ref}: {error}") from None
        if record.host_config.NetworkMode == "host":
            raise InvalidArgument(
                "conflicting options: host type networking can't be used with links. "
                "This would result in undefined behavior"
            )
        found[alias] = record.id
    if found and not engine.config.icc:
        raise InvalidArgument("links need containers that may talk to each other: this engine runs with --icc=false")
    return found


def _parse(link: str) -> tuple[str, str]:
    """Also what inspect shows: `/NAME:/OWNER/ALIAS`."""
    if not link:
        raise InvalidArgument("empty string specified for links")
    if link.count(":") > 1:
        raise InvalidArgument(f"bad format for links: {link}")
    ref, _, alias = link.partition(":")
    alias = (alias or ref).rpartition("/")[2]
    if not ref or not alias or any(character <= " " for character in alias):
        raise InvalidArgument(f"bad format for links: {link}")
    return ref, alias


def show(engine: "Engine", name: str, links: dict[str, str]) -> list[str] | None:
    """HostConfig.Links of the container `name` as inspect has them."""
    entries = ((alias, engine.containers.get(target)) for alias, target in links.items())
    return [f"/{entry.record.name}:/{name}/{alias}" for alias, entry in entries if entry] or None


def check(engine: "Engine", record: Container) -> None:
    """Raise `Conflict` unless all linked containers run."""
    shown = record.host_config.Links or []
    for number, target in enumerate(record.links.values()):
        if _address(engine, target) is None:
            child, _, alias = shown[number].partition(":")
            raise Conflict(f"Cannot link to a non running container: {child} AS {alias}")


def _address(engine: "Engine", target: str) -> tuple[Container, str] | None:
    entry = engine.containers.get(target)
    if entry is None or entry.status not in ("running", "paused"):
        return None
    settings = entry.record.networks.get("bridge")
    return entry.record, settings.IPAddress if settings else ""


def _linked(engine: "Engine", record: Container) -> list[tuple[str, Container, str]]:
    """(alias, container, address) of those that can be reached."""
    found = ((alias, _address(engine, target)) for alias, target in record.links.items())
    return [(alias, *reached) for alias, reached in found if reached and reached[1]]


def hosts(engine: "Engine", record: Container) -> list[tuple[str, str]]:
    """(address, names) for /etc/hosts."""
    lines = []
    for alias, child, address in _linked(engine, record):
        names = [alias, child.config.Hostname, *([child.name] if child.name != alias else [])]
        lines.append((address, " ".join(names)))
    return lines


def environment(engine: "Engine", record: Container) -> list[str]:
    """What the variables of the container begin with."""
    found: list[str] = []
    for alias, child, address in _linked(engine, record):
        prefix = alias.replace("-", "_").upper()
        found += _ports(prefix, address, expand(list(child.config.ExposedPorts or {})))
        found.append(f"{prefix}_NAME=/{record.name}/{alias}")
        pairs = (entry.partition("=") for entry in child.config.Env or [])
        found += [f"{prefix}_ENV_{key}={value}" for key, equals, value in pairs if equals and key not in _UNTOLD]
    return found


def _ports(prefix: str, address: str, ports: list[str]) -> list[str]:
    """TCP before UDP, small numbers first: the first is the port of ports."""
    pairs = [(number, protocol) for number, _, protocol in (port.partition("/") for port in ports)]
    pairs.sort(key=lambda pair: (pair[1] != "tcp", int(pair[0])))
    found = [f"{prefix}_PORT={protocol}://{address}:{number}" for number, protocol in pairs[:1]]
    for number, protocol in pairs:
        name = f"{prefix}_PORT_{number}_{protocol.upper()}"
        found.append(f"{name}={protocol}://{address}:{number}")
        found += [f"{name}_ADDR={address}", f"{name}_PORT={number}", f"{name}_PROTO={protocol}"]
    return found
