"""Names of containers, images, networks, volumes and contexts, asked of the engine while the user waits.

An engine that does not answer at once costs the user no more than a moment: then there are no names.
"""

from __future__ import annotations

import signal

from wherry.cli.errors import StatusError
from wherry.client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType
    from typing import Any

    from wherry.cli.session import Session

PATIENCE = 2.0
"""Seconds that an engine may take for all that one completion asks."""

_RUNNING = ("running", "paused", "restarting")
# Which containers a verb is for, by state; all of them where it names none.
_CONTAINERS: dict[str, tuple[str, ...]] = {
    "attach": _RUNNING, "commit": (), "diff": (), "exec": ("running",), "export": (), "inspect": (), "kill": _RUNNING,
    "logs": (), "pause": ("running",), "port": (), "rename": (), "restart": (), "rm": (), "stats": (),
    "start": ("created", "exited"), "stop": _RUNNING, "top": ("running", "paused"), "unpause": ("paused",),
    "update": (), "wait": (),
}  # fmt: skip
# These take one object and then something else.
_ONE = ("attach", "commit", "diff", "exec", "export", "logs", "port", "rename", "top")


class _OutOfTime(Exception):
    pass


def _alarm(_number: int, _frame: FrameType | None) -> None:
    raise _OutOfTime


def ask(session: Session, path: str, query: dict[str, str] | None = None) -> Any:
    """The engine's JSON for GET `path`; None when it refuses, is not there or takes too long."""
    previous = signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        return session.engine.json("GET", path, query)
    except (ClientError, StatusError, OSError, ValueError, _OutOfTime):
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def containers(session: Session, states: Sequence[str] = ()) -> list[str]:
    """Names of containers, those in one of the states if any is named."""
    found = ask(session, "/containers/json", {"all": "1"}) or []
    return [
        name.removeprefix("/")
        for each in found
        if not states or each.get("State") in states
        for name in (each.get("Names") or [])[:1]
    ]


def images(session: Session) -> list[str]:
    """Tags, and the names alone of what is tagged latest."""
    tags = [tag for each in ask(session, "/images/json") or [] for tag in each.get("RepoTags") or []]
    return sorted({*tags, *(tag.removesuffix(":latest") for tag in tags)} - {"<none>:<none>"})


def networks(session: Session) -> list[str]:
    return sorted(each["Name"] for each in ask(session, "/networks") or [])


def volumes(session: Session) -> list[str]:
    return sorted(each["Name"] for each in (ask(session, "/volumes") or {}).get("Volumes") or [])


def contexts(session: Session) -> list[str]:
    """The stored contexts and the default one."""
    try:
        return sorted({"default", *(str(each.get("Name")) for each in session.config.contexts())})
    except ClientError:
        return ["default"]


_KINDS: dict[str, Callable[[Session], list[str]]] = {
    "container": containers, "image": images, "network": networks, "volume": volumes, "context": contexts,
}  # fmt: skip


def for_argument(session: Session, path: str, before: Sequence[str], kind: str) -> list[str] | None:
    """What may be the next argument of the command `path` after those `before`; None for a file's name.

    `kind` is what `inspect --type` asks for.
    """
    group, _, verb = path.partition(" ")
    if path in ("container run", "container create"):
        return None if before else images(session)
    if path == "container cp":
        return [f"{name}:" for name in containers(session)] if len(before) < 2 else []
    if group == "container":
        if verb not in _CONTAINERS or (verb in _ONE and before):
            return None if verb == "exec" else []
        return containers(session, _CONTAINERS[verb])
    if path == "inspect":
        return [
            name for each in ([kind] if kind else list(_KINDS)[:4]) if each in _KINDS for name in _KINDS[each](session)
        ]
    if path in ("login", "logout"):
        return [] if before else registries(session)
    if group == "manifest":
        return manifests_of(session, before[0]) if verb in ("annotate", "inspect") and len(before) == 1 else []
    return _others(session, group, verb, before)


def manifests_of(session: Session, name: str) -> list[str]:
    """The manifests on a list that is being made."""
    from wherry.cli.references import parse
    from wherry.client import manifests

    try:
        found = manifests.entries(session.config, parse(name).with_default_tag().full)
    except (ClientError, StatusError):
        return []
    return [each["Ref"] for each in found or []]


def registries(session: Session) -> list[str]:
    """The registries for which the configuration has credentials."""
    from wherry.client.credentials import INDEX, hostname, servers

    return sorted({hostname(server) for server in servers(session.config) if not server.startswith(INDEX)})


def _others(session: Session, group: str, verb: str, before: Sequence[str]) -> list[str] | None:
    if (group, verb) in (("image", "load"), ("image", "import"), ("image", "from-host")):
        return None
    if (group, verb) == ("image", "bootstrap"):
        return []
    if (group, verb) in (("context", "import"), ("context", "export")) and before:
        return None
    if (group, verb) in (("network", "connect"), ("network", "disconnect")) and before:
        return containers(session) if len(before) == 1 else []
    single = (group, verb) in (("image", "history"), ("image", "tag"), ("context", "use"), ("context", "update"))
    single = single or (group, verb) in (("image", "pull"), ("image", "push"))
    if verb in ("create", "prune", "import", "show") or group not in _KINDS or (single and before):
        return []
    return _KINDS[group](session)
