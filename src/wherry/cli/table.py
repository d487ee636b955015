"""Aligned columns with the rules of Go's text/tabwriter: a column ends where a line has no more cells."""

from __future__ import annotations

_MINIMUM, _PADDING = 10, 3


def align(text: str, minimum: int = _MINIMUM, padding: int = _PADDING) -> str:
    """Replace the tabs of `text` by spaces. The last cell of a line belongs to no column."""
    if "\t" not in text:
        return text
    lines = [line.split("\t") for line in text.split("\n")]
    widths: list[list[int]] = [[] for _ in lines]
    _measure(lines, widths, 0, len(lines), 0, minimum, padding)
    return "\n".join(
        "".join(f"{cell:{width}}" for cell, width in zip(cells, row, strict=False)) + cells[-1]
        for cells, row in zip(lines, widths, strict=True)
    )


def _measure(
    lines: list[list[str]], widths: list[list[int]], start: int, end: int, column: int, minimum: int, padding: int
) -> None:
    """Set the width of `column` for each block of neighbouring lines that have it, then of the columns inside."""
    at = start
    while at < end:
        if len(lines[at]) - 1 <= column:
            at += 1
            continue
        last = at
        while last < end and len(lines[last]) - 1 > column:
            last += 1
        width = max(minimum, max(len(lines[index][column]) for index in range(at, last)) + padding)
        for index in range(at, last):
            widths[index].append(width)
        _measure(lines, widths, at, last, column + 1, minimum, padding)
        at = last
