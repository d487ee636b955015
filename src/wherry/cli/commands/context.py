"""`wherry context`: what engines are known and which one is used."""

from __future__ import annotations

import os

from wherry.cli.command import INSPECT_FORMAT, TABLE_FORMAT, Command
from wherry.cli.commands.inspect import report
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag, lazy
from wherry.cli.rows import Row, ellipsis, natural, show
from wherry.client.config import context_id
from wherry.client.endpoints import choose, current_context
from wherry.client.errors import ConfigError
from wherry.goquote import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session


_OVERRIDDEN = (
    "Warning: DOCKER_HOST environment variable overrides the active context. To use {}, either set the "
    "global --context flag, or unset DOCKER_HOST environment variable.\n"
)
_CURRENT = "Current DOCKER_HOST based configuration"


class ContextRow(Row):
    """A context as stored, with "Current" and perhaps "Error" added."""

    type_name = "*formatter.clientContextContext"


ContextRow.COLUMNS = {
    "Name": ("NAME", lambda row: row.data["Name"]),
    "Description": ("DESCRIPTION", lambda row: ellipsis(row.data["Metadata"].get("Description", ""), 60)),
    "DockerEndpoint": ("DOCKER ENDPOINT", lambda row: _endpoint(row.data).get("Host", "")),
    "Current": ("", lambda row: row.data["Current"]),
    "Error": ("ERROR", lambda row: ellipsis(row.data.get("Error", ""), 45)),
}


def _endpoint(context: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = (context.get("Endpoints") or {}).get("docker") or {}
    return found


def _refusing(action: Callable[[Session, Parsed], int]) -> Callable[[Session, Parsed], int]:
    """The action, with what the configuration refuses told plainly."""

    def run(session: Session, parsed: Parsed) -> int:
        try:
            return action(session, parsed)
        except ConfigError as error:
            raise StatusError(str(error)) from None
        except OSError as error:
            raise StatusError(f"{error.filename}: {(error.strerror or '').lower()}") from None

    return run


def default_context(session: Session) -> tuple[dict[str, Any], dict[str, dict[str, bytes]]]:
    """What is used without a context: its metadata without a description, and the certificates of the TLS options."""
    flags = {**session.flags, "context": "" if session.flags.get("host") else "default"}
    endpoint = choose(session.config, flags)
    files = {}
    if tls := endpoint.tls:
        for name, path in (("ca.pem", tls.ca), ("cert.pem", tls.cert), ("key.pem", tls.key)):
            if path:
                with open(path, "rb") as file:
                    files[name] = file.read()
    docker = {"Host": endpoint.url, "SkipTLSVerify": bool(tls and not tls.verify)}
    return {"Name": "default", "Metadata": {}, "Endpoints": {"docker": docker}}, {"docker": files} if files else {}


def stored_context(session: Session, name: str) -> tuple[dict[str, Any], dict[str, dict[str, bytes]]]:
    """The metadata and certificates of a context by name, "default" included; raises ConfigError."""
    if name == "default":
        return default_context(session)
    from wherry.client.contexts import material, typed

    return typed(session.config.context(name)), material(session.config, name)


def _list(session: Session, parsed: Parsed) -> int:
    current = current_context(session.config, session.flags)
    if os.environ.get("DOCKER_HOST"):
        session.err(_OVERRIDDEN.format("a context"))
    default = {**default_context(session)[0], "Metadata": {"Description": _CURRENT}}
    found = [default, *session.config.contexts()]
    if current not in {each.get("Name") for each in found}:
        found.append({"Name": current, "Metadata": {}, "Error": _missing(session, current)})
    found.sort(key=lambda each: natural(each["Name"]))
    rows = [
        ContextRow({**each, "Metadata": each.get("Metadata") or {}, "Current": each["Name"] == current})
        for each in found
    ]
    if parsed["quiet"]:
        session.out("".join(f"{row.column('Name')}\n" for row in rows))
        return 0
    form = parsed["format"] or "table"
    if form == "table":
        form = "table {{.Name}}{{if .Current}} *{{end}}\\t{{.Description}}\\t{{.DockerEndpoint}}\\t{{.Error}}"
    show(session, ContextRow, rows, form, ())
    return 0


def _missing(session: Session, name: str) -> str:
    try:
        session.config.context(name)
    except ConfigError as error:
        return str(error)
    return ""


def _show(session: Session, _: Parsed) -> int:
    session.out(f"{current_context(session.config, session.flags)}\n")
    return 0


def _inspect(session: Session, parsed: Parsed) -> int:
    def look(name: str) -> dict[str, Any]:
        try:
            metadata, files = stored_context(session, name)
        except ConfigError as error:
            raise StatusError(str(error)) from None
        top = f"{session.config.directory}/contexts"
        paths = [f"{top}/{each}/{context_id(name)}" for each in ("meta", "tls")]
        if name == "default":
            paths = ["<IN MEMORY>", "<IN MEMORY>"]
        return {
            **metadata,
            "TLSMaterial": {endpoint: sorted(names) for endpoint, names in files.items()},
            "Storage": {"MetadataPath": paths[0], "TLSPath": paths[1]},
        }

    names = parsed.arguments or [current_context(session.config, session.flags)]
    return report(session, names, parsed["format"], look, html=True)


def _check_new(session: Session, name: str) -> None:
    from wherry.client.contexts import check_name, metadata_path

    check_name(name)
    if not os.path.exists(metadata_path(session.config, name)):
        return
    try:
        session.config.context(name)
    except ConfigError as error:
        raise ConfigError(f"error while getting existing contexts: {error}") from None
    raise ConfigError(f'context "{name}" already exists')


def _create(session: Session, parsed: Parsed) -> int:
    from wherry.client.contexts import remove, save, save_material

    name, options, origin = parsed.arguments[0], _merged(parsed["docker"]), parsed["from"]
    _check_new(session, name)
    if origin and options:
        raise StatusError("cannot use --docker flag when --from is set")
    if options:
        metadata: dict[str, Any] = {"Metadata": {}}
        metadata["Endpoints"], files = _described(session, options)
    else:
        origin = origin or current_context(session.config, session.flags)
        metadata, files = stored_context(session, origin)
        if origin == "default":
            metadata["Metadata"]["Description"] = _CURRENT
    if parsed["description"]:
        metadata["Metadata"]["Description"] = parsed["description"]
    try:
        save_material(session.config, name, files)
        save(session.config, {"Name": name, "Metadata": metadata["Metadata"], "Endpoints": metadata["Endpoints"]})
    except OSError:
        remove(session.config, name)
        raise
    return _done(session, name, "created")


def _described(session: Session, options: dict[str, str]) -> tuple[dict[str, Any], dict[str, dict[str, bytes]]]:
    """The endpoints and certificates that --docker describes; raises ConfigError."""
    from wherry.cli.options.context_endpoint import described

    try:
        docker, files = described(options, lambda name: stored_context(session, name)[0])
    except (ConfigError, StatusError) as error:
        raise ConfigError(f"unable to create docker endpoint config: {error}") from None
    return {"docker": docker}, {"docker": files} if files else {}


def _merged(pairs: list[dict[str, str]]) -> dict[str, str]:
    return {key: value for each in pairs for key, value in each.items()}


def _done(session: Session, name: str, verb: str) -> int:
    session.out(f"{name}\n")
    session.err(f"Successfully {verb} context {quote(name)}\n")
    return 0


def _update(session: Session, parsed: Parsed) -> int:
    from wherry.client.contexts import check_name, save, save_material, typed

    name, options = parsed.arguments[0], _merged(parsed["docker"])
    check_name(name)
    metadata = typed(session.config.context(name))
    if parsed["description"]:
        metadata["Metadata"] = {**metadata["Metadata"], "Description": parsed["description"]}
    files = None
    if options:
        endpoints, files = _described(session, options)
        metadata["Endpoints"] = {**metadata["Endpoints"], **endpoints}
    if "docker" not in metadata["Endpoints"]:
        raise StatusError("docker endpoint configuration is required")
    save(session.config, {**metadata, "Name": name})
    if files is not None:
        save_material(session.config, name, files)
    return _done(session, name, "updated")


def _use(session: Session, parsed: Parsed) -> int:
    from wherry.client.contexts import check_name, set_current

    name = parsed.arguments[0]
    if name != "default":
        check_name(name)
        session.config.context(name)
    set_current(session.config, "" if name == "default" else name)
    session.out(f"{name}\n")
    session.err(f"Current context is now {quote(name)}\n")
    if name != "default" and os.environ.get("DOCKER_HOST"):
        session.err(_OVERRIDDEN.format(quote(name)))
    return 0


def _rm(session: Session, parsed: Parsed) -> int:
    failures = []
    for name in parsed.arguments:
        try:
            _remove(session, name, force=parsed["force"])
        except ConfigError as error:
            failures.append(str(error))
            continue
        session.out(f"{name}\n")
    if failures:
        raise StatusError("\n".join(failures))
    return 0


def _remove(session: Session, name: str, *, force: bool) -> None:
    from wherry.client.contexts import metadata_path, remove, set_current

    if name == "default":
        raise ConfigError('context "default" cannot be removed')
    if not force and not os.path.exists(metadata_path(session.config, name)):
        raise ConfigError(f'context "{name}" does not exist')
    if name == current_context(session.config, session.flags):
        if not force:
            raise ConfigError(f'context "{name}" is in use, set -f flag to force remove')
        set_current(session.config, "")
    remove(session.config, name)


def _export(session: Session, parsed: Parsed) -> int:
    from wherry.client.contexts import check_name, export

    name = parsed.arguments[0]
    if name != "default":
        check_name(name)
    path = parsed.arguments[1] if len(parsed.arguments) > 1 else f"{name}.dockercontext"
    archive = export(*stored_context(session, name))
    if path == "-":
        from wherry.cli.session import write_all

        if os.isatty(1):
            raise StatusError("cowardly refusing to export to a terminal, specify a file path")
        write_all(1, archive)
        return 0
    from wherry.cli.options.files import go_error

    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(archive)
    except OSError as error:
        raise StatusError(f"open {path}: {go_error(error)}") from None
    session.err(f"Written file {quote(path)}\n")
    return 0


def _import(session: Session, parsed: Parsed) -> int:
    from wherry.cli.options.files import read_file
    from wherry.client.contexts import remove, save, save_material, unpack

    name, path = parsed.arguments
    _check_new(session, name)
    if path == "-":
        with open(0, "rb", closefd=False) as stream:
            data = stream.read()
    else:
        try:
            data = read_file(path)
        except StatusError as error:
            raise StatusError(str(error)) from None
    metadata, files = unpack(data)
    try:
        save_material(session.config, name, files)
        save(session.config, {**metadata, "Name": name})
    except OSError:
        remove(session.config, name)
        raise
    return _done(session, name, "imported")


_DOCKER = Flag(
    "docker", "list", "set the docker endpoint", shown="[]", word="stringToString", parse=lazy("csvline:parse_pairs")
)
_DESCRIPTION = Flag("description", "string", "Description of the context")


def _long(verb: str) -> str:
    return f"""{verb.capitalize()} a context

Docker endpoint config:

NAME                DESCRIPTION
from                Copy named context's Docker endpoint configuration
host                Docker endpoint on which to connect
ca                  Trust certs signed only by this CA
cert                Path to TLS certificate file
key                 Path to TLS key file
skip-tls-verify     Skip TLS certificate validation

Example:

$ wherry context {verb} my-context --description "some description" \
--docker "host=tcp://myserver:2376,ca=~/ca-file,cert=~/cert-file,key=~/key-file\""""


COMMANDS = {
    "create": Command(
        "[OPTIONS] CONTEXT",
        _refusing(_create),
        (_DESCRIPTION, _DOCKER, Flag("from", "string", "create context from a named context")),
        least=1, most=1, long=_long("create"),
    ),
    "export": Command("[OPTIONS] CONTEXT [FILE|-]", _refusing(_export), least=1, most=2),
    "import": Command("CONTEXT FILE|-", _refusing(_import), least=2, most=2),
    "inspect": Command("[OPTIONS] [CONTEXT] [CONTEXT...]", _inspect, (INSPECT_FORMAT,)),
    "ls": Command(
        "[OPTIONS]", _refusing(_list), (TABLE_FORMAT, Flag("quiet", "bool", "Only show context names", short="q")),
        most=0,
    ),
    "rm": Command(
        "CONTEXT [CONTEXT...]", _refusing(_rm),
        (Flag("force", "bool", "Force the removal of a context in use", short="f"),), least=1,
    ),
    "show": Command("", _show, most=0),
    "update": Command(
        "[OPTIONS] CONTEXT", _refusing(_update), (_DESCRIPTION, _DOCKER), least=1, most=1, long=_long("update")
    ),
    "use": Command("CONTEXT", _refusing(_use), least=1, most=1),
}  # fmt: skip
