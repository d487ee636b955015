"""`WWW-Authenticate`, RFC 9110 section 11.6.1."""

import re
from typing import NamedTuple

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_SCHEME = re.compile(rf"({_TOKEN})(?:\s|$|(?=,))")
_VALUE = r'[^\s,"][^\s,]*'
_PARAMETER = re.compile(rf"({_TOKEN})\s*=\s*({_QUOTED}|{_VALUE})\s*(?:,|$)")
_MAX = 8192
_HEADERS_MAX = 16


class Challenge(NamedTuple):
    """`scheme` and the names of `parameters` are in lower case."""

    scheme: str
    parameters: dict[str, str]


def parse(headers: list[str]) -> list[Challenge]:
    """The challenges of the `WWW-Authenticate` headers of a reply, of the first 16; what cannot be read is left out."""
    return [challenge for header in headers[:_HEADERS_MAX] if len(header) <= _MAX for challenge in _parse(header)]


def _parse(header: str) -> list[Challenge]:
    found: list[Challenge] = []
    at = 0
    while at < len(header):
        if header[at] in ", \t":
            at += 1
        elif found and (parameter := _PARAMETER.match(header, at)):
            found[-1].parameters[parameter[1].lower()] = _plain(parameter[2])
            at = parameter.end()
        elif scheme := _SCHEME.match(header, at):
            found.append(Challenge(scheme[1].lower(), {}))
            at = scheme.end()
        else:
            return found
    return found


def _plain(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def find(challenges: list[Challenge], scheme: str) -> dict[str, str] | None:
    """The parameters of the first challenge of `scheme`, None when there is none."""
    return next((challenge.parameters for challenge in challenges if challenge.scheme == scheme), None)
