"""Sending a blob: in one piece where that works, from where the registry got to where it does not.

A first attempt is POST and one PUT. After a failure the registry is asked how much it has (`GET` of the upload), the
rest goes by PATCH, in chunks, and an empty PUT closes. A registry that names a least chunk (`OCI-Chunk-Min-Length`), or
to which one request was too large (413), gets chunks from the start.
"""

import io
import os
import re
import select
import socket
import ssl
import stat
from collections.abc import Callable
from typing import BinaryIO, NamedTuple
from urllib.parse import quote

from wherry import failpoint
from wherry.errors import WherryError
from wherry.registry.auth import error_of
from wherry.registry.errors import RegistryError
from wherry.registry.retry import Attempts
from wherry.registry.sources import Source
from wherry.registry.transport import Response, is_number, join_url

_PIECE = 1 << 20
_CHUNK = 16 << 20
_SMALLER_CHUNK = 1 << 20  # what proxies that limit a request let pass
_CHUNK_MAX = 1 << 30
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")
_PROGRESS = 1 << 20

Sent = Callable[[int], None]


class Payload(NamedTuple):
    """A blob to send. `open`: opens it anew, at its start. `sent` is told how many of its bytes the registry has been
    given: after a failure that may be fewer than before."""

    digest: str
    size: int
    open: Callable[[], BinaryIO]
    sent: Sent


class Answered(BrokenPipeError):
    """The registry has answered before the body was sent."""


class Piece:
    """`size` bytes of a payload from `offset` on, as the body of a request."""

    def __init__(self, payload: Payload, offset: int, size: int) -> None:
        self._payload = payload
        self._offset = offset
        self.size = size

    def write(self, sock: socket.socket) -> None:
        with self._payload.open() as file:
            at, end = self._offset, self._offset + self.size
            plain = not isinstance(sock, ssl.SSLSocket) and _is_regular(file)
            if not plain:
                file.seek(at)
            while at < end:
                count = min(_PIECE, end - at)
                at += _send_file(sock, file, at, count) if plain else _send_read(sock, file, count)
                self._payload.sent(at)
                if at < end and _readable(sock):
                    raise Answered


def _is_regular(file: BinaryIO) -> bool:
    """Whether its bytes are those of a file, for sendfile: a GzipFile has a descriptor, too."""
    raw = file.raw if isinstance(file, io.BufferedReader) else file
    if not isinstance(raw, io.FileIO):
        return False
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def _send_file(sock: socket.socket, file: BinaryIO, at: int, count: int) -> int:
    sent = sock.sendfile(file, at, count)
    return sent or _cut_short()


def _send_read(sock: socket.socket, file: BinaryIO, count: int) -> int:
    data = file.read(count)
    sock.sendall(data)
    return len(data) or _cut_short()


def _cut_short() -> int:
    raise RegistryError("the blob became shorter while it was sent")


def _readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


class Upload:
    """One blob on its way. `location`: an upload that is open already, "" for none."""

    def __init__(self, source: Source, payload: Payload, attempts: Attempts, location: str = "") -> None:
        self._source = source
        self._payload = payload
        self._attempts = attempts
        self._location = location
        self._at = 0
        self._failed_at = 0
        self._chunk = 0  # 0: all at once

    def run(self) -> None:
        """Send it; raises what made it impossible. What the registry was left with is cancelled then."""
        try:
            while not self._attempt():
                pass
        except BaseException:
            self._cancel()
            raise

    def _attempt(self) -> bool:
        try:
            if not self._location:
                self._start()
            failpoint.hit("registry.upload.started")
            self._send()
            return True
        except RegistryError as error:
            self._recover(error)
            return False

    def _recover(self, error: RegistryError) -> None:
        """Get ready for another attempt, or raise `error`."""
        if error.status == 413 and self._chunk != _SMALLER_CHUNK:
            self._chunk = _SMALLER_CHUNK
        else:
            lost = _is_lost(error) or (error.status == 416 and not self._at)
            error.passing = error.passing or lost or error.status == 416
            self._attempts.pause(error)
            self._location = "" if lost else self._location
            self._chunk = self._chunk or _CHUNK  # so that the next failure costs less
        self._find_out()
        if self._at - self._failed_at >= _PROGRESS:
            self._attempts.failed = 0
        self._failed_at = self._at

    def _start(self) -> None:
        with self._source.send("POST", "blobs/uploads/", push=True) as response:
            if response.status != 202:
                raise error_of(response)
            self._follow(response)
        self._at = 0
        least = response.header("OCI-Chunk-Min-Length")
        if is_number(least) and len(least) < 12 and int(least):
            self._chunk = min(max(int(least), _CHUNK), _CHUNK_MAX)

    def _send(self) -> None:
        if self._chunk == 0 and self._at == 0:
            self._finish(self._payload.size)
            return
        while self._at < self._payload.size:
            self._patch(min(self._chunk or _CHUNK, self._payload.size - self._at))
        self._finish(0)

    def _patch(self, count: int) -> None:
        first = self._at
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{first}-{first + count - 1}",
        }
        body = Piece(self._payload, first, count)
        with self._source.send("PATCH", self._location, headers=headers, body=body, push=True) as response:
            if response.status not in (202, 204):
                raise error_of(response)
            self._follow(response)
            self._at = _received(response, first + count)
        if self._at <= first:
            raise RegistryError(f"{response.request.url}: the registry takes nothing of the blob", passing=True)

    def _finish(self, count: int) -> None:
        """PUT, with the last `count` bytes."""
        mark = "&" if "?" in self._location else "?"
        target = f"{self._location}{mark}digest={quote(self._payload.digest, safe='')}"
        body = Piece(self._payload, self._at, count)
        headers = {"Content-Type": "application/octet-stream"}
        with self._source.send("PUT", target, headers=headers, body=body, push=True) as response:
            if response.status not in (201, 204):
                raise error_of(response)
            digest = response.header("Docker-Content-Digest")
        self._location = ""
        if digest and digest != self._payload.digest:
            raise RegistryError(f"{response.request.url}: the registry stored {digest[:200]!r} instead")

    def _find_out(self) -> None:
        """Ask how much of the blob the registry has; when it cannot tell, begin anew."""
        location, self._location, self._at = self._location, "", 0
        if not location:
            return
        try:
            with self._source.send("GET", location, push=True) as response:
                if response.status not in (200, 202, 204):
                    return
                self._location = location
                self._follow(response)
                self._at = min(_received(response, 0), self._payload.size)
        except RegistryError:
            return

    def _follow(self, response: Response) -> None:
        """Go on where the registry says, relative or not."""
        where = response.header("Location")
        if where:
            self._location = join_url(response.request.url, where)
        elif not self._location:
            raise RegistryError(f"{response.request.url}: the registry does not say where to upload to")

    def _cancel(self) -> None:
        if not self._location:
            return
        try:
            with self._source.send("DELETE", self._location, push=True):
                pass
        except WherryError:
            pass  # the registry clears such uploads away by itself, in time


def _is_lost(error: RegistryError) -> bool:
    return error.code == "BLOB_UPLOAD_UNKNOWN" or error.status == 404


def _received(response: Response, otherwise: int) -> int:
    """How many bytes the registry has by its `Range: 0-LAST`. 0-0 is both nothing and one byte: as registries use it
    for nothing, it is taken so, and a first byte is sent again only where the registry then refuses it."""
    match = _RANGE.fullmatch(response.header("Range").strip()[:40])
    if match is None:
        return otherwise
    last = int(match[1])
    return last + 1 if last else (1 if otherwise == 1 else 0)
