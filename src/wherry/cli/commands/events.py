"""`wherry events`."""

from __future__ import annotations

import time

from wherry.cli.command import FILTER, INSPECT_FORMAT_HELP, Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.rows import filters
from wherry.cli.times import timestamp
from wherry.client.progress import messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session


_EMPTY: dict[str, Any] = {
    "Type": "", "Action": "", "Actor": {"ID": "", "Attributes": {}}, "scope": "", "time": 0, "timeNano": 0,
}  # fmt: skip


def _line(event: dict[str, Any]) -> str:
    """An event as one line: time, type, action, id, attributes."""
    nanoseconds = event.get("timeNano") or event.get("time", 0) * 10**9
    seconds, fraction = divmod(nanoseconds, 10**9)
    moment = time.localtime(seconds)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", moment)
    zone = time.strftime("%z", moment)
    zone = "Z" if zone == "+0000" else f"{zone[:-2]}:{zone[-2:]}"
    actor = event.get("Actor") or {}
    text = f"{stamp}.{fraction:09d}{zone} {event.get('Type', '')} {event.get('Action', '')} {actor.get('ID', '')}"
    attributes = actor.get("Attributes") or {}
    if attributes:
        text += " (" + ", ".join(f"{key}={value}" for key, value in attributes.items()) + ")"
    return text


def _formatter(form: str) -> Callable[[dict[str, Any]], str]:
    """A function that shows an event by a template; raises StatusError where the template fits no event."""
    from wherry.gotemplate import Record, Template, TemplateError

    def show(event: dict[str, Any]) -> str:
        if form == "json":
            return template.execute(event)
        # What old clients know an event by.
        old = {"ID": event.get("id", ""), "Status": event.get("status", ""), "From": event.get("from", "")}
        return template.execute(Record({**event, **old}, "*events.Message"))

    try:
        template = Template("{{json .}}" if form == "json" else form)
        show(_EMPTY)
    except TemplateError as error:
        raise StatusError(f"Error parsing format: {error}", 64) from None
    return show


def _run(session: Session, parsed: Parsed) -> int:
    show = _formatter(parsed["format"]) if parsed["format"] else _line
    query = {flag: timestamp(parsed[flag]) for flag in ("since", "until") if parsed[flag]}
    query.update(filters(parsed["filter"]))
    response = session.engine.request("GET", "/events", query)
    for event in messages(response.pieces()):
        actor = event.get("Actor") or {}
        if attributes := actor.get("Attributes"):
            actor["Attributes"] = {key: attributes[key] for key in sorted(attributes)}
        session.out(f"{show(event)}\n")
    return 0


FLAGS = (
    FILTER,
    Flag("format", "string", INSPECT_FORMAT_HELP),
    Flag("since", "string", "Show all events created since timestamp"),
    Flag("until", "string", "Stream events until this timestamp"),
)
COMMANDS = {"events": Command("[OPTIONS]", _run, FLAGS, most=0)}
