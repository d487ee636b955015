"""`wherry network ls`."""

from __future__ import annotations

from wherry.cli.command import FILTER, TABLE_FORMAT, Command
from wherry.cli.flags import Flag
from wherry.cli.rows import Row, filters, joined_labels, label, natural, short_id, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session


class NetworkRow(Row):
    """A network of GET /networks."""

    type_name = "*network.networkContext"


def _id(row: Row) -> str:
    identifier: str = row.data["Id"]
    return short_id(identifier) if row.trunc else identifier


def _created_at(row: Row) -> str:
    """Go's time.String(): the wire's text with a space, the zone twice."""
    text = row.data.get("Created") or ""
    if not text.endswith("Z"):
        return text
    return text[:-1].replace("T", " ") + " +0000 UTC"


NetworkRow.COLUMNS = {
    "ID": ("NETWORK ID", _id),
    "Name": ("NAME", lambda row: row.data["Name"]),
    "Driver": ("DRIVER", lambda row: row.data.get("Driver") or ""),
    "Scope": ("SCOPE", lambda row: row.data.get("Scope") or ""),
    "IPv4": ("IPV4", lambda row: "true" if row.data.get("EnableIPv4", True) else "false"),
    "IPv6": ("IPV6", lambda row: "true" if row.data.get("EnableIPv6") else "false"),
    "Internal": ("INTERNAL", lambda row: "true" if row.data.get("Internal") else "false"),
    "Labels": ("LABELS", joined_labels),
    "CreatedAt": ("CREATED AT", _created_at),
}
NetworkRow.METHODS = {"Label": label}


def _list(session: Session, parsed: Parsed) -> int:
    form = parsed["format"] or ("" if parsed["quiet"] else session.config.text("networksFormat"))
    found = session.engine.json("GET", "/networks", filters(parsed["filter"]))
    found.sort(key=lambda network: natural(network["Name"]))
    rows = [NetworkRow(each, trunc=not parsed["no-trunc"]) for each in found]
    if parsed["quiet"] and form in ("", "table"):
        session.out("".join(f"{_id(row)}\n" for row in rows))
        return 0
    show(session, NetworkRow, rows, form, ("ID", "Name", "Driver", "Scope"))
    return 0


FLAGS = (
    Flag("filter", "filter", 'Provide filter values (e.g. "driver=bridge")', short="f", parse=FILTER.parse),
    TABLE_FORMAT,
    Flag("no-trunc", "bool", "Do not truncate the output"),
    Flag("quiet", "bool", "Only display network IDs", short="q"),
)
COMMANDS = {"ls": Command("[OPTIONS]", _list, FLAGS, most=0)}
