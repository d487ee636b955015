"""Which runtime runs a container: ours, or another OCI runtime that the daemon was told of (`--add-runtime`)."""

import functools
import json
import os
import shutil
import subprocess
from typing import Any

from wherry.engine.config import EngineConfig, OciRuntime
from wherry.errors import Internal, InvalidArgument
from wherry.runtime import oci_templates

OWN = ("wherry", "wherry-runtime", "runc", "io.containerd.runc.v2")
"""Names that mean our own runtime unless somebody registers another under one that is not `RESERVED`: what clients ask
for when they want the ordinary one."""
RESERVED = frozenset(("wherry", "wherry-runtime"))

_FEATURES = "org.opencontainers.runtime-spec.features"
_FEATURES_TIMEOUT_S = 10.0
_SHOWN = ("wherry", "runc", "io.containerd.runc.v2")


def check_name(name: str, config: EngineConfig) -> None:
    """Whether a container may ask for the runtime. Raises InvalidArgument.

    Docker also takes any name that could be a containerd shim's, and fails at start; so does `command`.
    """
    if name not in config.runtimes and name not in OWN and not _shim(name):
        raise InvalidArgument(f"unknown or invalid runtime name: {name}")


def command(config: EngineConfig, name: str) -> list[str] | None:
    """How to call the runtime of a container that is to start: its executable's path and its first arguments; None
    for our own. Raises InvalidArgument for a name that is not known any more, Internal for a shim."""
    name = name or config.default_runtime
    registered = config.runtimes.get(name)
    if registered is not None:
        return [_path(registered), *registered.args]
    check_name(name, config)
    if name not in OWN:
        raise Internal(
            "failed to create task for container: failed to start shim: failed to resolve runtime path: "
            f'runtime "{name}" binary not installed "{_shim(name)}": file does not exist'
        )
    return None


def _shim(name: str) -> str:
    """The executable containerd would look for (IsPermissibleC8dRuntimeName), "" when the name can't be a shim's."""
    parts = name.split(".")
    if "/" in name or len(parts) < 2 or not parts[0]:
        return ""
    return f"containerd-shim-{parts[-2]}-{parts[-1]}"


def _path(runtime: OciRuntime) -> str:
    return shutil.which(runtime.path) or runtime.path


def describe(config: EngineConfig) -> dict[str, Any]:
    """`Runtimes` of GET /info: the path and, where the runtime tells them, the features of each. Blocks."""
    own = {"path": "wherry-runtime", "status": {_FEATURES: _own_features()}}
    shown: dict[str, Any] = dict.fromkeys(_SHOWN, own)
    return shown | {name: _describe(runtime) for name, runtime in config.runtimes.items()}


@functools.cache
def _own_features() -> str:
    return json.dumps(oci_templates.features(), separators=(",", ":"))


def _describe(runtime: OciRuntime) -> dict[str, Any]:
    shown: dict[str, Any] = {"path": runtime.path}
    if runtime.args:
        shown["runtimeArgs"] = list(runtime.args)
    path = _path(runtime)
    try:
        status = os.stat(path)
    except OSError:
        return shown
    if features := _features(path, runtime.args, status.st_mtime_ns):
        shown["status"] = {_FEATURES: features}
    return shown


@functools.lru_cache(maxsize=64)
def _features(path: str, args: tuple[str, ...], _changed: int) -> str:
    """What `RUNTIME features` prints, "" when it can't; asked again when the executable has changed."""
    try:
        result = subprocess.run(
            [path, *args, "features"], capture_output=True, timeout=_FEATURES_TIMEOUT_S, stdin=subprocess.DEVNULL
        )
        decoded = json.loads(result.stdout) if result.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return ""
    return json.dumps(decoded, separators=(",", ":")) if isinstance(decoded, dict) else ""
