"""The daemon's configuration: defaults, then the configuration file, then flags; checked as a whole."""

import json
import os
from typing import Any

from wherry.daemon.check import check
from wherry.daemon.options import ACTIONS, BOOL, BY_KEY, BYTES, OPTIONS, POOLS, RUNTIMES, ULIMITS, Option, parse_bytes
from wherry.errors import InvalidArgument
from wherry.hostimage import elf

DEFAULT_FILE = "/etc/wherry/daemon.json"


class DaemonConfig:
    """The values of all options, by key: `config["data-root"]`. `given` says which ones somebody set."""

    __slots__ = ("file", "flags", "given", "values")

    def __init__(self, values: dict[str, Any], given: set[str], flags: dict[str, Any], file: str | None) -> None:
        self.values = values
        self.given = given
        self.flags = flags
        self.file = file

    def __getitem__(self, key: str) -> Any:
        return self.values[key]


def load(flags: dict[str, Any], actions: dict[str, str]) -> DaemonConfig:
    """Combine defaults, file and flags. Raises `InvalidArgument` with dockerd's words where it has them."""
    path = actions.get("config-file") or (DEFAULT_FILE if os.path.exists(DEFAULT_FILE) else None)
    try:
        from_file = read_file(path) if path else {}
        _refuse_both(flags, from_file)
    except InvalidArgument as error:
        raise InvalidArgument(f"unable to configure the daemon with file {path}: {error}") from None
    values = {option.key: option.default for option in OPTIONS} | from_file | flags
    config = DaemonConfig(values, set(from_file) | set(flags), flags, path)
    check(config)
    return config


def reload(config: DaemonConfig) -> tuple[DaemonConfig, list[str]]:
    """Read the file again: (the new configuration, the keys of changes that need a restart and were not taken)."""
    fresh = load(config.flags, {"config-file": config.file or ""})
    refused = [k for k, option in BY_KEY.items() if not option.reload and fresh[k] != config[k]]
    for key in refused:
        fresh.values[key] = config[key]
    return fresh, refused


def read_file(path: str) -> dict[str, Any]:
    """The values of a `daemon.json`-style file by key; `InvalidArgument` names what is wrong in it."""
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        raise InvalidArgument(f"open {path}: {(error.strerror or '').lower()}") from None
    if not text.strip():
        return {}
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidArgument("the file must hold one JSON object")
    document = _flattened(document)
    unknown = sorted(set(document) - set(BY_KEY))
    if unknown:
        raise InvalidArgument(f"the following directives don't match any configuration option: {', '.join(unknown)}")
    return {key: _file_value(BY_KEY[key], value) for key, value in document.items()}


_PROXIES = ("http-proxy", "https-proxy", "no-proxy")


def _flattened(document: dict[str, Any]) -> dict[str, Any]:
    """The file has the proxies in an object of their own."""
    proxies = document.get("proxies", {})
    if not isinstance(proxies, dict) or not set(proxies) <= set(_PROXIES):
        raise InvalidArgument(f"proxies: expected an object with {', '.join(_PROXIES)}, got {json.dumps(proxies)}")
    if set(document) & set(_PROXIES):
        raise InvalidArgument('http-proxy, https-proxy and no-proxy belong in the object "proxies"')
    return {key: value for key, value in document.items() if key != "proxies"} | proxies


def _file_value(option: Option, value: Any) -> Any:
    kinds = option.kind.json if isinstance(option.kind.json, tuple) else (option.kind.json,)
    right = isinstance(value, kinds) and (option.kind is BOOL or not isinstance(value, bool))
    if not right:
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise InvalidArgument(f"{option.key}: expected {wanted}, got {json.dumps(value)}")
    if option.kind is RUNTIMES:
        return {name: _runtime(name, entry) for name, entry in value.items()}
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            if not _fits(option, item):
                raise InvalidArgument(f"{option.key}: unexpected {json.dumps(item)}")
    if option.kind is BYTES and isinstance(value, str):
        try:
            return parse_bytes(value)
        except ValueError as error:
            raise InvalidArgument(f"{option.key}: {error}") from None
    return value


def _fits(option: Option, item: Any) -> bool:
    """Whether `item` may stand in the list, or be a value of the map."""
    if option.kind is not ULIMITS and option.kind is not POOLS:
        return isinstance(item, str)
    fields = {"Name": str, "Soft": int, "Hard": int} if option.kind is ULIMITS else {"base": str, "size": int}
    return isinstance(item, dict) and {key: type(value) for key, value in item.items()} == fields


_RUNC_SHIM = "io.containerd.runc.v2"


def _runtime(name: str, entry: Any) -> dict[str, Any]:
    """An entry of `runtimes`: {"path", "runtimeArgs"}, or runc's shim with the BinaryName it shall call."""
    entry = entry if isinstance(entry, dict) else {}
    if "runtimeType" in entry:
        entry = _called_by_shim(name, entry)
    path, args = entry.get("path"), entry.get("runtimeArgs") or []
    strings = isinstance(args, list) and all(isinstance(arg, str) for arg in args)
    if not isinstance(path, str) or not path or not strings or set(entry) - {"path", "runtimeArgs"}:
        raise InvalidArgument(f'runtimes: {name}: expected {{"path": "/path/of/the/runtime", "runtimeArgs": ["…"]}}')
    return {"path": path, "args": args}


def _called_by_shim(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    options = entry.get("options")
    if entry["runtimeType"] != _RUNC_SHIM:
        raise InvalidArgument(f"runtimes: {name}: runtimeType {entry['runtimeType']!r}: other shims can't be run")
    if set(entry) != {"runtimeType", "options"} or not isinstance(options, dict) or set(options) != {"BinaryName"}:
        raise InvalidArgument(f"runtimes: {name}: {_RUNC_SHIM} takes the option BinaryName, and no other")
    return {"path": options["BinaryName"]}


def _refuse_both(flags: dict[str, Any], from_file: dict[str, Any]) -> None:
    both = [
        f"{key}: (from flag: {json.dumps(flags[key])}, from file: {json.dumps(from_file[key])})"
        for key in sorted(set(flags) & set(from_file))
        if BY_KEY[key].kind.combine == "replace" or key == "hosts"
    ]
    if both:
        raise InvalidArgument(
            f"the following directives are specified both as a flag and in the configuration file: {', '.join(both)}"
        )


def init_warning(path: str) -> str:
    """Why the init at `path`, which has been checked, will not run in every image; "" when it will."""
    program = elf.read(path) if path else None
    if program is None or not program.interpreter:
        return ""
    return f"--init-path {path} is not static: containers whose image has no {program.interpreter} will not start"


__all__ = ["ACTIONS", "DaemonConfig", "load", "read_file", "reload"]
