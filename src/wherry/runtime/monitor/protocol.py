"""What the daemon and a monitor say to each other.

Records on a SOCK_SEQPACKET socket; each is one byte of kind and a JSON object, with file descriptors beside it. A
record too large to send travels in a sealed memfd, the last descriptor of its record.

    daemon → monitor   {"op": name, "seq": n, …}      see `supervisor`; "ack" and "forget" have no reply; what comes
                                                      after "until" (CLOCK_MONOTONIC, s) is refused
    monitor → daemon   {"re": n, "ok": {…}}           or {"re": n, "error": {"kind", "message"}}
                       {"event": name, "number": n, …}   answered by {"op": "ack", "number": n} once handled

What only a new process needs (its OCI configuration, its seccomp filter) travels in sealed memfds of its own, which
the monitor does not read itself: see `birth`.

The first conversation of a monitor is the socket it was born with; its first record is the reply (re 0) to the
request that created it. An attachment is a descriptor and {"id", "stdin", "stdout", "stderr", "mux", "detach_keys",
"early"}, the last two in base64.
"""

import binascii
import json
import os
from _socket import socket
from typing import Any

from wherry.linux import fdpass, memfd

LARGEST_RECORD = 1 << 17  # what either side is ready to receive at once
_LARGEST_INLINE = 1 << 16
_LARGEST_MESSAGE = 1 << 26

_INLINE = b"I"
_IN_FILE = b"F"

Message = dict[str, Any]


_to_text = json.JSONEncoder(separators=(",", ":")).encode
_from_text = json.JSONDecoder().decode


def encode(message: Message) -> bytes:
    return _to_text(message).encode("ascii")


def send(
    sock: socket, payload: bytes, fds: list[int] | tuple[int, ...] = (), *, wait: bool = True, prefix: bytes = b""
) -> None:
    """Send one encoded message, with `prefix` before the record. Raises as `fdpass.send`."""
    if len(payload) <= _LARGEST_INLINE:
        fdpass.send(sock, prefix + _INLINE + payload, fds, wait=wait)
        return
    file = memfd.sealed("wherry-message", payload)
    try:
        fdpass.send(sock, prefix + _IN_FILE, [*fds, file], wait=wait)
    finally:
        os.close(file)


def receive(sock: socket, *, wait: bool = True) -> tuple[bytes, list[int]] | None:
    """Receive one record, not yet decoded, and its descriptors; None at the end of the conversation."""
    record, fds = fdpass.receive(sock, LARGEST_RECORD, wait=wait)
    if not record:
        fdpass.close_all(fds)
        return None
    return record, fds


def decode(record: bytes, fds: list[int]) -> Message:
    """The message of a record; takes the file it may have come in out of `fds`. Raises ValueError for anything that
    is not a message."""
    kind, payload = record[:1], record[1:]
    if kind == _IN_FILE and fds:
        file = fds.pop()
        try:
            return decode_file(file)
        finally:
            os.close(file)
    if kind != _INLINE:
        raise ValueError("record of an unknown kind")
    return _object(payload)


def decode_file(file: int) -> Message:
    """The message in a sealed file. Raises ValueError for anything else."""
    try:
        return _object(memfd.read(file, _LARGEST_MESSAGE))
    except OSError as error:  # a descriptor that has no seals
        raise ValueError(str(error)) from None


def _object(payload: bytes) -> Message:
    message = _from_text(payload.decode("ascii"))
    if not isinstance(message, dict):
        raise ValueError("message is not an object")
    return message


def pack_bytes(data: bytes) -> str:
    """Bytes as JSON text."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def unpack_bytes(text: str) -> bytes:
    """The reverse of `pack_bytes`. Raises ValueError."""
    return binascii.a2b_base64(text)
