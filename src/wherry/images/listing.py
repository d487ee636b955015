"""Which images a list shows: Docker's filters (its `daemon/images/images.go`), pure but for looking images up."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import msgspec

from wherry.errors import InvalidArgument
from wherry.images import durations
from wherry.images.records import Image, chain_ids

Filters = Mapping[str, list[str]]

ACCEPTED = ("dangling", "label", "label!", "before", "since", "reference", "until")
_TRUE = ("1", "true")
_FALSE = ("0", "false")


def check_filters(filters: Filters) -> None:
    """Raise `InvalidArgument` for a filter that does not exist."""
    for key in filters:
        if key not in ACCEPTED:
            raise InvalidArgument(f"invalid filter '{key}'")


def _dangling(filters: Filters) -> bool | None:
    values = filters.get("dangling")
    if not values:
        return None
    if len(values) == 1 and values[0].lower() in _TRUE:
        return True
    if len(values) == 1 and values[0].lower() in _FALSE:
        return False
    raise InvalidArgument(f"invalid filter 'dangling=[{' '.join(values)}]'")


def matches_labels(labels: Mapping[str, str], wanted: Iterable[str]) -> bool:
    """Whether `labels` has all of `wanted`, each `key` or `key=value`."""
    for item in wanted:
        key, equals, value = item.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A shell pattern of Go's path.Match: `*` and `?` stop at slashes. Raises `InvalidArgument` when malformed."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            piece, at = _class(pattern, at + 1)
            out.append(piece)
            continue
        else:
            if char == "\\":
                at += 1
                if at >= len(pattern):
                    raise InvalidArgument("syntax error in pattern")
            out.append(re.escape(pattern[at]))
        at += 1
    return re.compile("".join(out), re.DOTALL)


def _class(pattern: str, at: int) -> tuple[str, int]:
    """A character class whose `[` was at `at - 1`, as a regular expression, and where the pattern goes on."""
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[str] = []
    while at < len(pattern) and (pattern[at] != "]" or not ranges):
        low, at = _class_char(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _class_char(pattern, at + 1)
        if high >= low:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        elif not ranges:
            ranges.append("")
    if at >= len(pattern) or not ranges:
        raise InvalidArgument("syntax error in pattern")
    body = "".join(ranges)
    if not body:
        return ("[^/]" if negated else "(?!)"), at + 1
    return f"[{'^' if negated else ''}{body}]", at + 1


def _class_char(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at : at + 1] == "\\":
        at += 1
    if at >= len(pattern) or (pattern[at] in "-]" and pattern[at - 1 : at] != "\\"):
        raise InvalidArgument("syntax error in pattern")
    return pattern[at], at + 1


def _name_matches(familiar: str, patterns: list[re.Pattern[str]]) -> bool:
    name = familiar.partition("@")[0]
    slash = name.rfind("/")
    colon = name.find(":", slash + 1)
    name = name[:colon] if colon > 0 else name
    return any(p.fullmatch(familiar) or p.fullmatch(name) for p in patterns)


class _Period:
    """What before, since and until leave: created after `since` and before `before`, in ns; None is no bound."""

    def __init__(self, filters: Filters, find: Callable[[str], Image]) -> None:
        now = time.time_ns()
        before = [find(ref).created_ns for ref in filters.get("before", [])]
        before += [durations.parse_timestamp(text, now) for text in filters.get("until", [])]
        since = [find(ref).created_ns for ref in filters.get("since", [])]
        self._before = min(before, default=None)
        self._since = max(since, default=None)

    def has(self, moment: int) -> bool:
        return (self._before is None or moment < self._before) and (self._since is None or moment > self._since)


def select(
    images: list[Image],
    *,
    show_all: bool,
    filters: Filters,
    find: Callable[[str], Image],
    parents: set[str],
) -> list[Image]:
    """The images of a list, newest first, with only the names a reference filter lets through.

    `find` resolves a name or id (for before and since); `parents` are the ids that some image has as its parent.
    Raises `InvalidArgument` for filters that do not exist or have nonsense values, what `find` raises.
    """
    check_filters(filters)
    dangling = _dangling(filters)
    period = _Period(filters, find)
    patterns = [compile_pattern(pattern) for pattern in filters.get("reference", [])]
    chosen = []
    for image in images:
        if not period.has(image.created_ns) or not _labels_fit(image, filters):
            continue
        if dangling and image.id in parents:
            continue
        if patterns:
            image = _with_names(image, patterns)
        if _is_shown(image, dangling, bool(patterns), show_all or image.id not in parents):
            chosen.append(image)
    return sorted(chosen, key=lambda image: image.created_ns, reverse=True)


def _labels_fit(image: Image, filters: Filters) -> bool:
    if filters.get("label") and not matches_labels(image.labels, filters["label"]):
        return False
    return not (filters.get("label!") and matches_labels(image.labels, filters["label!"]))


def _with_names(image: Image, patterns: list[re.Pattern[str]]) -> Image:
    return msgspec.structs.replace(
        image,
        repo_tags=[name for name in image.repo_tags if _name_matches(name, patterns)],
        repo_digests=[name for name in image.repo_digests if _name_matches(name, patterns)],
    )


def _is_shown(image: Image, dangling: bool | None, by_name: bool, visible_untagged: bool) -> bool:
    if not image.repo_tags and not image.repo_digests:
        return visible_untagged and dangling is not False and not by_name
    return not (dangling and image.repo_tags)


def with_shared_size(images: list[Image], layer_sizes: Mapping[str, int]) -> list[Image]:
    """The images with `shared_size`: the bytes of those of their layers that another of them has in the same place.
    `layer_sizes` maps diffIDs to bytes."""
    chains = {image.id: chain_ids(image.diff_ids) for image in images}
    users = Counter(chain for image in images for chain in set(chains[image.id]))
    result = []
    for image in images:
        pairs = zip(chains[image.id], image.diff_ids, strict=True)
        shared = sum(layer_sizes.get(diff_id, 0) for chain, diff_id in pairs if users[chain] > 1)
        result.append(msgspec.structs.replace(image, shared_size=shared))
    return result
