"""Values of flags: numbers, durations, sizes, with the messages of Go's strconv and of Docker's option types."""

from __future__ import annotations

from wherry.cli.errors import ValueRefused
from wherry.goquote import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))
_DURATION_UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_BASES = {"0x": 16, "0b": 2, "0o": 8}


def parse_bool(text: str) -> bool:
    """strconv.ParseBool."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueRefused(f"strconv.ParseBool: parsing {quote(text)}: invalid syntax")


def is_bool(text: str) -> bool | None:
    """The value of a boolean word, None when it is none."""
    return True if text in _TRUE else False if text in _FALSE else None


def parse_number(text: str, *, bits: int = 64, signed: bool = True, base: int = 0) -> int:
    """strconv.ParseInt or ParseUint; base 0 takes 0x, 0o, 0b and leading-zero octal, as flags do."""
    function = "ParseInt" if signed else "ParseUint"
    digits = text[1:] if signed and text[:1] in ("+", "-") else text
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    try:
        value = _digits(digits, base)
    except ValueError:
        raise ValueRefused(f"strconv.{function}: parsing {quote(text)}: invalid syntax") from None
    value = -value if text[:1] == "-" else value
    if not low <= value <= high:
        raise ValueRefused(f"strconv.{function}: parsing {quote(text)}: value out of range")
    return value


def _digits(digits: str, base: int) -> int:
    if not digits.isascii() or not digits[:1].isalnum() or " " in digits or (base and "_" in digits):
        raise ValueError(digits)
    if base:
        return int(digits, base)
    prefix = _BASES.get(digits[:2].lower())
    if prefix:
        return int(digits[2:], prefix)
    return int(digits, 8 if len(digits) > 1 and digits[0] == "0" else 10)


def parse_duration(text: str) -> int:
    """time.ParseDuration: nanoseconds."""
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0
    if not rest:
        raise ValueRefused(f"time: invalid duration {quote(text)}")
    total = 0
    while rest:
        end = next((i for i, c in enumerate(rest) if c not in "0123456789."), len(rest))
        figure, rest = rest[:end], rest[end:]
        if not figure.strip(".") or figure.count(".") > 1:
            raise ValueRefused(f"time: invalid duration {quote(text)}")
        end = next((i for i, c in enumerate(rest) if c in "0123456789."), len(rest))
        unit, rest = rest[:end], rest[end:]
        if not unit:
            raise ValueRefused(f"time: missing unit in duration {quote(text)}")
        if unit not in _DURATION_UNITS:
            raise ValueRefused(f"time: unknown unit {quote(unit)} in duration {quote(text)}")
        whole, _, fraction = figure.partition(".")
        scale = _DURATION_UNITS[unit]
        total += int(whole or 0) * scale + (int(fraction) * scale // 10 ** len(fraction) if fraction else 0)
    return -total if text[0] == "-" else total


def size_of(text: str, *, kilo: int = 1024) -> int | None:
    """units.RAMInBytes: "1.5g", "10kib", "10 kb" as bytes; None when it is no size."""
    cut = max((text.rfind(c) for c in "0123456789. "), default=-1) if text else -1
    if cut == -1:
        return None
    figure, suffix = text[: cut + 1].removesuffix(" "), text[cut + 1 :].lower()
    if cut + 1 < len(text) and text[cut] == " ":
        figure = text[:cut]
    try:
        value = float(figure) if figure and figure.strip() == figure and "_" not in figure else -1.0
    except ValueError:
        return None
    if value < 0 or value != value or value > 1 << 63:
        return None
    letter, tail = suffix[:1], suffix[1:]
    if suffix == "b" or not suffix:
        return int(value)
    if letter not in "kmgtp" or tail not in ("", "b", "ib"):
        return None
    return int(value * kilo ** ("kmgtp".index(letter) + 1))


def parse_bytes(text: str) -> int:
    """A memory size; zero when empty."""
    size = size_of(text)
    if size is None:
        raise ValueRefused(f"invalid size: '{text}'")
    return size


def parse_swap(text: str) -> int:
    """A memory size, or -1 for unlimited."""
    return -1 if text == "-1" else parse_bytes(text)


def parse_cpus(text: str) -> int:
    """A number of CPUs ("1.5", "3/2") in billionths; refused when a billionth is too coarse for it."""
    numerator, slash, denominator = text.partition("/")
    try:
        top, scale = _decimal(numerator)
        bottom = int(denominator) if slash else 1
    except ValueError:
        raise ValueRefused(f"failed to parse {text} as a rational number") from None
    if bottom <= 0:
        raise ValueRefused(f"failed to parse {text} as a rational number")
    nanos, rest = divmod(top * 10**9, scale * bottom)
    if rest:
        raise ValueRefused("value is too precise")
    return nanos


def _decimal(text: str) -> tuple[int, int]:
    mantissa, _, exponent = text.lower().partition("e")
    whole, dot, fraction = mantissa.partition(".")
    digits = (whole.lstrip("+-") + fraction) if dot else whole.lstrip("+-")
    if not digits.isdigit() or not digits.isascii():
        raise ValueError(text)
    power = (int(exponent) if exponent else 0) - len(fraction)
    if abs(power) > 4000:
        raise ValueError(text)
    value = int(digits) * (-1 if whole[:1] == "-" else 1)
    return (value * 10**power, 1) if power >= 0 else (value, 10**-power)


PARSERS: dict[str, Callable[[str], Any]] = {
    "bool": parse_bool,
    "int": parse_number,
    "int64": parse_number,
    "uint16": lambda text: parse_number(text, bits=16, signed=False),
    "uint64": lambda text: parse_number(text, signed=False),
    "duration": parse_duration,
    "bytes": parse_bytes,
    "decimal": parse_cpus,
}
