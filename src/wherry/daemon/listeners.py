"""The sockets the daemon answers on: unix, tcp, or handed over by systemd (fd://)."""

import errno
import grp
import os
import socket
import stat
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from wherry.errors import Conflict, InvalidArgument

if TYPE_CHECKING:
    from wherry.daemon.config import DaemonConfig

_FIRST_PASSED_FD = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)


class Listener(NamedTuple):
    """A listening socket and how it is spoken to. `path` is the socket file to remove at the end, if it is ours."""

    socket: socket.socket
    address: str
    tls: bool = False
    path: str | None = None


def open_listeners(config: "DaemonConfig") -> list[Listener]:
    """Open every socket that `hosts` names; all or none.

    Raises `InvalidArgument` for an address that can't be, and `Conflict` when somebody already listens there.
    """
    opened: list[Listener] = []
    try:
        for host in config["hosts"]:
            opened += _open(host, config)
    except BaseException:
        close_listeners(opened)
        raise
    return opened


def close_listeners(listeners: list[Listener]) -> None:
    """Close what is still open and remove the socket files we made."""
    for listener in listeners:
        listener.socket.close()
        if listener.path:
            try:
                os.unlink(listener.path)
            except FileNotFoundError:
                pass


def check_host(host: str, config: "DaemonConfig") -> bool:
    """Whether TLS is spoken there. Raises `InvalidArgument` for an address that can't be, without opening it."""
    scheme, rest = _split(host)
    if scheme == "unix":
        _socket_file(rest, config["group"])
    return scheme == "tcp" and _tcp_address(rest, config).tls


def _open(host: str, config: "DaemonConfig") -> list[Listener]:
    scheme, rest = _split(host)
    if scheme == "unix":
        return [_unix(*_socket_file(rest, config["group"]))]
    if scheme == "tcp":
        return [_tcp(_tcp_address(rest, config))]
    return _passed(rest)


def _split(host: str) -> tuple[str, str]:
    """(scheme, rest) of an address."""
    scheme, separator, rest = host.partition("://")
    if not separator:
        return ("tcp", host) if ":" in host else ("unix", host)
    if scheme not in ("unix", "tcp", "fd"):
        raise InvalidArgument(f"invalid host '{host}': use unix://PATH, tcp://ADDRESS:PORT or fd://")
    return scheme, rest


def _socket_file(path: str, group: str) -> tuple[str, int | None]:
    """The path of a unix socket, and the group it shall have."""
    path = path or "/run/wherry.sock"
    if not path.startswith("/"):
        raise InvalidArgument(f"unix socket path must be absolute: '{path}'")
    return path, _group_id(group)


def _unix(path: str, gid: int | None) -> Listener:
    _remove_stale(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)  # nobody else may connect in the moment before the owner is set
    try:
        listener.bind(path)
    except OSError as error:
        listener.close()
        raise InvalidArgument(f"listen unix {path}: bind: {(error.strerror or str(error)).lower()}") from None
    finally:
        os.umask(mask)
    if gid is not None:
        os.chown(path, 0, gid)
    os.chmod(path, 0o660)
    listener.listen(512)
    return Listener(listener, f"unix://{path}", path=path)


def _remove_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise InvalidArgument(f"{path} exists and is not a socket: remove it or listen elsewhere")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError:
            os.unlink(path)
            return
    raise Conflict(f"{path} is in use: another daemon answers there")


def _group_id(group: str) -> int | None:
    """The gid of a group name or number; None when the default group does not exist."""
    if group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        if group in ("", "wherry"):
            return None
        raise InvalidArgument(f"could not find group {group}") from None


class _TcpAddress(NamedTuple):
    host: str
    port: int
    tls: bool


def _tcp_address(rest: str, config: "DaemonConfig") -> _TcpAddress:
    try:
        parts = urlsplit(f"tcp://{rest}")
        host, port = parts.hostname or "127.0.0.1", parts.port
    except ValueError:
        raise InvalidArgument(f"invalid bind address format: tcp://{rest}") from None
    tls = bool(config["tls"] or config["tlsverify"])
    if port is None:
        port = 2376 if tls else 2375
    if not config["tlsverify"] and not _allowed_without_client_certificates(host, config):
        raise InvalidArgument(
            f"tcp://{host}:{port} would give root to anyone who can reach it: use --tlsverify, "
            "or say --tlsverify=false if that is what you want"
        )
    return _TcpAddress(host, port, tls)


def _tcp(address: _TcpAddress) -> Listener:
    host, port, tls = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(f"listen tcp {host}:{port}: bind: address already in use") from None
        raise InvalidArgument(f"listen tcp {host}:{port}: bind: {(error.strerror or str(error)).lower()}") from None
    bound = listener.getsockname()[1]
    return Listener(listener, f"tcp://[{host}]:{bound}" if ":" in host else f"tcp://{host}:{bound}", tls=tls)


def _allowed_without_client_certificates(host: str, config: "DaemonConfig") -> bool:
    if "tlsverify" in config.given:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _passed(name: str) -> list[Listener]:
    """Sockets passed by systemd (sd_listen_fds(3)): all of them, or those whose name or number is `name`."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise InvalidArgument("no sockets found via socket activation: make sure the service was started by systemd")
    count = int(os.environ.get("LISTEN_FDS", "0"))
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    listeners = []
    for index in range(count):
        fd = _FIRST_PASSED_FD + index
        label = names[index] if index < len(names) else ""
        if name not in ("", "*", str(fd), label):
            continue
        passed = socket.socket(fileno=fd)
        passed.setblocking(False)
        os.set_inheritable(fd, False)
        listeners.append(Listener(passed, f"fd://{label or fd}"))
    if not listeners:
        raise InvalidArgument(f"no systemd activated socket is called '{name}'")
    return listeners
