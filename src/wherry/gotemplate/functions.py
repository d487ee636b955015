"""The functions of templates: Go's own and those that Docker adds."""

from __future__ import annotations

from wherry.gotemplate.errors import TemplateError
from wherry.gotemplate.gofmt import TextMap, show, sprintf
from wherry.jsontext import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def truth(value: Any) -> bool:
    """Go's idea of a non-empty value."""
    return bool(value)


def _json(value: Any) -> str:
    if hasattr(value, "as_json"):
        text: str = value.as_json()
        return text
    return dumps(value, html=False)


def _strings(value: Any, what: str) -> list[str]:
    if not isinstance(value, (list, tuple)):
        raise TemplateError(
            f"error calling {what}: wrong type for value; expected []string; got {type(value).__name__}"
        )
    return [each if isinstance(each, str) else show(each) for each in value]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else show(value)


def _title(value: Any) -> str:
    out, previous = [], " "
    for character in _text(value):
        out.append(character if previous.isalnum() or previous in "_'" else character.upper())
        previous = character
    return "".join(out)


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, (list, tuple, dict)):
        return len(value)
    if value is None:
        raise TemplateError("error calling len: len of nil pointer")
    raise TemplateError(f"error calling len: len of type {type(value).__name__}")


def _go_type(value: Any) -> str:
    return {str: "string", bool: "bool", float: "float64"}.get(type(value), type(value).__name__)


def is_text_map(value: dict[str, Any]) -> bool:
    """Whether it is a map of the user's own names to texts (labels, options), and no struct."""
    if isinstance(value, TextMap):
        return True
    return all(isinstance(each, str) for each in value.values()) and not all(
        key[:1].isupper() for key in value if value
    )


def index(value: Any, *keys: Any) -> Any:
    """index: elements of nested lists and maps; a map without the key gives nothing."""
    for key in keys:
        if value is None:
            raise TemplateError("error calling index: index of untyped nil")
        if isinstance(value, dict):
            value = value.get(key, "" if (value or isinstance(value, TextMap)) and is_text_map(value) else None)
        elif isinstance(value, (list, tuple)):
            if not isinstance(key, int):
                raise TemplateError(f"error calling index: cannot index slice/array with type {_go_type(key)}")
            if not 0 <= key < len(value):
                raise TemplateError(f"error calling index: index out of range: {key}")
            value = value[key]
        elif isinstance(value, str) and not isinstance(key, int):
            raise TemplateError(f"error calling index: cannot index slice/array with type {_go_type(key)}")
        elif isinstance(value, str) and 0 <= key < len(value.encode()):
            value = value.encode()[key]
        else:
            raise TemplateError(f"error calling index: can't index item of type {type(value).__name__}")
    return value


def _slice(value: Any, *bounds: int) -> Any:
    low = bounds[0] if bounds else 0
    high = bounds[1] if len(bounds) > 1 else len(value)
    if not 0 <= low <= high <= len(value):
        raise TemplateError(f"error calling slice: index out of range: {high}")
    return value[low:high]


def _truncate(value: Any, length: int) -> str:
    return _text(value)[:length]


def _pad(value: Any, before: int, after: int) -> str:
    text = _text(value)
    return " " * before + text + " " * after if text else text


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise TemplateError("error calling eq: missing argument for comparison")
    for other in others:
        if None not in (first, other) and _family(first) != _family(other):
            raise TemplateError("error calling eq: incompatible types for comparison")
        if first == other:
            return True
    return False


def _family(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, (int, float)) else type(value).__name__


def _ordered(name: str, compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def function(first: Any, second: Any) -> bool:
        if _family(first) != _family(second) or _family(first) not in ("number", "str"):
            raise TemplateError(f"error calling {name}: incompatible types for comparison")
        return compare(first, second)

    return function


def _print(*values: Any) -> str:
    out = ""
    for position, value in enumerate(values):
        if position and not isinstance(value, str) and not isinstance(values[position - 1], str):
            out += " "
        out += show(value)
    return out


def _html(value: Any) -> str:
    text = _text(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&#34;").replace("'", "&#39;")


def _url_query(value: Any) -> str:
    from urllib.parse import quote_plus

    return quote_plus(_text(value))


# `and` and `or` are here for the parser; the evaluator short-circuits them.
BUILTIN: dict[str, Callable[..., Any]] = {
    "and": lambda *values: next((value for value in values if not truth(value)), values[-1]),
    "or": lambda *values: next((value for value in values if truth(value)), values[-1]),
    "not": lambda value: not truth(value),
    "eq": _equal,
    "ne": lambda first, second: not _equal(first, second),
    "lt": _ordered("lt", lambda a, b: a < b),
    "le": _ordered("le", lambda a, b: a <= b),
    "gt": _ordered("gt", lambda a, b: a > b),
    "ge": _ordered("ge", lambda a, b: a >= b),
    "index": index,
    "slice": _slice,
    "len": _length,
    "print": _print,
    "printf": lambda pattern, *values: sprintf(pattern, list(values)),
    "println": lambda *values: " ".join(show(value) for value in values) + "\n",
    "html": _html,
    "urlquery": _url_query,
    "json": _json,
    "split": lambda text, separator: _text(text).split(separator) if separator else list(_text(text)),
    "join": lambda values, separator: separator.join(_strings(values, "join")),
    "title": _title,
    "lower": lambda text: _text(text).lower(),
    "upper": lambda text: _text(text).upper(),
    "pad": _pad,
    "truncate": _truncate,
}

# In the header of a table, functions leave the column's title as it is.
HEADER: dict[str, Callable[..., Any]] = {
    name: lambda text, *_: text for name in ("json", "split", "join", "title", "lower", "upper", "truncate")
}
