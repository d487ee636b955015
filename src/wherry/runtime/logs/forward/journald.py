"""The journal's native protocol: fields in a datagram, or in a sealed file when they are too large for one
(systemd.io: JOURNAL_NATIVE_PROTOCOL)."""

import errno
import os
import re
import socket
from collections.abc import Iterator
from typing import Any

from wherry.linux import fdpass, memfd
from wherry.runtime.logs.forward.base import Message, Prompt, Refusal

PATH = "/run/systemd/journal/socket"
_PRIORITIES = {1: b"6", 2: b"3"}
_NOT_IN_NAMES = re.compile(r"[^A-Z0-9_]")


class Journald(Prompt):
    """`config`: "fields" of every message by their journal names, "extra" by the user's. Implements `Target`."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._path: str = config.get("path", PATH)
        fields = dict(config["fields"]) | {_name(name): text for name, text in config["extra"].items()}
        self._fixed = b"".join([field(name.encode(), text.encode("utf-8", "replace")) for name, text in fields.items()])
        self._sock: socket.socket | None = None

    def connect(self) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._sock.connect(self._path)
        except OSError:
            self.close()
            raise Refusal("journald is not enabled on this host") from None

    def send(self, messages: Iterator[Message]) -> None:
        for message in messages:
            if message.text:
                self._deliver(self._encode(message))

    def close(self) -> None:
        if self._sock:
            self._sock.close()
            self._sock = None

    def _encode(self, message: Message) -> bytes:
        parts = [field(b"MESSAGE", message.text), field(b"PRIORITY", _PRIORITIES[message.stream]), self._fixed]
        parts.append(field(b"CONTAINER_LOG_EPOCH_NS", b"%d" % message.time_ns))
        if message.partial:
            if not message.partial.last:
                parts.append(field(b"CONTAINER_PARTIAL_MESSAGE", b"true"))
            parts.append(field(b"CONTAINER_PARTIAL_ID", message.partial.id.encode()))
            parts.append(field(b"CONTAINER_PARTIAL_ORDINAL", b"%d" % message.partial.ordinal))
            parts.append(field(b"CONTAINER_PARTIAL_LAST", b"true" if message.partial.last else b"false"))
        return b"".join(parts)

    def _deliver(self, data: bytes) -> None:
        for _ in range(2):
            try:
                if self._sock is None:
                    self.connect()
                assert self._sock
                self._send_or_pass(self._sock, data)
                return
            except OSError:
                self.close()

    @staticmethod
    def _send_or_pass(sock: socket.socket, data: bytes) -> None:
        try:
            sock.send(data)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            file = memfd.sealed("wherry-journal", data)
            try:
                fdpass.send(sock, b"", [file])
            finally:
                os.close(file)


def field(name: bytes, value: bytes) -> bytes:
    """One field of an entry."""
    if b"\n" in value:
        return name + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name + b"=" + value + b"\n"


def _name(text: str) -> str:
    return _NOT_IN_NAMES.sub("_", text.upper()).lstrip("_")
