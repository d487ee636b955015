"""`wherry images`, `rmi` and `tag`."""

from __future__ import annotations

import time

from wherry.cli.command import FILTER, TABLE_FORMAT, Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.references import parse
from wherry.cli.rows import Row, filters, short_id, show
from wherry.cli.units import human_duration, human_size, short_size
from wherry.client.engine import quote
from wherry.client.errors import APIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session

_NONE = "<none>"


class ImageRow(Row):
    """One name of an image of GET /images/json."""

    type_name = "*formatter.imageContext"

    def __init__(self, data: dict[str, Any], names: tuple[str, str, str], *, trunc: bool) -> None:
        super().__init__(data, trunc=trunc)
        self.repository, self.tag, self.digest = names


def _id(row: Row) -> str:
    identifier: str = row.data["Id"]
    return short_id(identifier) if row.trunc else identifier


def _created_at(row: Row) -> str:
    from wherry.cli.times import local_time

    return local_time(row.data["Created"]) if row.data.get("Created") else "N/A"


def _created_since(row: Row) -> str:
    created = row.data.get("Created") or 0
    return f"{human_duration(time.time() - created)} ago" if created > 0 else "N/A"


def _or_unknown(name: str) -> Any:
    def text(row: Row) -> str:
        value = row.data.get(name, -1)
        return "N/A" if value == -1 else str(value) if name == "Containers" else human_size(value)

    return text


def _unique_size(row: Row) -> str:
    shared = row.data.get("SharedSize", -1)
    return "N/A" if shared == -1 else human_size(row.data["Size"] - shared)


ImageRow.COLUMNS = {
    "ID": ("IMAGE ID", _id),
    "Repository": ("REPOSITORY", lambda row: row.repository),
    "Tag": ("TAG", lambda row: row.tag),
    "Digest": ("DIGEST", lambda row: row.digest),
    "CreatedSince": ("CREATED", _created_since),
    "CreatedAt": ("CREATED AT", _created_at),
    "Size": ("SIZE", lambda row: short_size(row.data["Size"])),
    "Containers": ("CONTAINERS", _or_unknown("Containers")),
    "VirtualSize": ("SIZE", lambda row: human_size(row.data["Size"])),
    "SharedSize": ("SHARED SIZE", _or_unknown("SharedSize")),
    "UniqueSize": ("UNIQUE SIZE", _unique_size),
}


def names_of(image: dict[str, Any], *, digests: bool) -> list[tuple[str, str, str]]:
    """The (repository, tag, digest) rows of an image."""
    tags = _by_repository(image.get("RepoTags") or [], ":")
    known = _by_repository(image.get("RepoDigests") or [], "@")
    if not tags and not known:
        return [(_NONE, _NONE, _NONE)]
    rows = []
    for repository, names in tags.items():
        found = known.pop(repository, []) if digests else known.pop(repository, [])[:0]
        rows += [(repository, tag, digest) for tag in names for digest in found or [_NONE]]
    for repository, found in known.items():
        rows += [(repository, _NONE, digest) for digest in (found if digests else [_NONE])]
    return rows


def _by_repository(references: list[str], separator: str) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for reference in references:
        if reference in (f"{_NONE}:{_NONE}", f"{_NONE}@{_NONE}"):
            continue
        repository, _, rest = reference.rpartition(separator)
        grouped.setdefault(repository, []).append(rest)
    return grouped


def _list(session: Session, parsed: Parsed) -> int:
    if parsed["tree"]:
        raise StatusError("--tree is not supported")
    form = parsed["format"]
    if not form and not parsed["quiet"]:
        form = session.config.text("imagesFormat")
    given = [*parsed["filter"], *(f"reference={name}" for name in parsed.arguments)]
    query = {"all": "1"} if parsed["all"] else {}
    query.update(filters(given))
    found = session.engine.json("GET", "/images/json", query)
    found.sort(key=lambda image: -image["Created"])
    digests = parsed["digests"] or "{{.Digest}}" in form
    rows = [
        ImageRow(image, names, trunc=not parsed["no-trunc"])
        for image in found
        for names in names_of(image, digests=digests)
    ]
    if parsed["quiet"] and form in ("", "table"):
        session.out("".join(f"{_id(row)}\n" for row in rows))
        return 0
    columns = ("Repository", "Tag", *(("Digest",) if parsed["digests"] else ()), "ID", "CreatedSince", "Size")
    show(session, ImageRow, rows, form, columns)
    return 0


def _remove(session: Session, parsed: Parsed) -> int:
    query = [("force", "1")] if parsed["force"] else []
    if parsed["no-prune"]:
        query.append(("noprune", "1"))
    if parsed["platform"]:
        from wherry.cli.platforms import as_query

        query += as_query("platforms", parsed["platform"])
    failures, fatal = [], False
    for name in parsed.arguments:
        try:
            deleted = session.engine.json("DELETE", f"/images/{quote(name, '/:@')}", query)
        except APIError as error:
            failures.append(str(error))
            fatal = fatal or error.status != 404
            continue
        for item in deleted or []:
            session.out("".join(f"{key}: {item[key]}\n" for key in ("Deleted", "Untagged") if item.get(key)))
    if failures and (fatal or not parsed["force"]):
        raise StatusError("\n".join(failures))
    if failures:
        session.err("\n".join(failures) + "\n")
    return 0


def _tag(session: Session, parsed: Parsed) -> int:
    source, target = parsed.arguments
    try:
        reference = parse(target)
    except StatusError as error:
        raise StatusError(f'Error parsing reference: "{target}" is not a valid repository/tag: {error}') from None
    if reference.digest and not reference.tag:
        raise StatusError("refusing to create a tag with a digest reference")
    query = {"repo": f"{reference.domain}/{reference.path}", "tag": reference.with_default_tag().tag}
    session.engine.call("POST", f"/images/{quote(source, '/:@')}/tag", query)
    return 0


LIST_FLAGS = (
    Flag("all", "bool", "Show all images (default hides intermediate images)", short="a"),
    Flag("digests", "bool", "Show digests"),
    FILTER,
    TABLE_FORMAT,
    Flag("no-trunc", "bool", "Don't truncate output"),
    Flag("quiet", "bool", "Only show image IDs", short="q"),
    Flag("tree", "bool", "List multi-platform images as a tree (EXPERIMENTAL)", hidden=True),
)
REMOVE_FLAGS = (
    Flag("force", "bool", "Force removal of the image", short="f"),
    Flag("no-prune", "bool", "Do not delete untagged parents"),
    Flag(
        "platform", "list",
        'Remove only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")',
        word="strings",
    ),
)  # fmt: skip
COMMANDS = {
    "images": Command("[OPTIONS] [REPOSITORY[:TAG]]", _list, LIST_FLAGS, most=1),
    "rmi": Command("[OPTIONS] IMAGE [IMAGE...]", _remove, REMOVE_FLAGS, least=1),
    "tag": Command("SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", _tag, least=2, most=2),
}
