"""Rows of listings: named columns, shown as a table, by a template, or as JSON."""

from __future__ import annotations

from wherry.cli.errors import StatusError
from wherry.cli.table import align

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, ClassVar

    from wherry.cli.session import Session


class Row:
    """One object of a listing. Subclasses give COLUMNS {name: (header, function of the row)} and Docker's type name."""

    COLUMNS: ClassVar[dict[str, tuple[str, Callable[[Any], Any]]]] = {}
    METHODS: ClassVar[dict[str, Callable[..., str]]] = {}
    RAW: ClassVar[dict[str, str]] = {}  # the template that the word "raw" stands for, under that word
    COMPLAINTS = ("template parsing error", "template parsing error")  # of what is no template, and of one that fails
    type_name = ""

    def __init__(self, data: dict[str, Any], *, trunc: bool = True) -> None:
        self.data, self.trunc = data, trunc

    def column(self, name: str) -> Any:
        """The text of a column; KeyError when there is none of that name."""
        return self.COLUMNS[name][1](self)

    def call(self, name: str, arguments: list[Any]) -> str:
        """A column with arguments, such as `.Label "name"`; KeyError when there is none."""
        return self.METHODS[name](self, *arguments)

    def as_json(self) -> str:
        from wherry.jsontext import dumps

        return dumps({name: self.column(name) for name in sorted(self.COLUMNS)})


class _Header:
    """Stands in for a row while a table's header is made."""

    type_name = "formatter.SubHeaderContext"

    def __init__(self, kind: type[Row]) -> None:
        self._kind = kind

    def column(self, name: str) -> str:
        return self._kind.COLUMNS[name][0] if name in self._kind.COLUMNS else ""

    def call(self, name: str, arguments: list[Any]) -> str:
        self._kind.METHODS[name]
        return str(arguments[0]).rpartition(".")[2].replace("-", " ").replace("_", " ")


def label(row: Row, name: str) -> str:
    """The method behind `.Label "name"`."""
    value: str = (row.data.get("Labels") or {}).get(name, "")
    return value


def joined_labels(row: Row) -> str:
    labels = row.data.get("Labels") or {}
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels))


def natural(text: str) -> list[tuple[int, int, str]]:
    """A key by which texts sort with the numbers inside them by value, and digits where ASCII has them."""
    key: list[tuple[int, int, str]] = []
    digits = ""
    for character in f"{text}\0":
        if "0" <= character <= "9":
            digits += character
            continue
        if digits:
            key.append((ord("0"), int(digits), digits))
            digits = ""
        key.append((ord(character), 0, ""))
    return key


def show(session: Session, kind: type[Row], rows: Iterable[Row], form: str, columns: Sequence[str]) -> None:
    """Print the rows: `form` is what --format or the configuration says, "" for a table of `columns`."""
    session.out(render(kind, rows, form, columns))


def render(kind: type[Row], rows: Iterable[Row], form: str, columns: Sequence[str]) -> str:
    """The listing as text; raises StatusError for a template that is none or does not fit."""
    if form in ("", "table"):
        lines = ["\t".join(kind.COLUMNS[name][0] for name in columns)]
        lines.extend("\t".join(row.column(name) for name in columns) for row in rows)
        return align("\n".join(lines)) + "\n"
    from wherry.gotemplate import Template, TemplateError
    from wherry.gotemplate.functions import HEADER

    table = form.startswith("table")
    text = "{{json .}}" if form == "json" else form[len("table") :].strip() if table else kind.RAW.get(form, form)
    text = text.replace("\\t", "\t").replace("\\n", "\n")
    try:
        template = Template(text)
        lines = [template.execute(_Header(kind), HEADER)] if table else []
        lines.extend(template.execute(row) for row in rows)
    except TemplateError as error:
        raise StatusError(f"{kind.COMPLAINTS[not error.parsing]}: {error}") from None
    body = "".join(f"{line}\n" for line in lines)
    return align(body) if table else body


def ellipsis(text: str, limit: int) -> str:
    """At most `limit` characters, the last of which says that something is missing."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def printable(value: Any) -> str:
    """A stranger's words, without what would steer a terminal."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in str(value))


def short_id(text: str) -> str:
    """Twelve characters of an id, without the algorithm."""
    return text.partition(":")[2][:12] if ":" in text else text[:12]


def filters(given: Sequence[str]) -> dict[str, str]:
    """The query parameter for --filter values, {} when none was given."""
    if not given:
        return {}
    from wherry.jsontext import dumps

    collected: dict[str, dict[str, bool]] = {}
    for text in given:
        name, _, value = text.partition("=")
        if name:
            collected.setdefault(name, {})[value] = True
    return {"filters": dumps({name: dict(sorted(values.items())) for name, values in sorted(collected.items())})}
