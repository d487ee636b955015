"""GELF 1.1: compressed datagrams, in chunks when large, or a stream of documents that end in a zero byte."""

import json
import os
import socket
import time
import zlib
from collections.abc import Iterator
from typing import Any

from wherry.runtime.logs.forward.base import Message, Prompt, Refusal, dial

_CHUNK = 1420  # bytes of a datagram, with its header of 12: what passes an Ethernet
_MOST_CHUNKS = 128
_LEVELS = {1: 6, 2: 3}
_WINDOW = {"gzip": 31, "zlib": 15}


class Gelf(Prompt):
    """`config`: see `engine.log_drivers`; with it the "fields" of every message. Implements `Target`."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._udp: bool = config["protocol"] == "udp"
        self._host = socket.gethostname()
        fields = json.dumps(config["fields"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        self._fields = fields.encode("utf-8", "replace")[1:]
        self._sock: socket.socket | None = None

    def connect(self) -> None:
        try:
            self._sock = dial(self._config["protocol"], self._config["address"])
        except Refusal as error:
            host, port = self._config["address"]
            raise Refusal(f"gelf: cannot connect to GELF endpoint: {host}:{port} {error}") from None

    def send(self, messages: Iterator[Message]) -> None:
        for message in messages:
            if not message.text:
                continue  # a document without short_message is none
            if self._udp:
                self._send_datagrams(self._pack(self._document(message)))
            else:
                self._send_stream(self._document(message) + b"\0")

    def close(self) -> None:
        if self._sock:
            self._sock.close()
            self._sock = None

    def _document(self, message: Message) -> bytes:
        head = {
            "version": "1.1",
            "host": self._host,
            "short_message": message.text.decode("utf-8", "replace"),
            "timestamp": round(message.time_ns / 1e9, 3),
            "level": _LEVELS[message.stream],
        }
        text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
        return text[:-1] + b"," + self._fields

    def _pack(self, document: bytes) -> bytes:
        window = _WINDOW.get(self._config["compression"])
        if window is None:
            return document
        deflate = zlib.compressobj(self._config["level"], zlib.DEFLATED, window)
        return deflate.compress(document) + deflate.flush()

    def _send_datagrams(self, data: bytes) -> None:
        if len(data) <= _CHUNK:
            self._send_one(data)
            return
        size = _CHUNK - 12
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        if len(pieces) > _MOST_CHUNKS:
            return
        identity = os.urandom(8)
        for number, piece in enumerate(pieces):
            self._send_one(b"\x1e\x0f" + identity + bytes((number, len(pieces))) + piece)

    def _send_one(self, data: bytes) -> None:
        try:
            if self._sock is None:
                self.connect()
            assert self._sock
            self._sock.send(data)
        except OSError:
            pass  # nobody listens, now

    def _send_stream(self, data: bytes) -> None:
        for attempt in range(self._config["reconnects"] + 1):
            try:
                if self._sock is None:
                    if attempt:
                        time.sleep(self._config["delay"])
                    self.connect()
                assert self._sock
                self._sock.sendall(data)
                return
            except OSError:
                self.close()
