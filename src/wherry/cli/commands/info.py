"""`wherry info`."""

from __future__ import annotations

import os
import sys

from wherry import __version__
from wherry.cli.command import INSPECT_FORMAT, Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session


def _run(session: Session, parsed: Parsed) -> int:
    failure, found = "", {}
    try:
        found = session.engine.json("GET", "/info")
    except (ClientError, StatusError) as error:
        failure = str(error)
    client = _client(session)
    if form := parsed["format"]:
        if failure:
            raise StatusError(failure)
        _formatted(session, form, {**found, "ClientInfo": client})
        return 0
    lines = ["Client:", f" Version:    {__version__}", f" Context:    {client['Context']}"]
    lines += [f" Debug Mode: {_truth(client['Debug'])}", "", "Server:"]
    lines += [f" {line}" for line in _server(found, _user(session, found))] if not failure else []
    session.out("\n".join(lines) + "\n" + ("" if failure else "\n"))
    for warning in found.get("Warnings") or []:
        session.err(f"{warning}\n")
    if failure:
        raise StatusError(f"{failure}\nerrors pretty printing info")
    return 0


def _client(session: Session) -> dict[str, Any]:
    from wherry.client.engine import MAX_VERSION

    return {
        "Debug": "debug" in session.flags,
        "Version": __version__,
        "DefaultAPIVersion": MAX_VERSION,
        "PythonVersion": ".".join(map(str, sys.version_info[:3])),
        "Os": "linux",
        "Arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "Context": session.endpoint.context,
        "Plugins": [],
        "Warnings": None,
    }


def _formatted(session: Session, form: str, value: dict[str, Any]) -> None:
    from wherry.gotemplate import Record, Template, TemplateError

    try:
        session.out(
            Template("{{json .}}" if form == "json" else form).execute(Record(value, "system.dockerInfo")) + "\n"
        )
    except TemplateError as error:
        if error.parsing:
            raise StatusError(f"template parsing error: {error}", 64) from None
        session.out("\n")
        raise StatusError(str(error)) from None


def _truth(value: object) -> str:
    return "true" if value else "false"


def _user(session: Session, info: dict[str, Any]) -> str:
    """Who is signed in to the index, as far as the file of the configuration tells."""
    if not session.config.settings.get("auths"):
        return ""
    from wherry.client.credentials import in_file

    return in_file(session.config, info.get("IndexServerAddress", "")).get("username", "")


def _server(info: dict[str, Any], user: str) -> list[str]:
    lines = [f"Containers: {info.get('Containers', 0)}"]
    lines += [f" {state}: {info.get(f'Containers{state}', 0)}" for state in ("Running", "Paused", "Stopped")]
    lines += [f"Images: {info.get('Images', 0)}"]
    lines += _present(info, ("Server Version", "ServerVersion"), ("Storage Driver", "Driver"))
    lines += [f" {key}: {value}" for key, value in info.get("DriverStatus") or []]
    lines += _present(
        info,
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
    )
    lines += _plugins(info.get("Plugins") or {})
    if directories := info.get("CDISpecDirs"):
        lines += ["CDI spec directories:", *(f" {directory}" for directory in directories)]
    lines += [f"Swarm: {(info.get('Swarm') or {}).get('LocalNodeState') or 'inactive'}"]
    if runtimes := info.get("Runtimes"):
        lines += [f"Runtimes: {' '.join(sorted(runtimes))}", f"Default Runtime: {info.get('DefaultRuntime', '')}"]
    lines += _versions(info)
    lines += _security(info.get("SecurityOptions") or [])
    lines += _host(info, user)
    return lines


def _present(info: dict[str, Any], *pairs: tuple[str, str]) -> list[str]:
    return [f"{title}: {info[key]}" for title, key in pairs if info.get(key)]


def _plugins(plugins: dict[str, Any]) -> list[str]:
    kinds = ["Volume", "Network", *(["Authorization"] if plugins.get("Authorization") else []), "Log"]
    return ["Plugins:", *(f" {kind}: {' '.join(plugins.get(kind) or [])}" for kind in kinds)]


def _versions(info: dict[str, Any]) -> list[str]:
    lines = [f"Init Binary: {info['InitBinary']}"] if info.get("InitBinary") else []
    for title, key in (("containerd", "ContainerdCommit"), ("runc", "RuncCommit"), ("init", "InitCommit")):
        if key in info:
            lines.append(f"{title} version: {(info[key] or {}).get('ID', '')}")
    return lines


def _security(options: list[str]) -> list[str]:
    if not options:
        return []
    lines = ["Security Options:"]
    for option in options:
        fields = [field.partition("=")[::2] for field in option.split(",")]
        lines.append(f" {fields[0][1] if fields[0][0] == 'name' else option}")
        lines += [f"  {'Profile' if key == 'profile' else key}: {value}" for key, value in fields[1:]]
    return lines


def _host(info: dict[str, Any], user: str) -> list[str]:
    from wherry.cli.units import human_size

    lines = _present(
        info, ("Kernel Version", "KernelVersion"), ("Operating System", "OperatingSystem"), ("OSType", "OSType"),
        ("Architecture", "Architecture"),
    )  # fmt: skip
    lines += [f"CPUs: {info.get('NCPU', 0)}", f"Total Memory: {human_size(info.get('MemTotal', 0), binary=True)}"]
    lines += _present(info, ("Name", "Name"), ("ID", "ID"), ("Docker Root Dir", "DockerRootDir"))
    lines += [f"Debug Mode: {_truth(info.get('Debug'))}"]
    if info.get("Debug"):
        lines += _present(
            info, (" File Descriptors", "NFd"), (" Goroutines", "NGoroutines"), (" System Time", "SystemTime"),
            (" EventsListeners", "NEventsListener"),
        )  # fmt: skip
    lines += _present(info, ("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy"))
    lines += [f"Username: {user}"] if user else []
    if labels := info.get("Labels"):
        lines += ["Labels:", *(f" {label}" for label in labels)]
    lines += [f"Experimental: {_truth(info.get('ExperimentalBuild'))}"]
    registries = info.get("RegistryConfig") or {}
    insecure = sorted(
        name for name, index in (registries.get("IndexConfigs") or {}).items() if not (index or {}).get("Secure")
    )
    insecure += registries.get("InsecureRegistryCIDRs") or []
    if insecure:
        lines += ["Insecure Registries:", *(f" {each}" for each in insecure)]
    if mirrors := registries.get("Mirrors"):
        lines += ["Registry Mirrors:", *(f" {mirror}" for mirror in mirrors)]
    lines += [f"Live Restore Enabled: {_truth(info.get('LiveRestoreEnabled'))}"]
    lines += _present(info, ("Product License", "ProductLicense"))
    if pools := info.get("DefaultAddressPools"):
        lines += ["Default Address Pools:", *(f"  Base: {pool['Base']}, Size: {pool['Size']}" for pool in pools)]
    return lines


COMMANDS = {"info": Command("[OPTIONS]", _run, (Flag("format", "string", INSPECT_FORMAT.usage, short="f"),), most=0)}
