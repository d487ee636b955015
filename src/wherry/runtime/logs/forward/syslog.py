"""syslog: RFC 3164, RFC 5424 (framed as RFC 5425 over TLS), and the form of a Unix machine's own."""

import os
import socket
import time
from collections.abc import Iterator
from typing import Any

from wherry.runtime.logs.forward.base import Message, Prompt, Refusal, dial

_SEVERITY = {1: 6, 2: 3}  # stdout is information, stderr an error
_OWN = (("unixgram", "/dev/log"), ("unix", "/dev/log"), ("unixgram", "/var/run/syslog"), ("unix", "/var/run/syslog"))


class Syslog(Prompt):
    """`config`: see `engine.log_drivers`; with it the expanded "tag". Implements `Target`."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._protocol: str = config["protocol"]
        self._tag: str = config["tag"]
        self._host = socket.gethostname()
        self._form = {"": self._unix, "rfc3164": self._rfc3164}.get(config["format"], self._rfc5424)
        self._framed = config["format"].startswith("rfc5424") and self._protocol == "tcp+tls"
        self._sock: socket.socket | None = None

    def connect(self) -> None:
        self._sock = self._dial_own() if not self._protocol else self._dial()

    def send(self, messages: Iterator[Message]) -> None:
        if self._protocol in ("tcp", "tcp+tls", "unix"):
            self._deliver(b"".join([self._encode(message) for message in messages]))
            return
        for message in messages:
            self._deliver(self._encode(message))

    def close(self) -> None:
        if self._sock:
            self._sock.close()
            self._sock = None

    def _dial(self) -> socket.socket:
        return dial(self._protocol, self._config["address"], self._secure if self._protocol == "tcp+tls" else None)

    @staticmethod
    def _dial_own() -> socket.socket:
        for protocol, path in _OWN:
            try:
                return dial(protocol, path)
            except Refusal:
                continue
        raise Refusal("Unix syslog delivery error")

    def _secure(self, plain: socket.socket) -> socket.socket:
        return secure(plain, self._config, self._config["address"][0])

    def _deliver(self, data: bytes) -> None:
        """Try, then once more on a new connection; drop otherwise."""
        for _ in range(2):
            try:
                if self._sock is None:
                    self.connect()
                assert self._sock
                self._sock.sendall(data)
                return
            except OSError:
                self.close()

    def _encode(self, message: Message) -> bytes:
        priority = self._config["facility"] * 8 + _SEVERITY[message.stream]
        head = self._form(priority, message.time_ns / 1e9).encode("utf-8", "surrogateescape")
        whole = head + message.text + b"\n"
        return b"%d " % len(whole) + whole if self._framed else whole

    def _unix(self, priority: int, when: float) -> str:
        return f"<{priority}>{_stamp(when)} {self._tag}[{os.getpid()}]: "

    def _rfc3164(self, priority: int, when: float) -> str:
        return f"<{priority}>{_stamp(when)} {self._host} {self._tag}[{os.getpid()}]: "

    def _rfc5424(self, priority: int, when: float) -> str:
        fraction = f".{int(when % 1 * 1_000_000):06d}" if self._config["format"] == "rfc5424micro" else ""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(when)) + fraction + _zone(when)
        return f"<{priority}>1 {stamp} {self._host} {self._tag} {os.getpid()} {self._tag} - "


def secure(plain: socket.socket, config: dict[str, Any], host: str) -> socket.socket:
    """TLS over `plain` with the "ca", "certificate", "key", "verify" of `config`. Raises `Refusal`."""
    import ssl  # only who needs it pays for it

    context = ssl.create_default_context()
    try:
        if config.get("ca"):
            context.load_verify_locations(config["ca"])
        if config.get("certificate"):
            context.load_cert_chain(config["certificate"], config.get("key") or None)
    except OSError as error:
        name = config["ca"] or config["certificate"]
        reason = f"open {name}: {(error.strerror or str(error)).lower()}"
        raise Refusal(f'could not read CA certificate "{name}": {reason}') from None
    if not config.get("verify", True):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except ssl.SSLError as error:
        raise Refusal(f"tls: {error.reason or error}") from None


def _stamp(when: float) -> str:
    moment = time.localtime(when)
    return time.strftime("%b ", moment) + f"{moment.tm_mday:2d}" + time.strftime(" %H:%M:%S", moment)


def _zone(when: float) -> str:
    offset = time.strftime("%z", time.localtime(when))
    return "Z" if offset == "+0000" else f"{offset[:3]}:{offset[3:]}"
