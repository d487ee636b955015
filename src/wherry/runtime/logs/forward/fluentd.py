"""Fluentd's forward protocol, in the form of one event a message: [tag, time, record, options], in MessagePack."""

import base64
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from wherry.runtime.logs.forward.base import Message, Partial, dial
from wherry.runtime.logs.forward.syslog import secure

_SOURCES = {1: b"stdout", 2: b"stderr"}
_LONGEST_WAIT_S = 60.0
_GROWTH = 1.5


class Fluentd:
    """`config`: see `engine.log_drivers`; with it "tag", "container_id", "container_name", "extra". Implements
    `Target`. With `async`, what can't be sent waits up to the buffer's limit, and a connection as old as "reconnect"
    (s, 0: never) is made anew before it is used: the server's name may mean another address by then."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._tag = string(config["tag"].encode())
        fixed = {"container_id": config["container_id"], "container_name": config["container_name"], **config["extra"]}
        self._fixed = b"".join([string(text.encode("utf-8", "replace")) for pair in fixed.items() for text in pair])
        self._count = len(fixed)
        self._sock: socket.socket | None = None
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._retry_at = 0.0
        self._opened_at = 0.0

    def connect(self) -> None:
        if not self._config["async"]:
            self._open()

    def send(self, messages: Iterator[Message]) -> None:
        for message in messages:
            chunk = base64.b64encode(os.urandom(16)) if self._config["ack"] else b""
            event = self._encode(message, chunk)
            if self._config["async"]:
                self._keep(event)
            else:
                self._send_with_patience(event, chunk)
        if self._config["async"]:
            self._send_waiting()

    @property
    def patience_s(self) -> float | None:
        return max(self._retry_at - time.monotonic(), 0.0) + 0.001 if self._waiting else None

    def close(self) -> None:
        while self._waiting and self._config["async"]:
            self._retry_at = 0.0
            self._send_waiting()
            if self._waiting:
                time.sleep(0.1)
        self._hang_up()

    def _open(self) -> None:
        protocol, address = self._config["protocol"], self._config["address"]
        wrap = (lambda plain: secure(plain, {}, address[0])) if protocol == "tls" else None
        self._sock = dial(protocol, address, wrap)
        self._opened_at = time.monotonic()
        self._sock.settimeout(self._config["timeout"] or None)

    def _send_with_patience(self, event: bytes, chunk: bytes) -> None:
        wait = self._config["retry_wait"]
        for attempt in range(self._config["max_retries"] + 1):
            if attempt:
                time.sleep(min(wait, _LONGEST_WAIT_S))
                wait *= _GROWTH
            if self._send_once(event, chunk):
                return

    def _send_once(self, event: bytes, chunk: bytes) -> bool:
        try:
            if self._sock is None or self._is_old():
                self._hang_up()
                self._open()
            assert self._sock
            self._sock.sendall(event)
            if chunk and chunk not in self._sock.recv(1024):
                raise ConnectionError("not acknowledged")
            return True
        except OSError:
            self._hang_up()
            return False

    def _is_old(self) -> bool:
        interval = self._config["reconnect"] if self._config["async"] else 0
        return bool(interval) and time.monotonic() - self._opened_at >= interval

    def _hang_up(self) -> None:
        if self._sock:
            self._sock.close()
        self._sock = None

    def _keep(self, event: bytes) -> None:
        if self._size + len(event) <= self._config["buffer"]:
            self._waiting.append(event)
            self._size += len(event)

    def _send_waiting(self) -> None:
        if time.monotonic() < self._retry_at:
            return
        while self._waiting:
            if not self._send_once(self._waiting[0], self._chunk_of(self._waiting[0])):
                self._retry_at = time.monotonic() + self._config["retry_wait"]
                return
            self._size -= len(self._waiting.popleft())

    def _chunk_of(self, event: bytes) -> bytes:
        return event[-24:] if self._config["ack"] else b""

    def _encode(self, message: Message, chunk: bytes) -> bytes:
        pairs = [(b"source", _SOURCES[message.stream]), (b"log", message.text), *_partial(message.partial)]
        record = b"".join([string(text) for pair in pairs for text in pair])
        options = b"\x81" + string(b"chunk") + string(chunk) if chunk else b"\x80"
        head = b"\x94" + self._tag + self._time(message.time_ns) + mapping(self._count + len(pairs))
        return head + self._fixed + record + options

    def _time(self, time_ns: int) -> bytes:
        seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
        if self._config["sub_second"]:
            return b"\xd7\x00" + struct.pack(">II", seconds, nanoseconds)
        return b"\xd2" + struct.pack(">I", seconds)


def _partial(partial: Partial | None) -> list[tuple[bytes, bytes]]:
    if partial is None:
        return []
    return [
        (b"partial_message", b"true"),
        (b"partial_id", partial.id.encode()),
        (b"partial_ordinal", b"%d" % partial.ordinal),
        (b"partial_last", b"true" if partial.last else b"false"),
    ]


def string(data: bytes) -> bytes:
    """A MessagePack str."""
    size = len(data)
    if size < 32:
        return bytes((0xA0 | size,)) + data
    if size < 1 << 8:
        return b"\xd9" + bytes((size,)) + data
    if size < 1 << 16:
        return b"\xda" + size.to_bytes(2, "big") + data
    return b"\xdb" + size.to_bytes(4, "big") + data


def mapping(count: int) -> bytes:
    """The head of a MessagePack map of `count` pairs."""
    return bytes((0x80 | count,)) if count < 16 else b"\xde" + count.to_bytes(2, "big")
