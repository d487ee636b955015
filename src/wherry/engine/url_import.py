"""`docker import URL`: a root file system's archive that the engine itself fetches, by HTTP or HTTPS."""

from typing import TYPE_CHECKING

from wherry.images import oci, progress
from wherry.registry.cancel import Cancellation

if TYPE_CHECKING:
    from wherry.engine.url_get import Body
    from wherry.images.store import ImageStore


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
        """Nobody wants it any more: `run` raises soon."""
        self._cancellation.cancel()

    def run(self) -> None:
        """Fetch and import. Raises with Docker's words."""
        from wherry.engine.url_get import Body

        with Body(self._url, self._cancellation) as body:
            self._report(progress.message(f"Downloading from {self._url}"))
            stream = _Counted(body, self._report)
            self.image_id = self._store.import_(
                stream,  # type: ignore[arg-type]
                reference=self._reference,
                changes=self._changes,
                message=self._message,
                docker_version=self._docker_version,
                platform=self._platform,
            )


class _Counted:
    """A body that tells how far it is."""

    def __init__(self, body: "Body", report: progress.Report) -> None:
        self._body = body
        self._report = report
        self._pace = progress.Pace()

    def read(self, limit: int) -> bytes:
        data = self._body.read(limit)
        if data and self._pace():
            self._report(progress.amount("Importing", self._body.current, self._body.total or 0))
        return data
