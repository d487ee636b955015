"""Reading a blob, from several sources and across connections that break."""

import re
from typing import NamedTuple

from wherry.registry.auth import error_of
from wherry.registry.errors import RegistryError
from wherry.registry.retry import Attempts
from wherry.registry.sources import Source
from wherry.registry.transport import Response

PIECE = 256 * 1024
_PROGRESS = 1 << 20  # bytes that make up for a failure: fewer, and a registry could keep us for ever
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Blob(NamedTuple):
    """`digest` and `size` as a descriptor announces them."""

    digest: str
    size: int


class BlobReader:
    """The bytes of a blob from an offset on; a context manager. The caller verifies the digest. Not for several threads
    at a time."""

    def __init__(self, blob: Blob, sources: list[Source], attempts: Attempts, offset: int = 0) -> None:
        self._blob = blob
        self._sources = list(sources)
        self._attempts = attempts
        self._at = offset
        self._failed_at = offset
        self._response: Response | None = None
        self._skip = 0

    @property
    def attempts(self) -> int:
        """How many have failed."""
        return self._attempts.failed

    def read(self, limit: int = PIECE) -> bytes:
        """Up to `limit` bytes, waiting for at least one; b"" at the end, once `size` bytes were there and nothing is
        behind them. Raises `RegistryError` when they cannot be had, `Cancelled`."""
        while True:
            try:
                if self._response is None:
                    if self._at == self._blob.size:
                        return b""
                    self._response = self._open()
                return self._next(self._response, limit)
            except RegistryError as error:
                self._failed(error)

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def __enter__(self) -> "BlobReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next(self, response: Response, limit: int) -> bytes:
        while self._skip:
            self._skip -= len(self._read(response, min(limit, self._skip)))
        if self._at == self._blob.size:
            self._expect_end(response)
            return b""
        data = self._read(response, min(limit, self._blob.size - self._at))
        self._at += len(data)
        return data

    def _read(self, response: Response, limit: int) -> bytes:
        data = response.read_some(limit)
        if not data:
            raise RegistryError(f"{response.request.url}: unexpected EOF", passing=True)
        return data

    def _expect_end(self, response: Response) -> None:
        if not response.ended and response.read_some(1):
            raise self._wrong_size("more")
        self.close()

    def _wrong_size(self, how: str) -> RegistryError:
        return RegistryError(
            f"blob {self._blob.digest}: the registry has {how} than the {self._blob.size} bytes announced"
        )

    def _failed(self, error: RegistryError) -> None:
        """After a failure: the next source is asked; when each had its turn, after a pause."""
        self._drop()
        if self._at - self._failed_at >= _PROGRESS:
            self._attempts.failed = 0
        self._failed_at = self._at
        self._attempts.pause(error)

    def _drop(self) -> None:
        """Give up the connection: what is left in it is of no use."""
        if self._response is not None:
            self._response.abandon()
            self._response = None

    def _open(self) -> Response:
        """A reply that has the blob from where we are, after skipping `_skip` bytes. The source that gave it comes
        first from now on; one that fails, last."""
        failure: RegistryError | None = None
        for source in list(self._sources):
            try:
                return self._ask(source)
            except RegistryError as error:
                failure = _better(failure, error)
                self._sources.remove(source)
                self._sources.append(source)
        assert failure is not None
        raise failure

    def _ask(self, source: Source) -> Response:
        headers = {"Range": f"bytes={self._at}-"} if self._at else {}
        response = source.send("GET", f"blobs/{self._blob.digest}", headers=headers)
        try:
            return self._checked(response)
        except BaseException:
            response.abandon()
            raise

    def _checked(self, response: Response) -> Response:
        if response.status not in (200, 206) or (response.status == 206 and not self._at):
            raise _missing(response) if response.status == 404 else _unexpected(response)
        if response.header("Content-Encoding").lower() not in ("", "identity"):
            raise RegistryError(f"{response.request.url}: unexpected Content-Encoding")
        if response.status == 206:
            self._check_range(response)
        self._skip = self._at if response.status == 200 else 0
        left = self._blob.size - self._at + self._skip
        if response.content_type == "text/html" and response.length != left:
            raise RegistryError(f"{response.request.url} is not a registry's: it answers with an HTML page")
        if response.length is not None and response.length != left:
            raise self._wrong_size("less" if response.length < left else "more")
        return response

    def _check_range(self, response: Response) -> None:
        match = _CONTENT_RANGE.fullmatch(response.header("Content-Range")[:80].strip())
        first, total = (int(match[1]), match[3]) if match else (-1, "")
        if first != self._at or total not in ("*", str(self._blob.size)):
            raise RegistryError(f"{response.request.url}: the registry sends another range than asked for")


def _missing(response: Response) -> RegistryError:
    return RegistryError("unknown blob", code="BLOB_UNKNOWN", status=response.status)


def _unexpected(response: Response) -> RegistryError:
    if response.status >= 400:
        return error_of(response)
    return RegistryError(f"{response.request.url}: unexpected HTTP status {response.status} {response.reason}".rstrip())


def _better(first: RegistryError | None, second: RegistryError) -> RegistryError:
    """Which of two sources' failures to tell: one that may pass, else that of the registry itself, which is last."""
    return first if first is not None and first.passing and not second.passing else second
