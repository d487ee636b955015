"""Files that options name: --env-file, --label-file, seccomp profiles."""

from __future__ import annotations

import os

from wherry.cli.errors import StatusError
from wherry.goquote import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SPACE = " \t\n\v\f\r\u0085\u00a0"


def read_environment(files: list[str], given: list[str]) -> list[str]:
    """The variables of the files, then those given; a name alone takes the client's value or is left out."""
    lines = [line for path in files for line in _key_values(path, "env", _from_client)]
    return lines + given


def read_labels(files: list[str], given: list[str]) -> dict[str, str]:
    """The labels of the files, overridden by those given; Docker leaves out a file's names without a value."""
    lines = [line for path in files for line in _key_values(path, "label", lambda _: None)]
    return dict(line.partition("=")[::2] for line in lines + given)


def _from_client(name: str) -> str | None:
    return f"{name}={os.environ[name]}" if name in os.environ else None


def _key_values(path: str, what: str, bare: Callable[[str], str | None]) -> list[str]:
    data = read_file(path)
    found = []
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            line = raw.removesuffix(b"\r").decode().lstrip(_SPACE)
        except UnicodeDecodeError:
            raise StatusError(f"invalid {what} file ({path}): invalid utf8 bytes at line {number}", 125) from None
        if not line or line[0] == "#":
            continue
        name, equals, _ = line.partition("=")
        if not name:
            raise StatusError(f"invalid {what} file ({path}): no variable name on line '{line}'", 125)
        if " " in name or "\t" in name:
            raise StatusError(f"invalid {what} file ({path}): variable '{name}' contains whitespaces", 125)
        value = line if equals else bare(name)
        if value is not None:
            found.append(value)
    return found


def read_file(path: str) -> bytes:
    """The bytes of a file; raises StatusError as Go words it."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise StatusError(f"open {path}: {go_error(error)}", 125) from None


def go_error(error: OSError) -> str:
    """The reason of a system error in Go's spelling (lower case)."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]


def security_options(options: list[str]) -> tuple[list[str] | None, bool]:
    """--security-opt as (what the engine gets, None when none was given; whether system paths are unconfined)."""
    found = [_security_option(option) for option in options]
    kept = [option for option in found if option != "systempaths=unconfined"]
    return (kept if options else None), len(kept) < len(found)


def _security_option(option: str) -> str:
    key, equals, value = option.partition("=")
    if not equals and key != "no-new-privileges":
        key, colon, value = option.partition(":")
        if not colon:
            raise StatusError(f"Invalid --security-opt: {quote(option)}", 125)
    if key != "seccomp" or value in ("unconfined", "builtin"):
        return option
    try:
        profile = read_file(value)
    except StatusError as error:
        raise StatusError(f"opening seccomp profile ({value}) failed: {error}", 125) from None
    from wherry.jsontext import dumps, loads

    try:
        return f"seccomp={dumps(loads(profile), html=False)}"
    except ValueError as error:
        raise StatusError(f"compacting json for seccomp profile ({value}) failed: {error}", 125) from None
