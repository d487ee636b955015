"""`wherry create`, and the part of `wherry run` up to a created container."""

from __future__ import annotations

import os

from wherry.cli.command import Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.options.create_flags import FLAGS, WINDOWS_ONLY
from wherry.cli.platforms import platform_of
from wherry.cli.session import terminal_size
from wherry.cli.trust import refuse_trust
from wherry.client.errors import APIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.references import Reference
    from wherry.cli.session import Session

_PULL = ("always", "missing", "never", "")


def with_help(session: Session, text: str, code: int) -> StatusError:
    """An error of `run` or `create` as Docker dresses it."""
    return StatusError(f"wherry: {text}\n\nRun '{session.path} --help' for more information", code)


def prepare(session: Session, parsed: Parsed) -> dict[str, Any]:
    """Check the flags and build the request body; raises StatusError."""
    wrong = [name for name in WINDOWS_ONLY if name in parsed.changed]
    if wrong:
        raise StatusError(
            "\n".join(
                f'"--{name}" is only supported on a Docker daemon running on windows, '
                "but the Docker daemon is running on linux"
                for name in wrong
            )
        )
    if parsed["pull"] not in _PULL:
        text = f'invalid pull option: \'{parsed["pull"]}\': must be one of "always", "missing" or "never"'
        raise with_help(session, text, 125)
    from wherry.cli.options.create_body import build

    try:
        return build(parsed, parsed.arguments[0], parsed.arguments[1:], _proxies(session))
    except StatusError as error:
        raise with_help(session, str(error), error.code) from None


def _proxies(session: Session) -> dict[str, str]:
    """The variables that the client's settings want in containers of this engine."""
    configured = session.config.settings.get("proxies")
    if not isinstance(configured, dict):
        return {}
    chosen = configured.get(session.endpoint.url, configured.get("default")) or {}
    found = {}
    for key, name in (("httpProxy", "HTTP_PROXY"), ("httpsProxy", "HTTPS_PROXY"), ("noProxy", "NO_PROXY"),
                      ("ftpProxy", "FTP_PROXY"), ("allProxy", "ALL_PROXY")):  # fmt: skip
        if value := chosen.get(key):
            found.update({name: value, name.lower(): value})
    return found


def create(session: Session, parsed: Parsed, body: dict[str, Any], meanwhile: Callable[[], None] | None = None) -> str:
    """Create the container, pulling the image when it is missing; returns the id. Raises StatusError or ClientError.

    `meanwhile` is called while the engine creates.
    """
    if not parsed["cidfile"]:
        return _create(session, parsed, body, meanwhile)
    cidfile = _open_cidfile(parsed["cidfile"])
    container = ""
    try:
        container = _create(session, parsed, body, meanwhile)
        os.write(cidfile, container.encode())
        return container
    finally:
        os.close(cidfile)
        if not container:
            os.unlink(parsed["cidfile"])


def _open_cidfile(path: str) -> int:
    if os.path.exists(path):
        raise StatusError("container ID file found, make sure the other container isn't running or delete " + path)
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    except OSError as error:
        from wherry.cli.options.files import go_error

        raise StatusError(f"failed to create the container ID file: open {path}: {go_error(error)}") from None


def _create(session: Session, parsed: Parsed, body: dict[str, Any], meanwhile: Callable[[], None] | None = None) -> str:
    from wherry.cli.references import parse_any

    reference = parse_any(body["Image"])
    if reference and not reference.digest:  # what is named by its content needs no signature
        refuse_trust(parsed)
    query = {"name": parsed["name"]} if parsed["name"] else {}
    platform = platform_of(parsed)
    if platform:
        query["platform"] = "/".join(_split_platform(platform))
    if parsed["use-api-socket"]:
        _share_socket(session, body)
    if parsed["pull"] == "always" and reference:
        _pull(session, reference, parsed)
    body["HostConfig"]["ConsoleSize"] = list(terminal_size(1))
    reply = _post(session, parsed, body, query, reference, meanwhile)
    for warning in [*(reply.get("Warnings") or []), *_localhost_dns(parsed["dns"])]:
        session.err(f"WARNING: {warning}\n")
    container: str = reply["Id"]
    return container


def _post(
    session: Session,
    parsed: Parsed,
    body: dict[str, Any],
    query: dict[str, str],
    reference: Reference | None,
    meanwhile: Callable[[], None] | None,
) -> Any:
    try:
        return session.engine.json("POST", "/containers/create", query, body, meanwhile)
    except APIError as error:
        if error.status != 404 or reference is None or parsed["pull"] not in ("missing", ""):
            raise
    if not parsed["quiet"]:
        session.err(f"Unable to find image '{reference.with_default_tag().familiar}' locally\n")
    _pull(session, reference, parsed)
    return session.engine.json("POST", "/containers/create", query, body)


def _pull(session: Session, reference: Reference, parsed: Parsed) -> None:
    from wherry.cli.commands.pull import pull

    pull(session, reference.with_default_tag(), platform_of(parsed), None if parsed["quiet"] else 2)


def _localhost_dns(servers: list[str]) -> list[str]:
    local = next((each for each in servers if each.startswith("127.") or each == "::1"), None)
    return [f"Localhost DNS ({local}) may fail in containers."] if local else []


def _share_socket(session: Session, body: dict[str, Any]) -> None:
    if session.endpoint.scheme != "unix":
        raise StatusError(f"flag --use-api-socket can't be used with the host {session.endpoint.url}")
    mount = {
        "Type": "bind", "Source": session.endpoint.address, "Target": "/var/run/docker.sock", "BindOptions": {},
    }  # fmt: skip
    body["HostConfig"].setdefault("Mounts", []).append(mount)


def _split_platform(text: str) -> list[str]:
    """os, arch and perhaps variant."""
    from wherry.cli.platforms import parse

    try:
        return parse(text)
    except StatusError as error:
        raise StatusError(f"error parsing specified platform: {error}") from None


def _run(session: Session, parsed: Parsed) -> int:
    body = prepare(session, parsed)
    session.out(create(session, parsed, body) + "\n")
    return 0


CREATE_FLAGS = (
    Flag("help", "bool", "Print usage"),
    Flag(
        "pull", "string", 'Pull image before creating ("always", "missing", "never")', default="missing",
        shown='"missing"',
    ),
    *FLAGS,
)  # fmt: skip
COMMANDS = {"create": Command("[OPTIONS] IMAGE [COMMAND] [ARG...]", _run, CREATE_FLAGS, least=1, interspersed=False)}
