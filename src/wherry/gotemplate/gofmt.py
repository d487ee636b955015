"""How Go prints values: %v, and the verbs of printf that --format templates use."""

from __future__ import annotations

from wherry.goquote import quote
from wherry.jsontext import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class TextMap(dict[str, str]):
    """Names of the user's own and texts: never taken for a struct, whatever the names look like."""


def show(value: Any) -> str:
    """%v of a decoded JSON value: objects whose keys look like field names print as structs, others as maps."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(show(each) for each in value) + "]"
    if isinstance(value, dict):
        if value and not isinstance(value, TextMap) and all(key[:1].isupper() and key.isalnum() for key in value):
            return "{" + " ".join(show(each) for each in value.values()) + "}"
        return "map[" + " ".join(f"{key}:{show(value[key])}" for key in sorted(value)) + "]"
    return str(value)


def sprintf(pattern: str, arguments: list[Any]) -> str:
    """fmt.Sprintf with flags, width and precision; wrong counts and types show as Go shows them."""
    out, at, used = [], 0, 0
    while (start := pattern.find("%", at)) >= 0:
        out.append(pattern[at:start])
        end = start + 1
        while end < len(pattern) and pattern[end] in "+-# 0123456789.":
            end += 1
        verb, flags, at = pattern[end : end + 1], pattern[start + 1 : end], end + 1
        if verb == "%":
            out.append("%")
        elif not verb:
            out.append("%!(NOVERB)")
        elif used >= len(arguments):
            out.append(f"%!{verb}(MISSING)")
        else:
            out.append(_verb(verb, flags, arguments[used]))
            used += 1
    out.append(pattern[at:])
    if used < len(arguments):
        extra = ", ".join(f"{_type(each)}={show(each)}" for each in arguments[used:])
        out.append(f"%!(EXTRA {extra})")
    return "".join(out)


def _type(value: Any) -> str:
    names = {bool: "bool", int: "int", float: "float64", str: "string", type(None): "<nil>"}
    return names.get(type(value), "map[string]interface {}" if isinstance(value, dict) else "[]interface {}")


def _verb(verb: str, flags: str, value: Any) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool)
    numeric = whole or isinstance(value, float)
    width, _, precision = flags.lstrip("+-# 0").partition(".")
    if verb == "q" and isinstance(value, str):
        text = quote(value)
    elif verb in "vs" or (verb == "t" and isinstance(value, bool)) or (verb == "d" and not numeric):
        fits = verb != "s" or not numeric
        text = show(value) if fits and verb != "d" else f"%!{verb}({_type(value)}={show(value)})"
        text = text[: int(precision)] if precision else text
    elif verb == "T":
        text = _type(value)
    elif (verb in "dxXobc" and whole) or (verb in "feEgG" and isinstance(value, float)):
        return _numeric(verb, flags, value)
    elif verb in "xX" and isinstance(value, str):
        text = value.encode().hex()
    else:
        text = f"%!{verb}({_type(value)}={show(value)})"
    return text.ljust(int(width or 0)) if "-" in flags.partition(".")[0] else text.rjust(int(width or 0))


def _numeric(verb: str, flags: str, value: float) -> str:
    if verb in "feE" and "." not in flags:
        flags += ".6"
    return f"%{flags}{verb}" % value if verb != "b" else format(int(value), "b")
