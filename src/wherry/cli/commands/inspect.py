"""`wherry inspect` and its relatives for one kind of object."""

from __future__ import annotations

from wherry.cli.command import INSPECT_FORMAT, Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.client.engine import quote
from wherry.client.errors import APIError
from wherry.jsontext import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session

    Lookup = Callable[[Session, str, dict[str, str]], Any]

_PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
}
# Asked for only by --type: what belongs to swarms and plugins, which the engine refuses with its reason.
_FOREIGN = {
    "config": "/configs/{}",
    "node": "/nodes/{}",
    "plugin": "/plugins/{}/json",
    "secret": "/secrets/{}",
    "service": "/services/{}",
    "task": "/tasks/{}",
}
_TYPES = ("config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume")


def _get(session: Session, kind: str, name: str, query: dict[str, str]) -> Any:
    if not name.strip():
        raise StatusError("Error: No such image:" if kind == "image" else f"invalid {kind} name or ID: value is empty")
    own = query if kind in ("container", "image", "network") else {}
    path = _PATHS.get(kind) or _FOREIGN[kind]
    return session.engine.json("GET", path.format(quote(name, "/:@")), own)


def _any(session: Session, name: str, query: dict[str, str]) -> tuple[str, Any]:
    """The first object of any kind with this name or id, and its kind."""
    for kind in _PATHS:
        try:
            return kind, _get(session, kind, name, query if kind == "container" else {})
        except APIError as error:
            if error.status not in (404, 400, 503):
                raise
    raise StatusError(f"Error: No such object: {name}")


def report(session: Session, names: list[str], form: str, lookup: Callable[[str], Any], *, html: bool = False) -> int:
    """Inspect every name: JSON together or a template each; failures are told at the end."""
    from wherry.gotemplate import Template, TemplateError

    template = None
    if form not in ("", "json"):
        try:
            template = Template(form)
        except TemplateError as error:
            raise StatusError(f"template parsing error: {error}", 64) from None
    found, lines, failures = [], [], []
    for name in names:
        try:
            value = lookup(name)
            if template:
                lines.append(template.execute(value) + "\n")
            found.append(value)
        except (APIError, StatusError) as error:
            failures.append(str(error))
        except TemplateError as error:
            failures.append(f"template parsing error: {error}")
    if template:
        session.out("".join(lines) or "\n")
    elif form == "json":
        session.out(dumps(found, html=html) + "\n")
    else:
        session.out(dumps(found, html=html, indent="    ") + "\n")
    if failures:
        raise StatusError("\n".join(failures))
    return 0


def _run_any(session: Session, parsed: Parsed) -> int:
    kind = parsed["type"]
    if "type" in parsed.changed and not kind:
        raise StatusError("type is empty: must be one of " + ", ".join(f'"{name}"' for name in _TYPES))
    if kind and kind not in _TYPES:
        choices = ", ".join(f'"{name}"' for name in _TYPES)
        raise StatusError(f'unknown type: "{kind}": must be one of {choices}')
    query = {"size": "1"} if parsed["size"] else {}

    def look(name: str) -> Any:
        found = (kind, _get(session, kind, name, query if kind == "container" else {})) if kind else None
        its_kind, value = found or _any(session, name, query)
        if parsed["size"] and its_kind != "container":
            session.err(f"WARNING: --size ignored for {its_kind}\n")
        return value

    return report(session, parsed.arguments, parsed["format"], look)


def _run_kind(kind: str) -> Callable[[Session, Parsed], int]:
    def run(session: Session, parsed: Parsed) -> int:
        query = {}
        if parsed.values.get("size"):
            query["size"] = "1"
        if parsed.values.get("verbose"):
            query["verbose"] = "true"
        if parsed.values.get("platform"):
            from wherry.cli.platforms import as_json

            query["platform"] = as_json(parsed["platform"])
        return report(session, parsed.arguments, parsed["format"], lambda name: _get(session, kind, name, query))

    return run


COMMANDS = {
    "inspect": Command(
        "[OPTIONS] NAME|ID [NAME|ID...]",
        _run_any,
        (
            INSPECT_FORMAT,
            Flag("size", "bool", "Display total file sizes if the type is container", short="s"),
            Flag("type", "string", "Only inspect objects of the given type"),
        ),
        least=1,
    ),
    "container": Command(
        "[OPTIONS] CONTAINER [CONTAINER...]",
        _run_kind("container"),
        (INSPECT_FORMAT, Flag("size", "bool", "Display total file sizes", short="s")),
        least=1,
    ),
    "image": Command(
        "[OPTIONS] IMAGE [IMAGE...]",
        _run_kind("image"),
        (
            INSPECT_FORMAT,
            Flag(
                "platform", "string",
                "Inspect a specific platform of the multi-platform image.\n"
                "If the image or the server is not multi-platform capable, the command will error out if the "
                "platform does not match.\n"
                "'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)",
            ),
        ),
        least=1,
    ),
    "network": Command(
        "[OPTIONS] NETWORK [NETWORK...]",
        _run_kind("network"),
        (INSPECT_FORMAT, Flag("verbose", "bool", "Verbose output for diagnostics", short="v")),
        least=1,
    ),
    "volume": Command("[OPTIONS] VOLUME [VOLUME...]", _run_kind("volume"), (INSPECT_FORMAT,), least=1),
}  # fmt: skip
