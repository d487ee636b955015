"""`wherry ps`."""

from __future__ import annotations

import time

from wherry.cli.command import FILTER, TABLE_FORMAT, Command
from wherry.cli.flags import Flag
from wherry.cli.rows import Row, ellipsis, filters, joined_labels, label, short_id, show
from wherry.cli.units import human_duration, short_size
from wherry.goquote import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session

DEFAULT = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")


class ContainerRow(Row):
    """A container of GET /containers/json."""

    COMPLAINTS = ("failed to parse template", "failed to execute template")
    type_name = "*formatter.ContainerContext"


def _id(row: Row) -> str:
    identifier: str = row.data["Id"]
    return short_id(identifier) if row.trunc else identifier


def _image(row: Row) -> str:
    name: str = row.data.get("Image") or ""
    if not name:
        return "<no image>"
    if not row.trunc:
        return name
    if short_id(row.data.get("ImageID") or "") == short_id(name):
        return short_id(name)
    return name.partition("@")[0] if "@" in name else name


def _command(row: Row) -> str:
    text = row.data.get("Command") or ""
    return quote(ellipsis(text, 20) if row.trunc else text)


def _created(row: Row) -> str:
    from wherry.cli.times import local_time

    return local_time(row.data["Created"])


def _running_for(row: Row) -> str:
    return f"{human_duration(time.time() - row.data['Created'])} ago"


def _ports(row: Row) -> str:
    ports = row.data.get("Ports")
    if not ports:
        return ""
    from wherry.cli.ports import displayable

    return displayable(ports)


def _size(row: Row) -> str:
    written = short_size(row.data.get("SizeRw") or 0)
    whole = row.data.get("SizeRootFs") or 0
    return f"{written} (virtual {short_size(whole)})" if whole > 0 else written


def _names(row: Row) -> str:
    names = [name.removeprefix("/") for name in row.data.get("Names") or []]
    if row.trunc:
        names = [name for name in names if "/" not in name][:1]  # the others are links
    return ",".join(names)


def _mounts(row: Row) -> str:
    names = [mount.get("Name") or mount.get("Source") or "" for mount in row.data.get("Mounts") or []]
    return ",".join(ellipsis(name, 15) if row.trunc else name for name in names)


def _local_volumes(row: Row) -> str:
    return str(sum(mount.get("Driver") == "local" for mount in row.data.get("Mounts") or []))


def _networks(row: Row) -> str:
    return ",".join((row.data.get("NetworkSettings") or {}).get("Networks") or {})


ContainerRow.COLUMNS = {
    "ID": ("CONTAINER ID", _id),
    "Image": ("IMAGE", _image),
    "Command": ("COMMAND", _command),
    "CreatedAt": ("CREATED AT", _created),
    "RunningFor": ("CREATED", _running_for),
    "Ports": ("PORTS", _ports),
    "State": ("STATE", lambda row: row.data.get("State") or ""),
    "Status": ("STATUS", lambda row: row.data.get("Status") or ""),
    "Size": ("SIZE", _size),
    "Names": ("NAMES", _names),
    "Labels": ("LABELS", joined_labels),
    "Mounts": ("MOUNTS", _mounts),
    "LocalVolumes": ("LOCAL VOLUMES", _local_volumes),
    "Networks": ("NETWORKS", _networks),
    "Platform": ("PLATFORM", lambda row: row.data.get("Platform")),
}
ContainerRow.RAW = {
    "raw": "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\n"
    "state: {{.State}}\nstatus: {{.Status}}\nnames: {{.Names}}\nlabels:{{pad .Labels 1 0}}\nports:{{pad .Ports 1 0}}\n"
}
ContainerRow.METHODS = {"Label": label}


def _run(session: Session, parsed: Parsed) -> int:
    form = parsed["format"]
    if not form and not parsed["quiet"]:
        form = session.config.text("psFormat")
    last = 1 if parsed["latest"] else parsed["last"]
    query = {}
    if parsed["all"]:
        query["all"] = "1"
    if last > 0:
        query["limit"] = str(last)
    if parsed["size"] or ".Size" in form or "{{json.}}" in form.replace(" ", ""):
        query["size"] = "1"
    query.update(filters(parsed["filter"]))
    found = session.engine.json("GET", "/containers/json", query)
    rows = [ContainerRow(each, trunc=not parsed["no-trunc"]) for each in found]
    if parsed["quiet"] and form in ("", "table"):
        session.out("".join(f"{_id(row)}\n" for row in rows))
        return 0
    show(session, ContainerRow, rows, form, (*DEFAULT, "Size") if parsed["size"] else DEFAULT)
    return 0


FLAGS = (
    Flag("all", "bool", "Show all containers (default shows just running)", short="a"),
    FILTER,
    TABLE_FORMAT,
    Flag("last", "int", "Show n last created containers (includes all states)", short="n", default=-1, shown="-1"),
    Flag("latest", "bool", "Show the latest created container (includes all states)", short="l"),
    Flag("no-trunc", "bool", "Don't truncate output"),
    Flag("quiet", "bool", "Only display container IDs", short="q"),
    Flag("size", "bool", "Display total file sizes", short="s"),
)
COMMANDS = {"ps": Command("[OPTIONS]", _run, FLAGS, most=0)}
