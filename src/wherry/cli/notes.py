"""Notes to the user, set off from a command's output as Docker sets them off: coloured at a terminal."""

from __future__ import annotations

import os

from wherry.cli.session import write_all

_BOLD, _BLACK, _ITALIC, _UNDERLINE, _PLAIN = "\x1b[1m", "\x1b[30m", "\x1b[3m", "\x1b[4m", "\x1b[0m"
_CYAN, _YELLOW = ("\x1b[106m", "\x1b[96m"), ("\x1b[103m", "\x1b[93m")  # behind text, and of text
_MARGIN = " " * 9  # as wide as what stands before the first line


def note(fd: int, text: str) -> None:
    """Tell of something worth knowing."""
    _write(fd, "Info", _CYAN, text)


def warning(fd: int, text: str) -> None:
    """Tell of something to mind."""
    _write(fd, "Warn", _YELLOW, text)


def _write(fd: int, word: str, colours: tuple[str, str], text: str) -> None:
    lines = text.split("\n")
    header = f" {word} -> "
    if os.isatty(fd):
        behind, coloured = colours
        letter = f"{_BOLD}{behind}{_BLACK}{word[0].lower()}{_PLAIN}{_PLAIN}"
        header = f"{letter} {coloured}{word} → {_PLAIN}{_PLAIN}"
        lines = [f"{_ITALIC}{_emphasised(line)}{_PLAIN}" for line in lines]
    shown = "".join(f"{_MARGIN if number else header}{line}\n" for number, line in enumerate(lines))
    write_all(fd, f"\n{shown}".encode("utf-8", "surrogateescape"))


def _emphasised(line: str) -> str:
    """The line with its flags and addresses made to stand out."""
    line = line.replace("--platform", f"{_BOLD}--platform{_PLAIN}")
    before, https, address = line.partition("https://")
    return f"{before}{_UNDERLINE}{https}{address}{_PLAIN}" if https else line
