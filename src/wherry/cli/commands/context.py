"""`wherry context`: what engines are known and which one is used."""

from __future__ import annotations

import os

from wherry.cli.command import INSPECT_FORMAT, TABLE_FORMAT, Command
from wherry.cli.commands.inspect import report
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.rows import Row, show
from wherry.client.config import context_id
from wherry.client.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session


_OVERRIDDEN = (
    "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the "
    "global --context flag, or unset DOCKER_HOST environment variable.\n"
)


class ContextRow(Row):
    """A context as stored, with "Current" added."""

    type_name = "*formatter.clientContextContext"


ContextRow.COLUMNS = {
    "Name": ("NAME", lambda row: row.data["Name"]),
    "Description": ("DESCRIPTION", lambda row: (row.data.get("Metadata") or {}).get("Description", "")),
    "DockerEndpoint": ("DOCKER ENDPOINT", lambda row: _endpoint(row.data).get("Host", "")),
    "Current": ("", lambda row: row.data["Current"]),
    "Error": ("ERROR", lambda row: ""),
}


def _endpoint(context: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = (context.get("Endpoints") or {}).get("docker") or {}
    return found


def _default(session: Session) -> dict[str, Any]:
    from wherry.client.endpoints import choose

    endpoint = choose(session.config, {**session.flags, "context": "" if session.flags.get("host") else "default"})
    return {
        "Name": "default",
        "Metadata": {"Description": "Current DOCKER_HOST based configuration"},
        "Endpoints": {"docker": {"Host": endpoint.url, "SkipTLSVerify": False}},
    }


def _list(session: Session, parsed: Parsed) -> int:
    current = session.endpoint.context
    if os.environ.get("DOCKER_HOST"):
        session.err(_OVERRIDDEN)
    found = [_default(session), *session.config.contexts()]
    rows = [ContextRow({**each, "Current": each["Name"] == current}) for each in found]
    if parsed["quiet"]:
        session.out("".join(f"{row.column('Name')}\n" for row in rows))
        return 0
    form = parsed["format"] or "table"
    if form == "table":
        form = "table {{.Name}}{{if .Current}} *{{end}}\\t{{.Description}}\\t{{.DockerEndpoint}}\\t{{.Error}}"
    show(session, ContextRow, rows, form, ())
    return 0


def _show(session: Session, _: Parsed) -> int:
    session.out(f"{session.endpoint.context}\n")
    return 0


def _inspect(session: Session, parsed: Parsed) -> int:
    def look(name: str) -> dict[str, Any]:
        if name == "default":
            return {
                **_default(session),
                "Metadata": {},
                "TLSMaterial": {},
                "Storage": _storage("<IN MEMORY>", "<IN MEMORY>"),
            }
        try:
            stored = session.config.context(name)
        except ConfigError as error:
            raise StatusError(str(error)) from None
        top = f"{session.config.directory}/contexts"
        storage = _storage(f"{top}/meta/{context_id(name)}", f"{top}/tls/{context_id(name)}")
        return {
            "Name": stored.get("Name"),
            "Metadata": stored.get("Metadata") or {},
            "Endpoints": stored.get("Endpoints") or {},
            "TLSMaterial": _tls_material(session, name),
            "Storage": storage,
        }

    names = parsed.arguments or [session.endpoint.context]
    return report(session, names, parsed["format"], look, html=True)


def _storage(metadata: str, tls: str) -> dict[str, str]:
    return {"MetadataPath": metadata, "TLSPath": tls}


def _tls_material(session: Session, name: str) -> dict[str, list[str]]:
    directory = session.config.context_tls(name)
    return {"docker": sorted(os.listdir(directory))} if directory else {}


COMMANDS = {
    "ls": Command(
        "[OPTIONS]", _list, (TABLE_FORMAT, Flag("quiet", "bool", "Only show context names", short="q")), most=0
    ),
    "show": Command("", _show, most=0),
    "inspect": Command("[OPTIONS] [CONTEXT] [CONTEXT...]", _inspect, (INSPECT_FORMAT,)),
}
