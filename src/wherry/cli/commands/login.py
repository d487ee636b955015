"""`wherry login` and `wherry logout`."""

from __future__ import annotations

from wherry.cli.command import Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.notes import note, warning
from wherry.client import credentials
from wherry.client.credentials import INDEX, VARIABLE, hostname
from wherry.client.errors import APIError, ClientError, ConnectionFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session
    from wherry.client.credentials import Auth

_INSECURE = "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n"
_OTHER_ACCOUNT = "To login with a different account, run 'wherry logout' followed by 'wherry login'"
_UNENCRYPTED = """
WARNING! Your credentials are stored unencrypted in '{}'.
Configure a credential helper to remove this warning. See
https://docs.docker.com/go/credential-store/

"""


def _login(session: Session, parsed: Parsed) -> int:
    session.flags["autostart"] = False  # an engine that runs has its own settings, but there need be none
    user, password = _given(session, parsed)
    _warn_of_variable(session)
    named = parsed.arguments[0] if parsed.arguments else ""
    server = INDEX if named in ("", "docker.io", INDEX) else hostname(named)
    known: Auth = {}
    if not user and not password:
        known = _known(session, server)
        if known.get("username") and known.get("password") and (said := _log_in_again(session, known)):
            session.out(f"{said}\n")
            return 0
    from wherry.cli.prompts import ask_for_credentials

    auth = ask_for_credentials(session, server, user, password, known.get("username", ""))
    said = _keep(session, auth, _ask_registry(session, auth))
    session.out(f"{said}\n" if said else "")
    return 0


def _given(session: Session, parsed: Parsed) -> tuple[str, str]:
    """User and password as the flags have them; raises StatusError."""
    user, password = parsed["username"], parsed["password"]
    for name in ("username", "password"):
        if name in parsed.changed and not parsed[name]:
            raise StatusError(f"{name} is empty")
    if not parsed["password-stdin"]:
        session.err(_INSECURE if password else "")
        return user, password
    if password:
        raise StatusError("conflicting options: cannot specify both --password and --password-stdin")
    if not user:
        raise StatusError("the --password-stdin option requires --username to be set")
    from wherry.cli.commands.load import pieces

    text = b"".join(pieces(0)).decode("utf-8", "surrogateescape")
    return user, text.removesuffix("\n").removesuffix("\r")


def _known(session: Session, server: str) -> Auth:
    try:
        return {**credentials.lookup(session.config, server), "serveraddress": server, "identitytoken": ""}
    except ClientError:
        return {}


def _log_in_again(session: Session, known: Auth) -> str:
    """Log in with the credentials there are; what the registry says, "" when it does not take them."""
    session.err(f"Authenticating with existing credentials... [Username: {known['username']}]\n")
    note(2, _OTHER_ACCOUNT)
    session.err("\n\n")
    try:
        answer = _ask_registry(session, known)
    except (ClientError, StatusError) as error:
        refused = isinstance(error, APIError) and error.status == 401
        text = "Stored credentials invalid or expired" if refused else f"Login did not succeed, error: {error}"
        session.err(f"{text}\n")
        return ""
    return _keep(session, known, answer)


def _ask_registry(session: Session, auth: Auth) -> dict[str, Any]:
    """What the registry says to the engine, or to us where there is no engine."""
    try:
        answer: dict[str, Any] = session.engine.json("POST", "/auth", None, credentials.fields(auth)) or {}
    except ConnectionFailed:
        from wherry.cli.registries import log_in

        return log_in(auth)
    return answer


def _keep(session: Session, auth: Auth, answer: dict[str, Any]) -> str:
    """Store what was accepted; what to tell the user."""
    if token := answer.get("IdentityToken"):
        auth = {**auth, "password": "", "identitytoken": token}
    try:
        in_the_clear = credentials.store(session.config, auth)
    except ClientError as error:
        raise StatusError(f"Error saving credentials: {error}") from None
    if in_the_clear:
        session.err(_UNENCRYPTED.format(session.config.path))
    return str(answer.get("Status") or "")


def _warn_of_variable(session: Session) -> None:
    from os import environ

    if environ.get(VARIABLE):
        text = f"{VARIABLE} is set and takes precedence.\nUnset {VARIABLE} to restore the CLI auth behaviour.\n"
        warning(2, text)


def _logout(session: Session, parsed: Parsed) -> int:
    _warn_of_variable(session)
    server = parsed.arguments[0] if parsed.arguments else ""
    name = hostname(server) if server else INDEX
    names = dict.fromkeys([server, name, f"http://{name}", f"https://{name}"] if server else [INDEX])
    session.out(f"Removing login credentials for {name}\n")
    failures = []
    for each in names:
        try:
            credentials.erase(session.config, each)
        except ClientError as error:
            failures.append(f"{each}: {error}\n")
    if len(failures) == len(names):
        session.err("WARNING: could not erase credentials:\n" + "".join(failures))
    return 0


LOGIN_FLAGS = (
    Flag("password", "string", "Password or Personal Access Token (PAT)", short="p"),
    Flag("password-stdin", "bool", "Take the Password or Personal Access Token (PAT) from stdin"),
    Flag("username", "string", "Username", short="u"),
)
COMMANDS = {
    "login": Command(
        "[OPTIONS] [SERVER]", _login, LOGIN_FLAGS, most=1,
        long="Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.",
    ),
    "logout": Command(
        "[SERVER]", _logout, most=1,
        long="Log out from a registry.\nIf no server is specified, the default is defined by the daemon.",
    ),
}  # fmt: skip
