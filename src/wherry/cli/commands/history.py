"""`wherry history`."""

from __future__ import annotations

import time

from wherry.cli.command import TABLE_FORMAT, Command
from wherry.cli.flags import Flag
from wherry.cli.rows import Row, ellipsis, short_id, show
from wherry.cli.times import rfc3339
from wherry.cli.units import human_duration, short_size
from wherry.client.engine import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session


class HistoryRow(Row):
    """One layer of GET /images/NAME/history."""

    type_name = "*image.historyContext"

    def __init__(self, data: dict[str, Any], *, trunc: bool, human: bool) -> None:
        super().__init__(data, trunc=trunc)
        self.human = human


def _id(row: Row) -> str:
    identifier: str = row.data["Id"]
    return short_id(identifier) if row.trunc else identifier


def _created_since(row: Row) -> str:
    if not row.human:  # type: ignore[attr-defined]  # every row here is a HistoryRow
        return rfc3339(row.data["Created"])
    created = row.data["Created"]
    return f"{human_duration(time.time() - created)} ago" if created > 0 else "N/A"


def _created_by(row: Row) -> str:
    text = (row.data.get("CreatedBy") or "").replace("\t", " ")
    return ellipsis(text, 45) if row.trunc else text


def _size(row: Row) -> str:
    return short_size(row.data["Size"]) if row.human else str(row.data["Size"])  # type: ignore[attr-defined]  # ditto


HistoryRow.COLUMNS = {
    "ID": ("IMAGE", _id),
    "CreatedSince": ("CREATED", _created_since),
    "CreatedAt": ("CREATED AT", lambda row: rfc3339(row.data["Created"])),
    "CreatedBy": ("CREATED BY", _created_by),
    "Size": ("SIZE", _size),
    "Comment": ("COMMENT", lambda row: row.data.get("Comment") or ""),
}


def _run(session: Session, parsed: Parsed) -> int:
    query = {}
    if parsed["platform"]:
        from wherry.cli.platforms import as_json

        query["platform"] = as_json(parsed["platform"])
    found = session.engine.json("GET", f"/images/{quote(parsed.arguments[0], '/:@')}/history", query)
    rows = [HistoryRow(each, trunc=not parsed["no-trunc"], human=parsed["human"]) for each in found]
    form = parsed["format"]
    if parsed["quiet"] and form in ("", "table"):
        session.out("".join(f"{_id(row)}\n" for row in rows))
        return 0
    if not parsed["human"] and form in ("", "table"):
        form = "table {{.ID}}\\t{{.CreatedAt}}\\t{{.CreatedBy}}\\t{{.Size}}\\t{{.Comment}}"
    show(session, HistoryRow, rows, form, ("ID", "CreatedSince", "CreatedBy", "Size", "Comment"))
    return 0


FLAGS = (
    TABLE_FORMAT,
    Flag(
        "human", "bool", "Print sizes and dates in human readable format", short="H", default=True, shown="true"
    ),
    Flag("no-trunc", "bool", "Don't truncate output"),
    Flag(
        "platform", "string",
        'Show history for the given platform. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")',
    ),
    Flag("quiet", "bool", "Only show image IDs", short="q"),
)  # fmt: skip
COMMANDS = {"history": Command("[OPTIONS] IMAGE", _run, FLAGS, least=1, most=1)}
