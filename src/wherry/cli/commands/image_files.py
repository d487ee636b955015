"""`wherry image diff`, `flatten` and `tree`: what Docker has not."""

from __future__ import annotations

from wherry.cli.command import TABLE_FORMAT, Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.rows import Row, short_id, show
from wherry.cli.units import human_size
from wherry.client.engine import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session

_KINDS = "CAD"


def _require(session: Session, what: str) -> None:
    if not session.engine.is_wherry():
        raise StatusError(f"the engine does not know {what}: it is not wherry's")


# -- diff


class DiffRow(Row):
    """A path of GET /images/NAME/changes."""

    type_name = "*image.diffContext"


def _path_size(row: Row) -> str:
    return human_size(row.data["Size"]) if row.data["Size"] else ""


DiffRow.COLUMNS = {
    "Kind": ("KIND", lambda row: _KINDS[row.data["Kind"]]),
    "Path": ("PATH", lambda row: row.data["Path"]),
    "Size": ("SIZE", _path_size),
    "Bytes": ("BYTES", lambda row: row.data["Size"]),
}


def _diff(session: Session, parsed: Parsed) -> int:
    old, new = parsed.arguments
    _require(session, "image diff")
    found = session.engine.json("GET", f"/images/{quote(new, '/:@')}/changes", {"since": old})
    rows = [DiffRow(each) for each in found]
    if not parsed["format"]:
        session.out("".join(_line(row) for row in rows))
        return 0
    show(session, DiffRow, rows, parsed["format"], ("Kind", "Path", "Size"))
    return 0


def _line(row: Row) -> str:
    size = _path_size(row)
    return f"{row.column('Kind')} {row.column('Path')}{f' ({size})' if size else ''}\n"


# -- flatten


def _flatten(session: Session, parsed: Parsed) -> int:
    from wherry.jsontext import dumps

    query = {"repo": parsed["tag"]} if parsed["tag"] else {}
    if parsed["tag"]:
        from wherry.cli.references import parse

        parse(parsed["tag"])
    if parsed["format"] not in ("", "json"):
        raise StatusError(f'unknown format "{parsed["format"]}": only json is known')
    _require(session, "image flatten")
    made = session.engine.json("POST", f"/images/{quote(parsed.arguments[0], '/:@')}/flatten", query)
    session.out(f"{dumps(made) if parsed['format'] else made['Id']}\n")
    return 0


# -- tree


class TreeRow(Row):
    """An image with its layers, of GET /images/layers."""

    type_name = "*image.treeContext"


TreeRow.COLUMNS = {
    "ID": ("IMAGE ID", lambda row: row.data["Id"]),
    "Names": ("NAMES", lambda row: row.data["RepoTags"]),
    "Size": ("SIZE", lambda row: row.data["Size"]),
    "Unique": ("UNIQUE", lambda row: sum(each["Size"] for each in row.data["Layers"] if not each["SharedBy"])),
    "Layers": ("LAYERS", lambda row: row.data["Layers"]),
}


def _tree(session: Session, parsed: Parsed) -> int:
    _require(session, "image tree")
    images = session.engine.json("GET", "/images/layers")
    _share(images)
    if parsed.arguments:
        path = f"/images/{quote(parsed.arguments[0], '/:@')}/json"
        wanted = session.engine.json("GET", path)["Id"]
        images = [image for image in images if image["Id"] == wanted]
    form = parsed["format"]
    if form and form != "table":
        show(session, TreeRow, [TreeRow(image) for image in images], form, ())
        return 0
    session.out("".join(_branch(image, trunc=not parsed["no-trunc"]) for image in images))
    return 0


def _share(images: list[dict[str, Any]]) -> None:
    """Note with every layer which other images have it."""
    owners: dict[str, list[str]] = {}
    for image in images:
        for layer in {each["Id"] for each in image["Layers"]}:
            owners.setdefault(layer, []).append(image["Id"])
    names = {image["Id"]: image["RepoTags"] or [short_id(image["Id"])] for image in images}
    for image in images:
        for layer in image["Layers"]:
            others = [owner for owner in owners[layer["Id"]] if owner != image["Id"]]
            layer["SharedBy"] = sorted(names[owner][0] for owner in others)


def _branch(image: dict[str, Any], *, trunc: bool) -> str:
    name = ", ".join(image["RepoTags"]) or "<none>"
    unique = sum(each["Size"] for each in image["Layers"] if not each["SharedBy"])
    identifier = short_id(image["Id"]) if trunc else image["Id"]
    lines = [f"{name} ({identifier}) {human_size(image['Size'])}, {human_size(unique)} of its own"]
    for position, layer in enumerate(image["Layers"], 1):
        end = "└──" if position == len(image["Layers"]) else "├──"
        shown = short_id(layer["Id"]) if trunc else layer["Id"]
        with_whom = f", shared with {', '.join(layer['SharedBy'])}" if layer["SharedBy"] else ""
        lines.append(f"{end} {shown} {human_size(layer['Size'])}{with_whom}")
    return "".join(f"{line}\n" for line in lines)


FLATTEN_FLAGS = (
    Flag("format", "string", 'Format of the output ("json"; the id alone when not given)'),
    Flag("tag", "string", 'Name and optionally a tag of the new image (format: "name:tag")', short="t"),
)
TREE_FLAGS = (TABLE_FORMAT, Flag("no-trunc", "bool", "Don't truncate output"))
COMMANDS = {
    "diff": Command("[OPTIONS] IMAGE IMAGE", _diff, (TABLE_FORMAT,), least=2, most=2),
    "flatten": Command("[OPTIONS] IMAGE", _flatten, FLATTEN_FLAGS, least=1, most=1),
    "tree": Command("[OPTIONS] [IMAGE]", _tree, TREE_FLAGS, most=1),
}
