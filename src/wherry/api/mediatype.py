"""The Content-Type of a request, read as Go's `mime.ParseMediaType` reads it (RFC 9110 section 8.3)."""

import re

from wherry.errors import InvalidArgument

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TYPE = re.compile(rf"{_TOKEN}(?:/{_TOKEN})?")
_PARAMETER = re.compile(rf'\s*;\s*({_TOKEN})\s*=\s*({_TOKEN}|"(?:[^"\\]|\\.)*")\s*')


def check_json(given: str) -> None:
    """Raises InvalidArgument unless `given` says JSON."""
    kind = given.partition(";")[0].strip().lower()
    problem = _problem(kind, given)
    if problem:
        raise InvalidArgument(f"malformed Content-Type header ({given}): mime: {problem}")
    if kind != "application/json":
        raise InvalidArgument(f"unsupported Content-Type header ({given}): must be 'application/json'")


def _problem(kind: str, given: str) -> str:
    match = _TYPE.match(kind)
    if match is None:
        return "no media type"
    if match[0] != kind:
        if "/" in match[0]:
            return "unexpected content after media subtype"
        return "expected token after slash" if kind[match.end()] == "/" else "expected slash after first token"
    return _parameters_problem(given, given.find(";")) if ";" in given else ""


def _parameters_problem(text: str, at: int) -> str:
    seen: set[str] = set()
    end = len(text.rstrip(" \t;"))
    while at < end:
        match = _PARAMETER.match(text, at)
        if match is None:
            return "invalid media parameter"
        name = match[1].lower()
        if name in seen:
            return "duplicate parameter name"
        seen.add(name)
        at = match.end()
    return ""
