"""`wherry system df`."""

from __future__ import annotations

import time

from wherry.cli.command import TABLE_FORMAT, Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.rows import Row, render, show
from wherry.cli.times import nanoseconds
from wherry.cli.units import human_duration, human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session


class UsageRow(Row):
    """One kind of objects; `data` has Type, TotalCount, Active, Size and Reclaimable (bytes), and whether a percentage
    is shown."""

    type_name = "*formatter.diskUsageContext"


def _reclaimable(row: Row) -> str:
    size, reclaimable = row.data["Size"], row.data["Reclaimable"]
    if size > 0 and row.data["Percent"]:
        return f"{human_size(reclaimable)} ({reclaimable * 100 // size}%)"
    return human_size(reclaimable)


UsageRow.COLUMNS = {
    "Type": ("TYPE", lambda row: row.data["Type"]),
    "TotalCount": ("TOTAL", lambda row: str(row.data["TotalCount"])),
    "Active": ("ACTIVE", lambda row: str(row.data["Active"])),
    "Size": ("SIZE", lambda row: human_size(row.data["Size"])),
    "Reclaimable": ("RECLAIMABLE", _reclaimable),
}
_RUNNING = ("running", "paused", "restarting")


def _usage(kind: str, total: int, active: int, size: int, reclaimable: int, *, percent: bool = True) -> UsageRow:
    values = {"Type": kind, "TotalCount": total, "Active": active, "Size": size}
    return UsageRow(values | {"Reclaimable": reclaimable, "Percent": percent})


def _images(usage: dict[str, Any]) -> UsageRow:
    images = usage["Images"] or []
    active = [image for image in images if image.get("Containers", 0) > 0]
    used = sum(image["Size"] - max(image.get("SharedSize", 0), 0) for image in active if image["Size"] != -1)
    size = usage["LayersSize"]
    return _usage("Images", len(images), len(active), size, size - used)


def _containers(usage: dict[str, Any]) -> UsageRow:
    containers = usage["Containers"] or []
    sizes = [(each["State"] in _RUNNING, each.get("SizeRw", 0)) for each in containers]
    free = sum(size for active, size in sizes if not active)
    return _usage("Containers", len(sizes), sum(a for a, _ in sizes), sum(size for _, size in sizes), free)


def _volumes(usage: dict[str, Any]) -> UsageRow:
    found = [volume["UsageData"] for volume in usage["Volumes"] or []]
    sizes = [(data["RefCount"] > 0, max(data["Size"], 0)) for data in found]
    free = sum(size for active, size in sizes if not active)
    return _usage("Local Volumes", len(sizes), sum(a for a, _ in sizes), sum(size for _, size in sizes), free)


def _cache(usage: dict[str, Any]) -> UsageRow:
    records = usage["BuildCache"] or []
    size = sum(record["Size"] for record in records if not record.get("Shared"))
    free = sum(record["Size"] for record in records if not record.get("Shared") and not record.get("InUse"))
    return _usage("Build Cache", len(records), sum(bool(r.get("InUse")) for r in records), size, free, percent=False)


def _run(session: Session, parsed: Parsed) -> int:
    usage = session.engine.json("GET", "/system/df")
    form = parsed["format"]
    if parsed["verbose"]:
        return _verbose(session, usage, form)
    rows = [_images(usage), _containers(usage), _volumes(usage), _cache(usage)]
    show(session, UsageRow, rows, form, ("Type", "TotalCount", "Active", "Size", "Reclaimable"))
    return 0


# -- verbose


def _verbose(session: Session, usage: dict[str, Any], form: str) -> int:
    from wherry.cli.commands.images import ImageRow, names_of
    from wherry.cli.commands.ps import ContainerRow
    from wherry.cli.commands.volume import VolumeRow

    trunc = form in ("", "table")
    images = [
        ImageRow(image, (repository, tag, ""), trunc=trunc)
        for image in usage["Images"] or []
        for repository, tag, _ in names_of(image, digests=False)
    ]
    containers = [ContainerRow(each | {"SizeRootFs": 0}, trunc=trunc) for each in usage["Containers"] or []]
    volumes = [VolumeRow(each) for each in usage["Volumes"] or []]
    if form not in ("", "table"):
        return _by_template(session, form, {"Images": images, "Containers": containers, "Volumes": volumes})
    columns = ("Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers")
    text = "Images space usage:\n\n" + render(ImageRow, images, "", columns)
    columns = ("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names")
    text += "\nContainers space usage:\n\n" + render(ContainerRow, containers, "", columns)
    text += "\nLocal Volumes space usage:\n\n" + render(VolumeRow, volumes, "", ("Name", "Links", "Size"))
    text += f"\nBuild cache usage: {human_size(_cache(usage).data['Size'])}\n\n"
    text += render(CacheRow, [CacheRow(each) for each in usage["BuildCache"] or []], "", tuple(CacheRow.COLUMNS))
    session.out(text)
    return 0


class CacheRow(Row):
    """A record of the build cache."""

    type_name = "*formatter.buildCacheContext"


def _ago(key: str) -> Any:
    def text(row: Row) -> str:
        moment = nanoseconds(row.data.get(key) or "")
        return f"{human_duration(time.time() - moment[0])} ago" if moment else ""

    return text


CacheRow.COLUMNS = {
    "ID": ("CACHE ID", lambda row: row.data["ID"][:12]),
    "CacheType": ("CACHE TYPE", lambda row: row.data.get("Type") or ""),
    "Size": ("SIZE", lambda row: human_size(row.data["Size"])),
    "CreatedSince": ("CREATED", _ago("CreatedAt")),
    "LastUsedSince": ("LAST USED", _ago("LastUsedAt")),
    "UsageCount": ("USAGE", lambda row: str(row.data.get("UsageCount", 0))),
    "Shared": ("SHARED", lambda row: "true" if row.data.get("Shared") else "false"),
}


class _Whole:
    """What a template of `system df -v` sees: lists of rows."""

    type_name = "formatter.DiskUsageContext"

    def __init__(self, lists: dict[str, list[Any]]) -> None:
        self._lists = lists

    def column(self, name: str) -> list[Row]:
        return self._lists[name]

    def call(self, name: str, arguments: list[Any]) -> str:
        raise KeyError(name)

    def as_json(self) -> str:
        parts = ",".join(f'"{name}":[{",".join(row.as_json() for row in rows)}]' for name, rows in self._lists.items())
        return f"{{{parts}}}"


def _by_template(session: Session, form: str, lists: dict[str, list[Any]]) -> int:
    from wherry.gotemplate import Template, TemplateError

    try:
        text = Template("{{json .}}" if form == "json" else form).execute(_Whole({**lists, "BuildCache": []}))
    except TemplateError as error:
        raise StatusError(f"template parsing error: {error}") from None
    session.out(text)
    return 0


FLAGS = (TABLE_FORMAT, Flag("verbose", "bool", "Show detailed information on space usage", short="v"))
COMMANDS = {"df": Command("[OPTIONS]", _run, FLAGS, most=0)}
