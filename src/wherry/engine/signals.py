"""Signals as the Docker API names them: TERM, SIGTERM, 15, RTMIN+3."""

import signal

from wherry.errors import InvalidArgument

_NAMES = {s.name.removeprefix("SIG"): int(s) for s in signal.Signals}
_RTMIN, _RTMAX = int(signal.SIGRTMIN), int(signal.SIGRTMAX)
_LAST = 64


def parse_signal(text: str) -> int:
    """The number of a signal given by name (any case, with or without SIG) or number; raises `InvalidArgument`."""
    bare = text.strip().upper().removeprefix("SIG")
    if bare.isascii() and bare.isdigit():
        number = int(bare)
        if number > 0:
            return number
        raise InvalidArgument(f"invalid signal: {text}")
    number = _NAMES.get(bare, 0) or _realtime(bare)
    if not number:
        raise InvalidArgument(f"invalid signal: {text}")
    return number


def signal_name(number: int) -> str:
    """SIGTERM, or SIG35 for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def deliverable(number: int) -> bool:
    """Whether the kernel has such a signal."""
    return 0 < number <= _LAST


def _realtime(bare: str) -> int:
    for prefix, base, sign in (("RTMIN+", _RTMIN, 1), ("RTMAX-", _RTMAX, -1)):
        offset = bare.removeprefix(prefix)
        if offset != bare and offset.isascii() and offset.isdigit():
            number = base + sign * int(offset)
            return number if _RTMIN <= number <= _RTMAX else 0
    return 0
