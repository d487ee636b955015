"""Regular expressions that come from clients: in the syntax of Go, searched in time linear in the text. Python's own
backtrack, for years if somebody wants it, and hold everything up meanwhile.
"""

from collections.abc import Callable
from functools import lru_cache

_SPECIAL = frozenset("\\.+*?()|[]{}^$")

# What re2 says, and Go.
_ERRORS = {
    "missing )": "missing closing )",
    "missing ]": "missing closing ]",
    "no argument for repetition operator": "missing argument to repetition operator",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid repetition size": "invalid repeat count",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "trailing \\": "trailing backslash at end of expression",
}


@lru_cache(64)
def compile_search(pattern: str) -> Callable[[str], bool]:
    """A function that says whether `pattern` is found in a text. Raises ValueError in Go's words."""
    if _SPECIAL.isdisjoint(pattern):
        return lambda text: pattern in text
    import re2  # megabytes, for the few who need it

    quiet = re2.Options()
    quiet.log_errors = False
    try:
        compiled = re2.compile(_bytes(pattern), options=quiet)
    except re2.error as error:
        reason, _, what = error.args[0].decode("utf-8", "replace").partition(": ")
        raise ValueError(f"error parsing regexp: {_ERRORS.get(reason, reason)}: `{what}`") from None
    return lambda text: compiled.search(_bytes(text)) is not None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
