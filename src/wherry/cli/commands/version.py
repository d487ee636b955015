"""`wherry version`."""

from __future__ import annotations

import os
import sys

from wherry import __version__
from wherry.cli.command import INSPECT_FORMAT, Command
from wherry.cli.errors import StatusError
from wherry.client.engine import MAX_VERSION
from wherry.client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session

# What Docker shows of the engine, in its order; other components' details are shown under their own names.
_KNOWN = {
    "ApiVersion": "API version", "GoVersion": "Go version", "GitCommit": "Git commit", "BuildTime": "Built",
    "Os": "OS/Arch", "Experimental": "Experimental",
}  # fmt: skip
_UNSHOWN = ("Arch", "KernelVersion", "MinAPIVersion")


def _client(session: Session, api: str) -> dict[str, Any]:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    return {
        "Version": __version__,
        "ApiVersion": api,
        "DefaultAPIVersion": MAX_VERSION,
        "PythonVersion": ".".join(map(str, sys.version_info[:3])),
        "Os": "linux",
        "Arch": machine,
        "Context": session.endpoint.context,
    }


def _run(session: Session, parsed: Parsed) -> int:
    template = None
    if form := parsed["format"]:
        from wherry.gotemplate import Template, TemplateError

        try:
            template = Template("{{json .}}" if form == "json" else form, "version")
        except TemplateError as error:
            raise StatusError(f"template parsing error: {error}", 64) from None
    failure, server, api = "", None, MAX_VERSION
    try:
        api = session.engine.version
        server = session.engine.json("GET", "/version")
    except (ClientError, StatusError) as error:
        failure = str(error)
    report = {"Client": _client(session, api), "Server": server}
    if template:
        from wherry.gotemplate import Record, TemplateError

        try:
            session.out(template.execute(Record(report, "system.versionInfo")) + "\n")
        except TemplateError as error:
            session.out("\n")
            failure = failure or str(error)
    else:
        session.out(_text(report["Client"] or {}, server))
    if failure:
        raise StatusError(failure)
    return 0


def _text(client: dict[str, Any], server: dict[str, Any] | None) -> str:
    api = client["ApiVersion"]
    if api != client["DefaultAPIVersion"]:
        api = f"{api} (downgraded from {client['DefaultAPIVersion']})"
    rows = [
        ("Version", client["Version"]),
        ("API version", api),
        ("Python version", client["PythonVersion"]),
        ("OS/Arch", f"{client['Os']}/{client['Arch']}"),
        ("Context", client["Context"]),
    ]
    text = "Client:\n" + "".join(f" {name + ':':<17} {value}\n" for name, value in rows)
    if server is None:
        return text
    platform = (server.get("Platform") or {}).get("Name")
    text += f"\nServer:{f' {platform}' if platform else ''}\n"
    for component in server.get("Components") or []:
        text += f" {component['Name']}:\n" + "".join(
            f"  {name + ':':<17} {value}\n" for name, value in _component(component)
        )
    return text


def _component(component: dict[str, Any]) -> list[tuple[str, str]]:
    details = component.get("Details") or {}
    rows = [("Version", component.get("Version", ""))]
    if component.get("Name") != "Engine":
        return rows + list(details.items())
    for key, name in _KNOWN.items():
        if key == "ApiVersion" and key in details:
            rows.append((name, f"{details[key]} (minimum version {details.get('MinAPIVersion', '')})"))
        elif key == "Os" and key in details:
            rows.append((name, f"{details[key]}/{details.get('Arch', '')}"))
        elif key == "BuildTime" and details.get(key):
            rows.append((name, _built(details[key])))
        elif key in details:
            rows.append((name, details[key]))
    rows += [(key, value) for key, value in details.items() if key not in (*_KNOWN, *_UNSHOWN)]
    return rows


def _built(text: str) -> str:
    """A time of RFC 3339 as ANSI C prints it; other texts as they are."""
    import time

    from wherry.cli.times import nanoseconds

    moment = nanoseconds(text)
    return time.asctime(time.localtime(moment[0])) if moment else text


COMMANDS = {"version": Command("[OPTIONS]", _run, (INSPECT_FORMAT,), most=0)}
