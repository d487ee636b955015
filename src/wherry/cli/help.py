"""--help, laid out as Docker's: usage, summary, aliases, flags wrapped to the terminal."""

from __future__ import annotations

import os

from wherry.cli.errors import StatusError
from wherry.cli.registry import BY_NAME, COMMANDS, COMMON, GROUPS, HIDDEN, depth_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wherry.cli.flags import Flag
    from wherry.cli.registry import Entry


# What cobra gives the column of names: 11 and a space.
_COLUMN = 11


def render(words: Sequence[str], global_flags: Iterable[Flag]) -> str:
    """The help of the command or group named by `words`; of the whole program when empty. Raises StatusError."""
    if not words:
        return _program(global_flags)
    depth = depth_of(words)
    name = " ".join(words[:depth])
    known = name in BY_NAME or name in GROUPS
    if not known or words[depth:]:
        raise StatusError(f"unknown help topic: {' '.join(words[depth if known else depth - 1 :])}")
    if name in BY_NAME:
        entry = BY_NAME[name]
        return _command(entry.path if depth > 1 else name, entry)
    return _group(name)


def _command(name: str, entry: Entry) -> str:
    command = entry.load()
    parts = [f"Usage:  wherry {name} {command.usage}".rstrip(), command.long or entry.summary]
    if len(entry.aliases) > 1:
        parts.append("Aliases:\n  " + ", ".join(f"wherry {alias}" for alias in entry.aliases))
    if flags := _flags(command.flags):
        parts.append(f"Options:\n{flags}")
    return "\n\n".join(parts) + "\n"


def _group(name: str) -> str:
    listed = {entry.path: entry.summary for entry in COMMANDS if entry.path not in HIDDEN} | GROUPS
    rows = [(path.rpartition(" ")[2], listed[path]) for path in sorted(listed) if path.rpartition(" ")[0] == name]
    return (
        f"Usage:  wherry {name} COMMAND\n\n{GROUPS[name]}\n\nCommands:\n{_rows(rows)}\n\n"
        f"Run 'wherry {name} COMMAND --help' for more information on a command.\n"
    )


def _rows(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"  {name:{_COLUMN}} {summary}" for name, summary in rows)


def _program(global_flags: Iterable[Flag]) -> str:
    short = {alias: entry.summary for entry in COMMANDS for alias in entry.aliases if " " not in alias}
    rest = sorted((name, text) for name, text in short.items() if name not in (*COMMON, *HIDDEN))
    sections = [
        ("Common Commands", [(name, short[name]) for name in COMMON]),
        ("Management Commands", sorted(item for item in GROUPS.items() if " " not in item[0])),
    ]
    if not os.environ.get("DOCKER_HIDE_LEGACY_COMMANDS"):
        sections.append(("Commands", rest))
    listed = "\n\n".join(f"{title}:\n{_rows(rows)}" for title, rows in sections)
    return (
        "Usage:  wherry [OPTIONS] COMMAND\n\nA container engine you can pip install\n\n"
        f"{listed}\n\nGlobal Options:\n{_flags(global_flags)}\n\n"
        "Run 'wherry COMMAND --help' for more information on a command.\n"
    )


def _flags(flags: Iterable[Flag]) -> str:
    """pflag's FlagUsagesWrapped, one column less than the terminal."""
    shown = sorted((flag for flag in flags if not flag.hidden), key=lambda flag: flag.name)
    heads = []
    for flag in shown:
        head = f"  -{flag.short}, --{flag.name}" if flag.short else f"      --{flag.name}"
        heads.append(head if flag.kind == "bool" else f"{head} {_word(flag)}")
    column = max((len(head) for head in heads), default=0) + 1
    lines = []
    for head, flag in zip(heads, shown, strict=True):
        usage = flag.usage + (f" (default {flag.shown})" if flag.shown else "")
        lines.append(head + " " * (column - len(head) + 2) + wrap(usage, column + 2, _columns() - 1))
    return "\n".join(lines)


def _word(flag: Flag) -> str:
    return {"int64": "int", "uint64": "uint"}.get(flag.word, flag.word)


def _columns() -> int:
    try:
        return os.get_terminal_size(0).columns or 80
    except OSError:
        return 80


def wrap(text: str, indent: int, width: int) -> str:
    """Wrap to `width` columns with a hanging indent, as pflag does: a line may run over by five."""
    room = width - indent
    start = ""
    if room < 24:
        indent = 16
        room = width - indent
        start = "\n" + " " * indent
    margin = "\n" + " " * indent
    if room < 24:
        return text.replace("\n", margin)
    line, rest = _cut(room - 5, text)
    wrapped = start + line.replace("\n", margin)
    while rest:
        line, rest = _cut(room - 5, rest)
        wrapped += margin + line.replace("\n", margin)
    return wrapped


def _cut(width: int, text: str) -> tuple[str, str]:
    if width + 5 > len(text):
        return text, ""
    at = max(text.rfind(c, 0, width) for c in " \t\n")
    if at <= 0:
        return text, ""
    newline = text.rfind("\n", 0, width)
    if 0 < newline < at:
        at = newline
    return text[:at], text[at + 1 :]
