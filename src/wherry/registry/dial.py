"""Sockets to registries: addresses, proxies, TLS. All of it can be broken off."""

import base64
import socket
import ssl
import threading
import time
from ipaddress import ip_address
from typing import NamedTuple

from wherry.registry.cancel import Cancellation
from wherry.registry.proxies import Proxy

_HANDSHAKE_S = 10.0
_PROXY_HEAD_MAX = 64 * 1024
_HEAD_START = 0.3  # seconds each address has before the next one is tried beside it, as in RFC 8305

Address = tuple[socket.AddressFamily, str]


class DialError(Exception):
    """Why no connection came about; `passing`: trying again may help."""

    def __init__(self, reason: str, *, passing: bool = True) -> None:
        super().__init__(reason)
        self.passing = passing


class Target(NamedTuple):
    """Where to connect. `context`: TLS, None for plain. `addresses`: use these instead of asking the resolver."""

    host: str
    port: int
    context: ssl.SSLContext | None = None
    proxy: Proxy | None = None
    addresses: tuple[str, ...] = ()


def shut(sock: socket.socket) -> None:
    """Make whoever blocks on `sock` return; the descriptor stays open."""
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not SSLSocket's, which takes the state away from the reader
    except OSError:
        pass


def dial(target: Target, timeout: float, cancel: Cancellation) -> socket.socket:
    """A connected socket, with TLS where the target has it; `timeout` seconds for each step, and left on the socket.
    Raises `DialError`, `Cancelled`."""
    proxy = target.proxy
    via = Target(proxy.host, proxy.port) if proxy else target
    if proxy and proxy.tls:
        raise DialError("proxies over TLS are not supported; use an http:// proxy", passing=False)
    sock = _connect(via, timeout, cancel, "proxyconnect tcp: " if proxy else "")
    try:
        if proxy and target.context:
            with cancel.breaking(lambda: shut(sock)):
                _tunnel(sock, target, proxy)
        return _secure(sock, target, target.context, cancel) if target.context else sock
    except BaseException:
        sock.close()
        raise


def _connect(target: Target, timeout: float, cancel: Cancellation, prefix: str) -> socket.socket:
    addresses = list(target.addresses) or resolve(target.host, cancel, prefix)
    return _Race(addresses, target.port, timeout, cancel, prefix).winner()


def resolve(host: str, cancel: Cancellation, prefix: str = "") -> list[str]:
    """The addresses of `host`, in the order to try them. Raises `DialError`, `Cancelled`."""
    if _is_address(host):
        return [host]
    found: list[str] = []
    failures: list[OSError | UnicodeError] = []
    done = threading.Event()

    def look_up() -> None:
        try:
            infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            found.extend(dict.fromkeys(str(info[4][0]) for info in infos))
        except (OSError, UnicodeError) as error:
            failures.append(error)
        done.set()

    threading.Thread(target=look_up, name="resolve", daemon=True).start()  # getaddrinfo cannot be broken off
    with cancel.breaking(done.set):
        done.wait()
        cancel.check()
    if failures or not found:
        raise DialError(f"{prefix}dial tcp: lookup {host}: {_lookup_reason(failures)}", passing=_may_pass(failures))
    return found


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _lookup_reason(failures: list[OSError | UnicodeError]) -> str:
    return "server misbehaving" if _may_pass(failures) else "no such host"


def _may_pass(failures: list[OSError | UnicodeError]) -> bool:
    return any(isinstance(error, OSError) and error.errno == socket.EAI_AGAIN for error in failures)


class _Race:
    """Connects to several addresses, each a little after the one before; the first that succeeds wins."""

    def __init__(self, addresses: list[str], port: int, timeout: float, cancel: Cancellation, prefix: str) -> None:
        self._addresses = addresses
        self._port = port
        self._timeout = timeout
        self._cancel = cancel
        self._prefix = prefix
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._sockets: list[socket.socket] = []
        self._won: socket.socket | None = None
        self._failures: list[DialError] = []

    def winner(self) -> socket.socket:
        try:
            with self._cancel.breaking(self._stop):
                if len(self._addresses) == 1:
                    self._try(self._addresses[0])
                else:
                    self._run()
                self._cancel.check()
        except BaseException:
            if self._won is not None:
                self._won.close()
            raise
        if self._won is None:
            raise self._failures[0] if self._failures else DialError(f"{self._prefix}dial tcp: i/o timeout")
        return self._won

    def _run(self) -> None:
        threads: list[threading.Thread] = []
        for address in self._addresses:
            thread = threading.Thread(target=self._try, args=(address,), name="connect", daemon=True)
            threads.append(thread)
            thread.start()
            if self._await(thread, _HEAD_START):
                return
        deadline = time.monotonic() + self._timeout
        for thread in threads:
            if self._await(thread, max(0.0, deadline - time.monotonic()) + 1):
                return

    def _await(self, thread: threading.Thread, seconds: float) -> bool:
        """Wait until `thread` ended or somebody won; whether the latter."""
        deadline = time.monotonic() + seconds
        while thread.is_alive() and not self._done.is_set() and (left := deadline - time.monotonic()) > 0:
            self._done.wait(min(left, 0.05))
        return self._done.is_set()

    def _stop(self) -> None:
        self._done.set()
        for sock in list(self._sockets):
            shut(sock)

    def _try(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        with self._lock:
            self._sockets.append(sock)
        sock.settimeout(self._timeout)
        try:
            sock.connect((address, self._port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except OSError as error:
            sock.close()
            with self._lock:
                self._failures.append(DialError(self._failure(address, error)))
            return
        self._finish(sock)

    def _finish(self, sock: socket.socket) -> None:
        with self._lock:
            if self._won is None and not self._done.is_set():
                self._won = sock
                self._done.set()
                return
        sock.close()

    def _failure(self, address: str, error: OSError) -> str:
        where = f"[{address}]" if ":" in address else address
        reason = "i/o timeout" if isinstance(error, TimeoutError) else f"connect: {_words(error)}"
        return f"{self._prefix}dial tcp {where}:{self._port}: {reason}"


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


# -- proxies


def _tunnel(sock: socket.socket, target: Target, proxy: Proxy) -> None:
    """CONNECT through an HTTP proxy."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    lines = [f"CONNECT {host}:{target.port} HTTP/1.1", f"Host: {host}:{target.port}", *_authorization(proxy)]
    try:
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        status, reason = _status(_head(sock))
    except TimeoutError:
        raise DialError("proxyconnect tcp: i/o timeout") from None
    except OSError as error:
        raise DialError(f"proxyconnect tcp: {_words(error)}") from None
    if status != 200:
        raise DialError(reason or f"proxy answered {status}", passing=status in (502, 503, 504))


def _authorization(proxy: Proxy) -> list[str]:
    return [f"Proxy-Authorization: {value}"] if (value := proxy_authorization(proxy)) else []


def proxy_authorization(proxy: Proxy) -> str:
    """The value of `Proxy-Authorization`, "" for none."""
    if not proxy.username:
        return ""
    return "Basic " + base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()


def _head(sock: socket.socket) -> bytes:
    """The head of the proxy's reply, byte by byte at its end: what follows belongs to TLS."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        seen = sock.recv(4096, socket.MSG_PEEK)
        if not seen or len(head) > _PROXY_HEAD_MAX:
            raise DialError("proxyconnect tcp: unexpected EOF" if not seen else "proxyconnect tcp: malformed reply")
        end = (bytes(head[-3:]) + seen).find(b"\r\n\r\n")
        head += sock.recv(len(seen) if end < 0 else end + 4 - len(head[-3:]))
    return bytes(head)


def _status(head: bytes) -> tuple[int, str]:
    version, _, rest = head.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")
    if not version.startswith("HTTP/1.") or not (rest[:3].isascii() and rest[:3].isdecimal()):
        raise DialError(f"malformed HTTP response {head[:40]!r}", passing=False)
    return int(rest[:3]), rest[4:]


# -- TLS


def _secure(sock: socket.socket, target: Target, context: ssl.SSLContext, cancel: Cancellation) -> ssl.SSLSocket:
    sock.settimeout(min(sock.gettimeout() or _HANDSHAKE_S, _HANDSHAKE_S))
    try:
        tls = context.wrap_socket(sock, server_hostname=target.host, do_handshake_on_connect=False)
    except (OSError, ValueError) as error:
        raise DialError(f"tls: {error}", passing=False) from None
    try:
        with cancel.breaking(lambda: shut(tls)):
            tls.do_handshake()
    except BaseException as error:
        tls.close()
        raise _handshake_failure(error, target) if isinstance(error, OSError) else error from None
    return tls


def _handshake_failure(error: OSError, target: Target) -> DialError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return DialError(f"tls: failed to verify certificate: x509: {_x509(error, target)}", passing=False)
    if isinstance(error, ssl.SSLError):
        return tls_failure(error)
    if isinstance(error, TimeoutError):
        return DialError("net/http: TLS handshake timeout")
    return DialError("EOF" if isinstance(error, ConnectionResetError) else _words(error))


_UNKNOWN_AUTHORITY = (18, 19, 20, 21)  # X509_V_ERR_*: self-signed, in the chain too; no issuer; no first certificate
_NOT_VALID_NOW = (9, 10)
_WRONG_HOST, _WRONG_ADDRESS = 62, 64


def _x509(error: ssl.SSLCertVerificationError, target: Target) -> str:
    if error.verify_code in _UNKNOWN_AUTHORITY:
        return "certificate signed by unknown authority"
    if error.verify_code in _NOT_VALID_NOW:
        return "certificate has expired or is not yet valid"
    if error.verify_code == _WRONG_HOST:
        return f"certificate is not valid for {target.host}"
    if error.verify_code == _WRONG_ADDRESS:
        return f"cannot validate certificate for {target.host} because it doesn't contain any IP SANs with it"
    return error.verify_message


_REASONS: dict[str, str] = {
    "WRONG_VERSION_NUMBER": "http: server gave HTTP response to HTTPS client",
    "RECORD_LAYER_FAILURE": "http: server gave HTTP response to HTTPS client",
    "HTTP_REQUEST": "http: server gave HTTP response to HTTPS client",
    "UNEXPECTED_EOF_WHILE_READING": "EOF",
}


def tls_failure(error: ssl.SSLError) -> DialError:
    """What went wrong with TLS, in Go's words."""
    reason = error.reason or ""
    if isinstance(error, ssl.SSLEOFError):
        return DialError("EOF")
    if reason in _REASONS:
        return DialError(_REASONS[reason], passing=False)
    words = reason.lower().replace("tlsv1_alert_", "").replace("tlsv13_alert_", "").replace("sslv3_alert_", "")
    return DialError(f"remote error: tls: {words.replace('_', ' ')}" if words else f"tls: {error}", passing=False)
