"""`wherry volume ls`, `create` and `rm`; `inspect` is with its relatives."""

from __future__ import annotations

from wherry.cli.command import FILTER, TABLE_FORMAT, Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag, lazy
from wherry.cli.rows import Row, filters, joined_labels, label, natural, show
from wherry.cli.units import human_size
from wherry.client.engine import quote
from wherry.client.errors import APIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session


class VolumeRow(Row):
    """A volume of GET /volumes."""

    type_name = "*formatter.volumeContext"


def _nothing(_: Row) -> str:
    return "N/A"  # known of volumes of a swarm alone


def _links(row: Row) -> str:
    usage = row.data.get("UsageData")
    return str(usage["RefCount"]) if usage else "N/A"  # counted by /system/df alone


def _size(row: Row) -> str:
    usage = row.data.get("UsageData")
    return human_size(usage["Size"]) if usage else "N/A"


VolumeRow.COLUMNS = {
    "Name": ("VOLUME NAME", lambda row: row.data["Name"]),
    "Driver": ("DRIVER", lambda row: row.data.get("Driver") or ""),
    "Scope": ("SCOPE", lambda row: row.data.get("Scope") or ""),
    "Mountpoint": ("MOUNTPOINT", lambda row: row.data.get("Mountpoint") or ""),
    "Labels": ("LABELS", joined_labels),
    "Links": ("LINKS", _links),
    "Size": ("SIZE", _size),
    "Group": ("GROUP", _nothing),
    "Availability": ("AVAILABILITY", _nothing),
    "Status": ("STATUS", _nothing),
}
VolumeRow.METHODS = {"Label": label}


def _list(session: Session, parsed: Parsed) -> int:
    form = parsed["format"] or ("" if parsed["quiet"] else session.config.text("volumesFormat"))
    found = session.engine.json("GET", "/volumes", filters(parsed["filter"]))["Volumes"] or []
    found.sort(key=lambda volume: natural(volume["Name"]))
    if parsed["quiet"] and form in ("", "table"):
        session.out("".join(f"{volume['Name']}\n" for volume in found))
        return 0
    show(session, VolumeRow, [VolumeRow(volume) for volume in found], form, ("Driver", "Name"))
    return 0


def _create(session: Session, parsed: Parsed) -> int:
    name = parsed["name"]
    if parsed.arguments:
        if name:
            raise StatusError(
                "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
            )
        name = parsed.arguments[0]
    body: dict[str, Any] = {"Driver": parsed["driver"]}
    labels = dict(text.partition("=")[::2] for text in parsed["label"])
    optional = (("DriverOpts", parsed["opt"]), ("Labels", labels), ("Name", name))
    body.update((key, value) for key, value in optional if value)
    session.out(session.engine.json("POST", "/volumes/create", None, body)["Name"] + "\n")
    return 0


def _remove(session: Session, parsed: Parsed) -> int:
    failures = []
    for name in parsed.arguments:
        if not name.strip():
            failures.append("invalid volume name or ID: value is empty")
            continue
        try:
            session.engine.call("DELETE", f"/volumes/{quote(name)}", {"force": "1"} if parsed["force"] else None)
        except APIError as error:
            failures.append(str(error))
            continue
        session.out(f"{name}\n")
    if failures:
        raise StatusError("\n".join(failures))
    return 0


LIST_FLAGS = (
    Flag("filter", "filter", 'Provide filter values (e.g. "dangling=true")', short="f", parse=FILTER.parse),
    TABLE_FORMAT,
    Flag("quiet", "bool", "Only display volume names", short="q"),
)
CREATE_FLAGS = (
    Flag("driver", "string", "Specify volume driver name", short="d", default="local", shown='"local"'),
    Flag("label", "list", "Set metadata for a volume", parse=lazy("simple:parse_label")),
    Flag("name", "string", "Specify volume name", hidden=True),
    Flag("opt", "map", "Set driver specific options", short="o", shown="map[]"),
)
COMMANDS = {
    "ls": Command("[OPTIONS]", _list, LIST_FLAGS, most=0),
    "create": Command("[OPTIONS] [VOLUME]", _create, CREATE_FLAGS, most=1),
    "rm": Command(
        "[OPTIONS] VOLUME [VOLUME...]",
        _remove,
        (Flag("force", "bool", "Force the removal of one or more volumes", short="f"),),
        least=1,
        long="Remove one or more volumes. You cannot remove a volume that is in use by a container.",
    ),
}
