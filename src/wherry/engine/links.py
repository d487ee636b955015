"""Legacy links (`--link`) on the default bridge: names in /etc/hosts and variables that tell of the linked container.

Source: moby daemon/links/links.go, daemon/container_operations_unix.go (setupLinkedContainers).
"""

import os
from itertools import pairwise
from typing import TYPE_CHECKING

from wherry.engine.model import Container, HostConfig
from wherry.engine.ports import expand
from wherry.errors import Conflict, Internal, InvalidArgument, NotFound

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

_HOSTS_MAX = 1 << 20
"""Bytes of a hosts file that is kept up to date: containers may write what they like into theirs."""
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


def aliases(engine: "Engine") -> dict[str, list[str]]:
    """The other names of all linked containers, `/OWNER/ALIAS`, by id."""
    found: dict[str, list[str]] = {}
    for entry in engine.containers:
        for alias, target in entry.record.links.items():
            found.setdefault(target, []).append(f"/{entry.record.name}/{alias}")
    return found


def owners(engine: "Engine", record: Container) -> list[Container]:
    """The containers that link to `record`."""
    return [entry.record for entry in engine.containers if record.id in entry.record.links.values()]


def renamed(engine: "Engine", record: Container) -> list[Container]:
    """Bring the links that inspect shows up to date with a name; returns the other records that changed thereby."""
    if record.links:
        record.host_config.Links = show(engine, record.name, record.links)
    others = owners(engine, record)
    for owner in others:
        owner.host_config.Links = show(engine, owner.name, owner.links)
    return others


def follow(engine: "Engine", record: Container, changed: list[Container]) -> None:
    """Write the address that `record` has now into the hosts files of the running containers that link to it."""
    for owner in changed:
        entry = engine.containers.get(owner.id)
        if entry is not None and entry.status in ("running", "paused"):
            for _, child, address, names in _lines(engine, owner):
                if child.id == record.id:
                    _rewrite(owner.hosts_path, names, address)


def unlink(engine: "Engine", ref: str) -> tuple[Container, str]:
    """Undo the link `OWNER/ALIAS`; returns its owner and what its line in the hosts file named. DELETE
    /containers/{id}?link. Raises `NotFound`, and `Internal` for a container's own name."""
    engine.containers.lookup(ref)
    name, _, alias = ref.strip("/").rpartition("/")
    if not name:
        raise Internal("Conflict, cannot remove the default link name of the container")
    entry = engine.containers.lookup(name)
    owner, entry.process = entry.record, None  # the next exec is to know nothing of it
    target = engine.containers.get(owner.links.pop(alias))
    owner.host_config.Links = show(engine, owner.name, owner.links)
    return owner, _names(alias, target.record) if target else ""


def forget(owner: Container, names: str) -> None:
    """Take an undone link out of its owner's hosts file."""
    if names:
        _rewrite(owner.hosts_path, names, "")


def _rewrite(path: str, names: str, address: str) -> None:
    """In place, as the container has the file mounted; without `address` the line goes."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return  # no such file yet, or removed meanwhile
    with open(fd, "r+b") as file:
        lines = file.read(_HOSTS_MAX + 1).splitlines(keepends=True)
        if sum(map(len, lines)) > _HOSTS_MAX:
            return
        ending = f"\t{names}\n".encode()
        new = f"{address}\t{names}\n".encode() if address else b""
        text = b"".join(new if line.endswith(ending) else line for line in lines)
        file.seek(0)
        file.write(text)
        file.truncate()


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
    return [(address, names) for _, _, address, names in _lines(engine, record)]


def _lines(engine: "Engine", record: Container) -> list[tuple[str, Container, str, str]]:
    return [(alias, child, address, _names(alias, child)) for alias, child, address in _linked(engine, record)]


def _names(alias: str, child: Container) -> str:
    return " ".join([alias, child.config.Hostname, *([child.name] if child.name != alias else [])])


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
    for first, last, protocol in _ranges(pairs):
        name = f"{prefix}_PORT_{first}_{protocol.upper()}"
        found += [f"{name}_START={protocol}://{address}:{first}", f"{name}_PORT_START={first}"]
        found += [f"{name}_END={protocol}://{address}:{last}", f"{name}_PORT_END={last}"]
    return found


def _ranges(pairs: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """(first, last, protocol) of three and more ports in a row."""
    runs: list[list[tuple[str, str]]] = [pairs[:1]]
    for (number, protocol), (next_number, next_protocol) in pairwise(pairs):
        if protocol == next_protocol and int(next_number) == int(number) + 1:
            runs[-1].append((next_number, next_protocol))
        else:
            runs.append([(next_number, next_protocol)])
    return [(run[0][0], run[-1][0], run[0][1]) for run in runs if len(run) > 2]
