"""Whether a configuration makes sense, as far as that can be told without starting: the checks of the start itself."""

import os
from typing import TYPE_CHECKING, Any

from wherry.daemon.listeners import check_host
from wherry.daemon.wiring import engine_config, server_tls
from wherry.engine import log_drivers, specs, transfers
from wherry.engine.limits import check_ulimits
from wherry.engine.runtimes import OWN, RESERVED
from wherry.engine.storage import LAYERS_OPTION
from wherry.engine.validate import is_address
from wherry.errors import InvalidArgument
from wherry.hostimage import elf
from wherry.images.snapshots.choice import DRIVERS as STORAGE_DRIVERS
from wherry.images.snapshots.choice import FORMS
from wherry.network.setup import check_options

if TYPE_CHECKING:
    from wherry.daemon.config import DaemonConfig

_LEVELS = ("debug", "info", "warn", "error", "fatal")


def check(config: "DaemonConfig") -> None:
    """Raise `InvalidArgument` for the first thing that is wrong, with dockerd's words where it has them."""
    values = config.values
    _check_words(values)
    _check_runtimes(values)
    _check_sockets(config)
    _check_network(config)
    _check_containers(config)
    transfers.check(values)
    log_drivers.check(values["log-driver"], values["log-opts"])


def _check_words(values: dict[str, Any]) -> None:
    if values["log-level"] not in _LEVELS:
        raise InvalidArgument(f"invalid logging level: {values['log-level']}")
    if values["log-format"] not in ("text", "json"):
        raise InvalidArgument(f"invalid log format: {values['log-format']}")
    if values["storage-driver"] not in ("", *STORAGE_DRIVERS):
        known = ", ".join(STORAGE_DRIVERS)
        raise InvalidArgument(f"unknown storage driver {values['storage-driver']!r}: there are {known}")
    for text in values["storage-opts"]:
        _check_storage_opt(text, values["storage-driver"])
    if not values["live-restore"]:
        raise InvalidArgument("live-restore can't be turned off: containers do not depend on the daemon here")
    if values["shutdown-timeout"] < 0:
        raise InvalidArgument("shutdown-timeout can't be negative")
    for label in values["labels"]:
        if "=" not in label:
            raise InvalidArgument(f"bad attribute format: {label}")


def _check_storage_opt(text: str, driver: str) -> None:
    key, _, value = text.partition("=")
    if key != LAYERS_OPTION or driver == "vfs":
        raise InvalidArgument(f"{driver or 'overlay2'}: unknown option {key}")
    if value not in FORMS:
        raise InvalidArgument(f"storage option {key}={value}: there are {', '.join(FORMS)}")


def _check_runtimes(values: dict[str, Any]) -> None:
    for name in RESERVED & set(values["runtimes"]):
        raise InvalidArgument(f"runtime name '{name}' is reserved")
    if values["default-runtime"] not in (*OWN, *values["runtimes"]):
        raise InvalidArgument(f"specified default runtime '{values['default-runtime']}' does not exist")
    if values["init-path"]:
        _check_init(values["init-path"])


def _check_sockets(config: "DaemonConfig") -> None:
    if not config["hosts"]:
        raise InvalidArgument("no socket to listen on: give --host, or hosts in the configuration file")
    with_tls = [host for host in config["hosts"] if check_host(host, config)]
    if with_tls:
        server_tls(config)


def _check_network(config: "DaemonConfig") -> None:
    if config["bridge"] and config["bip"]:
        raise InvalidArgument("you specified -b & --bip, mutually exclusive options. Please specify only one")
    for address in [config["ip"], *config["dns"]]:
        if not is_address(address):
            raise InvalidArgument(f"{address} is not an ip address")
    check_options(engine_config(config).network_options())


def _check_containers(config: "DaemonConfig") -> None:
    """What containers get by default."""
    for name, limit in config["default-ulimits"].items():
        if limit["Name"] != name:
            raise InvalidArgument(f"default-ulimits: {name} has the name of another: {limit['Name']}")
    check_ulimits(list(engine_config(config).default_ulimits.values()))
    if config["default-shm-size"] < 0:
        raise InvalidArgument("default-shm-size can't be negative")
    specs.profile_text(config["seccomp-profile"])


def _check_init(path: str) -> None:
    if not os.path.isfile(path):
        raise InvalidArgument(f"--init-path {path}: no such file")
    if not os.access(path, os.X_OK):
        raise InvalidArgument(f"--init-path {path}: not executable")
    if elf.read(path) is None:
        raise InvalidArgument(f"--init-path {path}: not an ELF program")
