"""`docker import URL`: a root file system's archive that the engine itself fetches, by HTTP or HTTPS."""

from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from wherry.errors import Forbidden, Internal, InvalidArgument, NotFound, Unauthorized, WherryError
from wherry.images import oci, progress
from wherry.registry.cancel import Cancellation

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

    from wherry.images.store import ImageStore

_TIMEOUT_S = 60
_BODY_SHOWN = 4096
_KINDS: dict[int, type[WherryError]] = {404: NotFound, 400: InvalidArgument, 401: Unauthorized, 403: Forbidden}


class UrlImport:
    """One import from a URL. `run` blocks and is called in a worker thread, `cancel` in any. `image_id` is there after
    `run`."""

    def __init__(
        self,
        store: "ImageStore",
        url: str,
        *,
        reference: str,
        changes: list[str],
        message: str,
        platform: oci.Platform | None,
        docker_version: str,
        report: progress.Report,
    ) -> None:
        """`url` without a scheme is HTTP; the rest as of `ImageStore.import_`."""
        self.image_id = ""
        self._store = store
        self._url = url if "://" in url else f"http://{url}"
        self._reference = reference
        self._changes = changes
        self._message = message or f"Imported from {self._url}"
        self._platform = platform
        self._docker_version = docker_version
        self._report = report
        self._cancellation = Cancellation()

    def cancel(self) -> None:
        """Nobody wants it any more: `run` raises with the next bytes that come."""
        self._cancellation.cancel()

    def run(self) -> None:
        """Fetch and import. Raises with Docker's words."""
        with _open(self._url) as reply:
            self._report(progress.message(f"Downloading from {self._url}"))
            total = int(reply.headers.get("Content-Length") or 0)  # type: ignore[attr-defined]
            stream = _Counted(reply, total, self._report, self._cancellation)
            self.image_id = self._store.import_(
                stream,  # type: ignore[arg-type]
                reference=self._reference,
                changes=self._changes,
                message=self._message,
                docker_version=self._docker_version,
                platform=self._platform,
            )


class _Counted:
    """A reply's body that tells how far it is."""

    def __init__(self, reply: IO[bytes], total: int, report: progress.Report, cancellation: Cancellation) -> None:
        self._reply = reply
        self._total = total
        self._report = report
        self._cancellation = cancellation
        self._pace = progress.Pace()
        self._current = 0

    def read(self, limit: int = -1) -> bytes:
        self._cancellation.check()
        try:
            data = self._reply.read(limit)
        except OSError as error:
            raise Internal(f"unexpected EOF: {error}") from error
        self._current += len(data)
        if data and self._pace():
            self._report(progress.amount("Importing", self._current, self._total))
        return data


def _open(url: str) -> IO[bytes]:
    from urllib.error import HTTPError, URLError

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise Internal(f'Get "{url}": unsupported protocol scheme "{parts.scheme}"')
    if not parts.hostname:
        raise Internal(f'Get "{parts.scheme}:": http: no Host in request URL')
    try:
        reply: IO[bytes] = _opener().open(url, timeout=_TIMEOUT_S)
    except HTTPError as error:
        with error:
            body = error.read(_BODY_SHOWN).decode(errors="replace").strip()
        kind = _KINDS.get(error.code, Internal)
        raise kind(f"failed to GET {url} with status {error.code} {error.reason}: {body}") from None
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ConnectionRefusedError):
            port = parts.port or {"http": 80, "https": 443}[parts.scheme]
            reason = f"dial tcp {parts.hostname}:{port}: connect: connection refused"
        raise Internal(f'Get "{url}": {reason}') from None
    return reply


def _opener() -> "OpenerDirector":
    """HTTP and HTTPS, through the environment's proxies, with redirects to no other kind of place."""
    from urllib import request

    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPRedirectHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener
