"""How published ports are shown: neighbours with equal numbers on both sides are joined into ranges."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def host_port(address: str, port: object) -> str:
    """ "address:port", with brackets around IPv6."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def displayable(ports: list[dict[str, Any]]) -> str:
    """The PORTS column of `ps`."""
    groups: dict[tuple[str, str], tuple[int, int]] = {}
    shown, mappings = [], []
    for port in sorted(ports, key=_order):
        private, public, kind = port["PrivatePort"], port.get("PublicPort", 0), port.get("Type", "")
        address = port.get("IP", "")
        if address and public != private:
            mappings.append(f"{host_port(address, public)}->{private}/{kind}")
            continue
        key = (address, kind)
        if key not in groups:
            groups[key] = (private, private)
        elif private == groups[key][1] + 1:
            groups[key] = (groups[key][0], private)
        else:
            shown.append(_group(key, *groups[key]))
            groups[key] = (private, private)
    shown.extend(_group(key, *limits) for key, limits in groups.items())
    return ", ".join(shown + mappings)


def _order(port: dict[str, Any]) -> tuple[Any, ...]:
    return port["PrivatePort"], port.get("IP", ""), port.get("PublicPort", 0), port.get("Type", "")


def _group(key: tuple[str, str], first: int, last: int) -> str:
    address, kind = key
    numbers = str(first) if first == last else f"{first}-{last}"
    return f"{host_port(address, numbers)}->{numbers}/{kind}" if address else f"{numbers}/{kind}"
