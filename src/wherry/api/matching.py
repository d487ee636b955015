"""How filters match: names and ids by regular expression, labels by key or key and value."""

from collections.abc import Mapping

from wherry.engine.regex import compile_search


def search(pattern: str, value: str) -> bool:
    """The same, or found by the regular expression; a broken expression matches nothing."""
    try:
        return pattern == value or compile_search(pattern)(value)
    except ValueError:
        return False


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """`key` or `key=value`."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
