"""`wherry container|image|network|volume|system|builder prune`.

With --dry-run nothing is removed. Asked on a terminal, the question comes with the list of what would go, and a yes
removes exactly that: what came to be meanwhile stays.
"""

from __future__ import annotations

from wherry.cli.command import Command, parse_filter
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.rows import filters
from wherry.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session

_WARNING = "WARNING! This will remove "


class Kind:
    """What can be pruned: `name` is the API's path, `key` where the reply lists what went, `title` what comes before
    the list, `warning` what the user is told first."""

    __slots__ = ("key", "name", "title", "warning")

    def __init__(self, name: str, key: str, title: str, warning: str) -> None:
        self.name, self.key, self.title, self.warning = name, key, title, warning

    def ask_for(
        self, session: Session, given: list[str], *, dry_run: bool = False, after_containers: bool = False
    ) -> Reply:
        """POST /{name}/prune with `given` --filter values; a dry run may be one of what comes after the containers."""
        query = filters(given)
        if dry_run:
            query |= {"dry-run": "1", **({"after-containers": "1"} if after_containers else {})}
        answer = session.engine.json("POST", f"/{self.name}/prune", query)
        return Reply(self, answer)


class Reply:
    """What went, or would go."""

    def __init__(self, kind: Kind, answer: dict[str, Any]) -> None:
        self.kind = kind
        self.items: list[Any] = answer.get(kind.key) or []
        self.reclaimed: int = answer.get("SpaceReclaimed", 0)

    def text(self, *, dry_run: bool = False) -> str:
        """The list under its title; "" when it is empty."""
        if not self.items:
            return ""
        lines = "".join(f"{line}\n" for item in self.items for line in _lines(item))
        title = self.kind.title
        return f"{'Would delete' + title.removeprefix('Deleted') if dry_run else title}\n{lines}\n"

    def ids(self) -> list[str]:
        """Filters that mean exactly these objects."""
        found = [item.get("Deleted") if isinstance(item, dict) else item for item in self.items]
        return [f"id={item}" for item in found if item]


def _lines(item: Any) -> list[str]:
    if isinstance(item, str):
        return [item]
    words = (("Untagged", "untagged"), ("Deleted", "deleted"))
    return [f"{shown}: {item[key]}" for key, shown in words if item.get(key)]


CONTAINERS = Kind(
    "containers", "ContainersDeleted", "Deleted Containers:", f"{_WARNING}all stopped containers.\n"
)  # fmt: skip
NETWORKS = Kind(
    "networks", "NetworksDeleted", "Deleted Networks:",
    f"{_WARNING}all custom networks not used by at least one container.\n",
)  # fmt: skip
VOLUMES = Kind(
    "volumes", "VolumesDeleted", "Deleted Volumes:",
    f"{_WARNING}anonymous local volumes not used by at least one container.\n",
)  # fmt: skip
IMAGES = Kind("images", "ImagesDeleted", "Deleted Images:", f"{_WARNING}all dangling images.\n")
CACHE = Kind(
    "build", "CachesDeleted", "Deleted build cache objects:", f"{_WARNING}all dangling build cache. "
)  # fmt: skip
_ALL_IMAGES = f"{_WARNING}all images without at least one container associated to them.\n"
_ALL_VOLUMES = f"{_WARNING}all local volumes not used by at least one container.\n"
_ALL_CACHE = f"{_WARNING}all build cache. "


def _one(kind: Kind) -> Callable[[Session, Parsed], int]:
    def run(session: Session, parsed: Parsed) -> int:
        given, warning = _given(session, kind, parsed), kind.warning
        if "all" in parsed.changed and parsed["all"]:
            warning = {"images": _ALL_IMAGES, "volumes": _ALL_VOLUMES, "build": _ALL_CACHE}[kind.name]
        return _prune(session, parsed, [(kind, given)], warning)

    return run


def _given(session: Session, kind: Kind, parsed: Parsed) -> list[str]:
    """The filters: the user's, the configuration's pruneFilters, and what --all means."""
    given = [*parsed["filter"], *_configured(session, parsed["filter"])]
    if kind is IMAGES:
        given.append(f"dangling={'false' if parsed['all'] else 'true'}")
    if kind is VOLUMES and parsed["all"]:
        if any(text.startswith("all=") for text in given):
            raise StatusError("conflicting options: cannot specify both --all and --filter all=1")
        given.append("all=true")
    return given


def _configured(session: Session, given: list[str]) -> list[str]:
    """`pruneFilters` of the client configuration, without those that contradict the command line."""
    found = session.config.settings.get("pruneFilters") or []
    opposite = {text.replace("label!=", "label=", 1) for text in given if text.startswith("label!=")}
    opposite |= {text.replace("label=", "label!=", 1) for text in given if text.startswith("label=")}
    return [parse_filter(text) for text in found if text not in opposite]


def _prune(session: Session, parsed: Parsed, wanted: list[tuple[Kind, list[str]]], warning: str) -> int:
    if parsed["dry-run"]:
        if not session.engine.is_wherry():  # others would ignore the parameter, and delete
            raise StatusError("the engine does not know --dry-run")
        return _show(session, _would_go(session, wanted))
    if not parsed["force"]:
        wanted = _confirmed(session, wanted, warning)
        if not wanted:
            return 0
    reclaimed = 0
    for kind, given in wanted:
        reply = kind.ask_for(session, given)
        session.out(reply.text())
        reclaimed += reply.reclaimed
    if any(kind is not NETWORKS for kind, _ in wanted):
        session.out(f"Total reclaimed space: {human_size(reclaimed)}\n")
    return 0


def _would_go(session: Session, wanted: list[tuple[Kind, list[str]]]) -> list[Reply]:
    """What a prune of all kinds would remove, containers first."""
    after = wanted[0][0] is CONTAINERS
    return [
        kind.ask_for(session, given, dry_run=True, after_containers=after and kind is not CONTAINERS)
        for kind, given in wanted
    ]


def _show(session: Session, replies: list[Reply]) -> int:
    session.out("".join(reply.text(dry_run=True) for reply in replies))
    if any(reply.kind is not NETWORKS for reply in replies):
        session.out(f"Total reclaimable space: {human_size(sum(reply.reclaimed for reply in replies))}\n")
    return 0


def _confirmed(session: Session, wanted: list[tuple[Kind, list[str]]], warning: str) -> list[tuple[Kind, list[str]]]:
    """Ask; what is wanted after the answer, nothing after a no."""
    from os import isatty

    if isatty(0) and session.engine.is_wherry():
        session.out(warning.rstrip("\n") + "\n")
        replies = _would_go(session, wanted)
        session.out("\n" + "".join(reply.text(dry_run=True) for reply in replies))
        if not any(reply.items for reply in replies):
            return []
        pairs = zip(wanted, replies, strict=True)
        wanted = [(kind, given + reply.ids()) for (kind, given), reply in pairs if reply.items]
        warning = ""
    session.out(f"{warning}Are you sure you want to continue? [y/N] ")
    answer = _read_line().strip().lower()
    return wanted if answer in ("y", "yes") else []


def _read_line() -> str:
    from sys import stdin

    return stdin.readline()


def _system(session: Session, parsed: Parsed) -> int:
    if parsed["volumes"] and any(text.startswith("until=") for text in parsed["filter"]):
        raise StatusError('ERROR: The "until" filter is not supported with "--volumes"')
    kinds = [CONTAINERS, NETWORKS, *([VOLUMES] if parsed["volumes"] else []), IMAGES, CACHE]
    configured = [*parsed["filter"], *_configured(session, parsed["filter"])]
    dangling = f"dangling={'false' if parsed['all'] else 'true'}"
    wanted = [(kind, [*configured, dangling] if kind is IMAGES else configured) for kind in kinds]
    return _prune(session, parsed, wanted, _system_warning(parsed, configured))


def _system_warning(parsed: Parsed, given: list[str]) -> str:
    items = ["all stopped containers", "all networks not used by at least one container"]
    if parsed["volumes"]:
        items.append("all anonymous volumes not used by at least one container")
    if parsed["all"]:
        items += ["all images without at least one container associated to them", "all build cache"]
    else:
        items += ["all dangling images", "unused build cache"]
    text = "WARNING! This will remove:\n" + "".join(f"  - {item}\n" for item in items) + "\n"
    if given:
        text += "  Items to be pruned will be filtered with:\n"
        text += "".join(f"  - {item}\n" for item in sorted(given)) + "\n"
    return text


_FILTER = Flag("filter", "filter", 'Provide filter values (e.g. "until=<timestamp>")', parse=parse_filter)
_LABEL_FILTER = Flag("filter", "filter", 'Provide filter values (e.g. "label=<label>")', parse=parse_filter)
_SYSTEM_FILTER = Flag("filter", "filter", 'Provide filter values (e.g. "label=<key>=<value>")', parse=parse_filter)
_CACHE_FILTER = Flag("filter", "filter", 'Provide filter values (e.g. "until=24h")', parse=parse_filter)
_FORCE = Flag("force", "bool", "Do not prompt for confirmation", short="f")
_DRY_RUN = Flag("dry-run", "bool", "Show what would be removed, and remove nothing")
_USAGE = "[OPTIONS]"


def _all(text: str) -> Flag:
    return Flag("all", "bool", text, short="a")


COMMANDS = {
    "container": Command(_USAGE, _one(CONTAINERS), (_DRY_RUN, _FILTER, _FORCE), most=0),
    "network": Command(_USAGE, _one(NETWORKS), (_DRY_RUN, _FILTER, _FORCE), most=0),
    "image": Command(
        _USAGE,
        _one(IMAGES),
        (_all("Remove all unused images, not just dangling ones"), _DRY_RUN, _FILTER, _FORCE),
        most=0,
    ),
    "volume": Command(
        _USAGE,
        _one(VOLUMES),
        (_all("Remove all unused volumes, not just anonymous ones"), _DRY_RUN, _LABEL_FILTER, _FORCE),
        most=0,
    ),
    "builder": Command(
        _USAGE,
        _one(CACHE),
        (_all("Remove all unused build cache, not just dangling ones"), _DRY_RUN, _CACHE_FILTER, _FORCE),
        most=0,
    ),
    "system": Command(
        _USAGE,
        _system,
        (
            _all("Remove all unused images not just dangling ones"),
            _DRY_RUN,
            _SYSTEM_FILTER,
            _FORCE,
            Flag("volumes", "bool", "Prune anonymous volumes"),
        ),
        most=0,
    ),
}
