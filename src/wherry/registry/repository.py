"""One repository of a registry: manifests, tags, blobs; read from mirrors where there are some."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, TypeVar
from urllib.parse import urlencode

from wherry.digests import check_digest, digest_of
from wherry.errors import InvalidArgument, WherryError
from wherry.registry.auth import error_of
from wherry.registry.blobs import Blob, BlobReader
from wherry.registry.cancel import Cancellation
from wherry.registry.config import RegistryConfig
from wherry.registry.endpoints import DOCKER_IO, PULL, PUSH, RESOLVE
from wherry.registry.errors import RegistryError, Unconnected, of_pull
from wherry.registry.retry import Attempts, Waiting
from wherry.registry.sources import Source
from wherry.registry.transport import BytesBody, Response, Transport, join_url
from wherry.registry.upload import Payload, Sent, Upload

ACCEPT = ", ".join(
    (
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "*/*",
    )
)
MANIFEST_MAX = 4 << 20  # bytes, as registries have it
_SMALL_BLOB_MAX = 16 << 20
_TAGS_PAGE_MAX = 4 << 20
_TAGS_MAX = 100_000
_NEXT = re.compile(r'<([^>]*)>\s*;(?:[^,]*;)?\s*rel="?next"?', re.IGNORECASE)
_NAME = re.compile(r"[a-z0-9]+(?:[._/-][a-z0-9._/-]*)?")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)

_T = TypeVar("_T")


class Resolved(NamedTuple):
    """What a tag or digest stands for."""

    media_type: str
    digest: str
    size: int


class RawManifest(NamedTuple):
    """A manifest or index as the registry sent it; `digest` is verified."""

    data: bytes
    media_type: str
    digest: str


class Repository:
    """A repository, as `Registry.repository` makes it. A context manager: the end closes its connections. Its methods
    may be called by several threads at a time. All raise `Cancelled`, and `RegistryError` or another `WherryError`
    with Docker's words."""

    def __init__(
        self, domain: str, path: str, sources: list[Source], transport: Transport, config: RegistryConfig
    ) -> None:
        """`sources`: mirrors, then the registry itself."""
        self._domain = domain
        self._path = path
        self._sources = sources
        self._transport = transport
        self._config = config
        self._lock = threading.Lock()
        self._opened: dict[str, str] = {}

    def __enter__(self) -> "Repository":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    @property
    def familiar_name(self) -> str:
        """The repository as people write it."""
        if self._domain != DOCKER_IO:
            return f"{self._domain}/{self._path}"
        short = self._path.removeprefix("library/")
        return short if "/" not in short else self._path

    @property
    def cancel(self) -> Cancellation:
        return self._transport.cancel

    # -- manifests

    def resolve(self, reference: str) -> Resolved:
        """What `reference`, a tag or a digest, stands for now. Raises `NotFound`."""
        return self._pull(reference, RESOLVE, lambda source: _head(source, reference) or self._got(source, reference))

    def _got(self, source: Source, reference: str) -> Resolved:
        manifest = _get(source, reference)
        return Resolved(manifest.media_type, manifest.digest, len(manifest.data))

    def manifest(self, reference: str) -> RawManifest:
        """The manifest or index of `reference`, a tag or a digest. Raises `NotFound`."""
        return self._pull(reference, PULL, lambda source: _get(source, reference))

    def _pull(self, reference: str, capability: str, ask: Callable[[Source], _T]) -> _T:
        _check_reference(reference)
        attempts = Attempts(self._config, self.cancel)
        while True:
            try:
                return self._first(capability, ask)
            except RegistryError as error:
                try:
                    _pause(attempts, error)
                except RegistryError as last:
                    raise self._told(last, reference) from None

    def _told(self, error: RegistryError, reference: str) -> WherryError:
        mark = "@" if ":" in reference else ":"
        return of_pull(error, self.familiar_name, f"{self.familiar_name}{mark}{reference}")

    def _first(self, capability: str, ask: Callable[[Source], _T]) -> _T:
        """What the first source that can says."""
        sources = self._able(capability)
        for source in sources[:-1]:
            try:
                return ask(source)
            except (RegistryError, InvalidArgument):
                self.cancel.check()
        return ask(sources[-1])

    def _able(self, capability: str) -> list[Source]:
        sources = [source for source in self._sources if capability in source.endpoint.capabilities]
        if not sources:
            raise RegistryError(f"no endpoints found for {self._domain}")
        return sources

    # -- tags

    def tags(self) -> list[str]:
        """The names of all tags."""
        try:
            return self._first(RESOLVE, lambda source: list(_tags(source)))
        except RegistryError as error:
            raise of_pull(error, self.familiar_name, self.familiar_name) from None

    # -- blobs

    def blob(self, digest: str, size: int, offset: int = 0, waiting: Waiting | None = None) -> BlobReader:
        """A reader of a blob from `offset` on; nothing is asked for before its first `read`. `waiting` is told of each
        pause before another attempt, in seconds."""
        check_digest(digest)
        if not 0 <= offset <= size:
            raise InvalidArgument(f"blob {digest}: invalid size {size} or offset {offset}")
        return BlobReader(Blob(digest, size), self._able(PULL), Attempts(self._config, self.cancel, waiting), offset)

    def small_blob(self, digest: str, size: int) -> bytes:
        """A whole blob, verified. Raises `RegistryError` when it cannot be had or is not what its digest says."""
        if size > _SMALL_BLOB_MAX:
            raise RegistryError(f"blob {digest}: larger than {_SMALL_BLOB_MAX} bytes")
        with self.blob(digest, size) as reader:
            try:
                data = b"".join(iter(reader.read, b""))
            except RegistryError as error:
                error.args = (f"download failed after attempts={reader.attempts}: {error}",)
                raise
        if digest_of(data, digest) != digest:
            raise RegistryError(f"filesystem layer verification failed for digest {digest}")
        return data

    def has_blob(self, digest: str) -> bool:
        """Whether the repository that is pushed to has a blob."""
        source = self._able(PUSH)[0]
        return self._patiently(lambda: _has(source, check_digest(digest)))

    # -- pushing

    def mount_blob(self, digest: str, source_path: str) -> bool:
        """Take a blob over from another repository of the same registry; False when it must be uploaded, which then
        tells whatever the registry has against it. Where it opened an upload for the blob already, it is not asked for
        another."""
        query = urlencode({"mount": check_digest(digest), "from": check_name(source_path)})
        with self._lock:
            if digest in self._opened:
                return False
        try:
            return self._mount(digest, query, source_path)
        except RegistryError:
            self.cancel.check()
            return False

    def _mount(self, digest: str, query: str, source_path: str) -> bool:
        source = self._able(PUSH)[0]
        with source.send("POST", f"blobs/uploads/?{query}", push=True, also=source_path) as response:
            if response.status == 202 and (where := response.header("Location")):
                with self._lock:
                    self._opened[digest] = join_url(response.request.url, where)  # the upload that is to follow
            return response.status == 201

    def upload_blob(self, digest: str, size: int, open_: Callable[[], BinaryIO], sent: Sent) -> None:
        """Upload a blob of `size` bytes. `open_` opens it at its start, once for each attempt; `sent` is told how many
        of its bytes were sent so far, fewer than before when an attempt failed."""
        with self._lock:
            location = self._opened.pop(digest, "")
        payload = Payload(check_digest(digest), size, open_, sent)
        attempts = Attempts(self._config, self.cancel)
        Upload(self._able(PUSH)[0], payload, attempts, location).run()

    def put_manifest(self, reference: str, data: bytes, media_type: str) -> str:
        """Store a manifest under `reference`, a tag or its digest. Returns its digest."""
        source = self._able(PUSH)[0]
        wanted = digest_of(data, _check_reference(reference) if ":" in reference else "sha256:")
        return self._patiently(lambda: _put(source, _check_reference(reference), data, media_type, wanted))

    def _patiently(self, work: Callable[[], _T]) -> _T:
        attempts = Attempts(self._config, self.cancel)
        while True:
            try:
                return work()
            except RegistryError as error:
                _pause(attempts, error)


def _pause(attempts: Attempts, error: RegistryError) -> None:
    """Wait before trying again; not for a registry that cannot even be connected to: whoever asks wants to know."""
    if isinstance(error, Unconnected):
        raise error
    attempts.pause(error)


def check_name(path: str) -> str:
    """Return the path of a repository when it may be part of a URL; raise `InvalidArgument` otherwise."""
    if not _NAME.fullmatch(path) or ".." in path or "//" in path or len(path) > 255:
        raise InvalidArgument("invalid reference format")
    return path


def _check_reference(reference: str) -> str:
    if ":" in reference:
        return check_digest(reference)
    if not _TAG.fullmatch(reference):
        raise InvalidArgument("invalid tag format")
    return reference


def _head(source: Source, reference: str) -> Resolved | None:
    """What HEAD says; None when it does not say all, which GET will."""
    with source.send("HEAD", f"manifests/{reference}", headers={"Accept": ACCEPT}) as response:
        digest = response.header("Docker-Content-Digest")
        if response.status != 200 or response.length is None or not digest or not response.content_type:
            return None
        if response.content_type == "text/html":
            return None
        if ":" in reference and digest != reference:
            raise _mismatch(reference)
        return Resolved(response.content_type, _announced(digest, response), response.length)


def _announced(digest: str, response: Response) -> str:
    try:
        return check_digest(digest)
    except InvalidArgument as error:
        raise RegistryError(f"{response.request.url}: Docker-Content-Digest: {error}") from None


def _get(source: Source, reference: str) -> RawManifest:
    with source.send("GET", f"manifests/{reference}", headers={"Accept": ACCEPT}) as response:
        if response.status != 200:
            raise error_of(response)
        if response.content_type == "text/html":
            raise RegistryError(f"{response.request.url} is not a registry's: it answers with an HTML page")
        data = response.read_all(MANIFEST_MAX)
        announced = response.header("Docker-Content-Digest")
    wanted = reference if ":" in reference else _announced(announced, response) if announced else ""
    digest = digest_of(data, wanted or "sha256:")
    if wanted and digest != wanted:
        raise _mismatch(wanted)
    return RawManifest(data, response.content_type, digest)


def _mismatch(digest: str) -> RegistryError:
    return RegistryError(f"manifest verification failed for digest {digest}")


def _has(source: Source, digest: str) -> bool:
    with source.send("HEAD", f"blobs/{digest}", push=True) as response:
        if response.status not in (200, 404):
            raise error_of(response)
        return response.status == 200


def _put(source: Source, reference: str, data: bytes, media_type: str, digest: str) -> str:
    headers, body = {"Content-Type": media_type}, BytesBody(data)
    with source.send("PUT", f"manifests/{reference}", headers=headers, body=body, push=True) as response:
        if not 200 <= response.status < 300:
            raise error_of(response)
        stored = response.header("Docker-Content-Digest")
    if stored and stored != digest:
        raise RegistryError(f"{response.request.url}: the registry stored {stored[:200]!r} instead of {digest}")
    return digest


def _tags(source: Source) -> Iterator[str]:
    rest, count = "tags/list", 0
    while rest:
        with source.send("GET", rest) as response:
            if response.status != 200:
                raise error_of(response)
            page = _names(response)
            rest = _next_page(response)
        count += len(page) + 1
        if count > _TAGS_MAX:
            raise RegistryError(f"{response.request.url}: more than {_TAGS_MAX} tags")
        yield from page


def _names(response: Response) -> list[str]:
    try:
        document = json.loads(response.read_all(_TAGS_PAGE_MAX))
    except (ValueError, RecursionError):
        raise RegistryError(f"{response.request.url}: invalid JSON") from None
    names = document.get("tags") if isinstance(document, dict) else None
    return [name for name in names if isinstance(name, str) and _TAG.fullmatch(name)] if isinstance(names, list) else []


def _next_page(response: Response) -> str:
    """The target of the next page, which `Link` names; on the same registry, whatever else it says."""
    match = _NEXT.search(response.header("Link")[:8192])
    return join_url(response.request.url, match[1]) if match else ""
