"""`wherry search`."""

from __future__ import annotations

from wherry.cli.command import FILTER, Command
from wherry.cli.credentials import for_domain
from wherry.cli.flags import Flag
from wherry.cli.rows import Row, ellipsis, filters, printable, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session


_AUTOMATED = (
    'WARNING: the "is-automated" filter is deprecated, and searching for "is-automated=true" will not yield any '
    "results in future.\n"
)


class SearchRow(Row):
    """One result of GET /images/search."""

    type_name = "*registry.searchContext"

    def as_json(self) -> str:
        from wherry.jsontext import dumps

        official = "true" if self.data.get("is_official") else "false"
        return dumps({name: self.column(name) for name in sorted(self.COLUMNS)} | {"IsOfficial": official})


def _description(row: Row) -> str:
    text = printable((row.data.get("description") or "").replace("\n", " ").replace("\r", " "))
    return ellipsis(text, 45) if row.trunc else text


SearchRow.COLUMNS = {
    "Name": ("NAME", lambda row: printable(row.data.get("name", ""))),
    "Description": ("DESCRIPTION", _description),
    "StarCount": ("STARS", lambda row: str(row.data.get("star_count", 0))),
    "IsOfficial": ("OFFICIAL", lambda row: "[OK]" if row.data.get("is_official") else ""),
}


def _domain(term: str) -> str:
    """The registry that is searched: the one a term begins with, as in names of images."""
    first, slash, _ = term.removeprefix("http://").removeprefix("https://").partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost")
    return first if named and first not in ("docker.io", "index.docker.io") else "docker.io"


def _run(session: Session, parsed: Parsed) -> int:
    term = parsed.arguments[0]
    if any(each.startswith("is-automated=") for each in parsed["filter"]):
        session.err(_AUTOMATED)
    query = filters(parsed["filter"])
    if parsed["limit"] > 0:
        query["limit"] = str(parsed["limit"])
    query["term"] = term
    headers = for_domain(session, _domain(term), strict=False)
    found = session.engine.json("GET", "/images/search", query, headers=headers) or []
    rows = [SearchRow(each, trunc=not parsed["no-trunc"]) for each in found]
    show(session, SearchRow, rows, parsed["format"], ("Name", "Description", "StarCount", "IsOfficial"))
    return 0


FLAGS = (
    FILTER,
    Flag("format", "string", "Pretty-print search using a Go template"),
    Flag("limit", "int", "Max number of search results"),
    Flag("no-trunc", "bool", "Don't truncate output"),
)
COMMANDS = {"search": Command("[OPTIONS] TERM", _run, FLAGS, least=1, most=1)}
