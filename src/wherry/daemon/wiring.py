"""From the daemon's configuration to what its parts are given."""

import ssl
from typing import TYPE_CHECKING

import msgspec

from wherry.engine.config import EngineConfig, OciRuntime
from wherry.engine.model import Ulimit
from wherry.errors import InvalidArgument
from wherry.http.tls import server_context

if TYPE_CHECKING:
    from wherry.daemon.config import DaemonConfig

# Options whose name in the engine is their key with underscores.
_SAME = frozenset(field.name for field in msgspec.structs.fields(EngineConfig)) - {"default_ulimits", "runtimes"}


def engine_config(config: "DaemonConfig") -> EngineConfig:
    """The engine's part of the configuration."""
    values = {key.replace("-", "_"): value for key, value in config.values.items()}
    ulimits = {name: Ulimit(**limit) for name, limit in values["default_ulimits"].items()}
    runtimes = {name: OciRuntime(entry["path"], tuple(entry["args"])) for name, entry in values["runtimes"].items()}
    return EngineConfig(default_ulimits=ulimits, runtimes=runtimes, **{k: v for k, v in values.items() if k in _SAME})


def server_tls(config: "DaemonConfig") -> ssl.SSLContext:
    """The TLS context of the tcp sockets; with `tlsverify` a client must show a certificate of `tlscacert`, and of
    no other authority (CVE-2018-12608). Raises `InvalidArgument` naming the files that can't be used."""
    authority = config["tlscacert"] if config["tlsverify"] else None
    try:
        return server_context(config["tlscert"], config["tlskey"], authority)
    except OSError as error:  # ssl.SSLError is one
        raise InvalidArgument(
            f"could not load X509 key pair (cert: {config['tlscert']}, key: {config['tlskey']}, "
            f"ca: {authority}): {error}"
        ) from None
