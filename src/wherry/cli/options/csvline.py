"""One line of CSV, as encoding/csv reads it: the syntax inside --mount, --network and --gpus."""

from __future__ import annotations

from wherry.cli.errors import ValueRefused


def split_csv(text: str) -> list[str]:
    """The fields of the line; raises ValueRefused."""
    if not text:
        raise ValueRefused("EOF")
    if '"' not in text:
        return text.split(",")
    fields, at = [], 0
    while at <= len(text):
        field, at = _quoted(text, at + 1) if text[at : at + 1] == '"' else _bare(text, at)
        fields.append(field)
    return fields


def parse_pairs(text: str) -> dict[str, str]:
    """A flag of key=value pairs, as pflag's StringToString reads it; raises ValueRefused."""
    pairs = [text.strip('"')] if text.count("=") == 1 else split_csv(text) if "=" in text else [text]
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueRefused(f"{pair} must be formatted as key=value")
        found[key] = value
    return found


def _bare(text: str, start: int) -> tuple[str, int]:
    end = text.find(",", start)
    end = len(text) if end < 0 else end
    if (at := text.find('"', start, end)) >= 0:
        raise ValueRefused(f'parse error on line 1, column {at + 1}: bare " in non-quoted field')
    return text[start:end], end + 1


def _quoted(text: str, start: int) -> tuple[str, int]:
    parts = []
    while (end := text.find('"', start)) >= 0:
        parts.append(text[start:end])
        after = text[end + 1 : end + 2]
        if after in (",", ""):
            return "".join(parts), end + 2
        if after != '"':
            raise ValueRefused(f'parse error on line 1, column {end + 1}: extraneous or missing " in quoted-field')
        parts.append('"')
        start = end + 2
    raise ValueRefused(f'parse error on line 1, column {len(text) + 1}: extraneous or missing " in quoted-field')
