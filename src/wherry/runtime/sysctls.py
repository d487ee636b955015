"""Which kernel parameters a container may set: those of namespaces that are its own."""

from collections.abc import Mapping
from typing import Any

from wherry.runtime.failure import StartError

_IPC = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)


def normalise(name: str) -> str:
    """The dotted form of a parameter's name. "net/ipv4/conf/eth0.1/x" and "net.ipv4.conf.eth0/1.x" are the same: the
    first separator tells which of the two writings it is (sysctl.d(5))."""
    first_dot, first_slash = name.find("."), name.find("/")
    if first_slash >= 0 and (first_dot < 0 or first_slash < first_dot):
        return name.translate({ord("/"): ".", ord("."): "/"})
    return name


def path_of(name: str) -> str:
    """The file below /proc/sys of a parameter in dotted form."""
    return name.translate({ord("/"): ".", ord("."): "/"})


def plan(values: Mapping[str, Any], own: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """(path below /proc/sys, value) of each parameter. `own` are the types of the namespaces that the container does
    not share with the host. Raises StartError for a parameter it may not set."""
    result = []
    for name, value in values.items():
        dotted = normalise(name)
        _check(name, dotted, own)
        parts = path_of(dotted).split("/")
        if any(part in ("", ".", "..") for part in parts) or "\0" in name or not isinstance(value, str):
            raise StartError("InvalidArgument", f"sysctl {name!r} is not a valid name or its value is no string")
        result.append(("/".join(parts), value))
    return tuple(result)


def _check(name: str, dotted: str, own: frozenset[str]) -> None:
    if dotted in _IPC or dotted.startswith("fs.mqueue."):
        _need("ipc", name, own, "IPC")
    elif dotted.startswith("net."):
        _need("network", name, own, "network")
    elif dotted.startswith("user."):
        _need("user", name, own, "user")
    elif dotted == "kernel.domainname":
        _need("uts", name, own, "UTS")
    elif dotted == "kernel.hostname":
        raise StartError("InvalidArgument", f'sysctl "{name}" conflicts with the hostname of the configuration')
    else:
        raise StartError("InvalidArgument", f'sysctl "{name}" is not in a separate kernel namespace')


def _need(namespace: str, name: str, own: frozenset[str], word: str) -> None:
    if namespace not in own:
        raise StartError("InvalidArgument", f'sysctl "{name}" is not allowed in the hosts {word} namespace')
