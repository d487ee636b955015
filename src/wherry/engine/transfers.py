"""Pull, push, sign-in and what else is asked of registries, off the loop and with events."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from wherry.engine import images
from wherry.engine.config import EngineConfig
from wherry.errors import InvalidArgument, NotFound
from wherry.images import oci, platforms, progress
from wherry.images.pool import Pool
from wherry.images.pull import Pull, decode, mismatch
from wherry.images.push import Push
from wherry.images.references import DEFAULT_DOMAIN, Reference
from wherry.registry.cancel import Cancellation
from wherry.registry.client import Registry
from wherry.registry.config import LOOPBACK, ProxyConfig, RegistryConfig
from wherry.registry.credentials import Credentials
from wherry.registry.proxies import from_environment

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

_THREADS = 64
"""Pulls, pushes and questions under way at once; more wait."""

_DOCKER_SEARCHED = "index.docker.io"


class Work(Protocol):
    """A pull or push."""

    def run(self) -> None: ...

    def cancel(self) -> None: ...


class Transfers:
    """The engine's ways to registries."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = registry_config(config)
        self.registry = Registry(self.config)
        self.uploads = Pool(config.max_concurrent_uploads, "upload")
        self._threads = ThreadPoolExecutor(_THREADS, "registry")
        self._running: set[Work | Cancellation] = set()

    def reconfigure(self, config: EngineConfig) -> None:
        """Take over what may change while running. What is under way keeps its own."""
        fresh = registry_config(config)
        if fresh != self.config:
            self.config, self.registry = fresh, Registry(fresh)
        self.uploads.resize(config.max_concurrent_uploads)

    async def run(self, work: Work) -> None:
        """Do `work` in a thread. Cancelled, it is broken off, and this waits for its end."""
        job = self._threads.submit(work.run)
        waiting = asyncio.wrap_future(job)
        self._running.add(work)
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError:
            work.cancel()
            if not job.cancel():
                await asyncio.wait({waiting})
                waiting.exception()  # nobody wants to hear of it
            raise
        finally:
            self._running.discard(work)

    async def ask(self, question: Callable[[Cancellation], Any]) -> Any:
        """Ask a registry in a thread. Cancelled, the question is broken off."""
        cancellation = Cancellation()
        self._running.add(cancellation)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, question, cancellation)
        except asyncio.CancelledError:
            cancellation.cancel()
            raise
        finally:
            self._running.discard(cancellation)

    def close(self) -> None:
        """Break everything off: the daemon goes."""
        for work in tuple(self._running):
            work.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.uploads.close()


async def pull(
    engine: "Engine",
    reference: Reference,
    *,
    platform: str | None,
    credentials: Credentials | None,
    report: progress.Report,
) -> None:
    """POST /images/create?fromImage=: without a tag or digest all tags. `report` is called from any thread. Raises
    `InvalidArgument` for a bad platform, and as `Pull.run`."""
    wanted = platforms.parse(platform) if platform else None
    transfers = engine.transfers
    work = Pull(engine.images, transfers.registry, reference, platform=wanted, credentials=credentials, report=report)
    await transfers.run(work)
    await _publish(engine, "pull", reference)


async def push_(
    engine: "Engine",
    reference: Reference,
    *,
    platform: oci.Platform | None,
    credentials: Credentials | None,
    report: progress.Report,
) -> None:
    """POST /images/{name}/push: without a tag all tags. Raises `NotFound` when the image is not of `platform`, and as
    `Push.run`."""
    transfers = engine.transfers
    if platform is not None:
        await _check_platform(engine, reference, platform)
    work = Push(
        engine.images,
        transfers.registry,
        reference,
        credentials=credentials,
        uploads=transfers.uploads,
        report=report,
    )
    await transfers.run(work)
    await _publish(engine, "push", reference)


async def _check_platform(engine: "Engine", reference: Reference, wanted: oci.Platform) -> None:
    image = await engine.run_blocking(engine.images.resolve, str(reference))
    found = oci.Platform(image.architecture, image.os, image.variant)
    if platforms.normalize(found) != platforms.normalize(wanted):
        raise NotFound(mismatch(reference, found, wanted))


async def _publish(engine: "Engine", action: str, reference: Reference) -> None:
    """The event, with the labels of the image if the name is one's."""
    try:
        labels: Mapping[str, str] = (await images.inspect(engine, str(reference))).labels
    except NotFound:
        labels = {}
    attributes = {**labels, "name": reference.familiar_name}
    engine.events.publish("image", action, reference.familiar, attributes)


async def log_in(engine: "Engine", server: str, credentials: Credentials) -> tuple[str, str]:
    """POST /auth: what to tell, and an identity token to keep in the password's place. Raises `Unauthorized`."""
    registry = engine.transfers.registry
    answer: tuple[str, str] = await engine.transfers.ask(
        lambda cancel: registry.login(server, credentials, cancel=cancel)
    )
    return answer


async def describe_remote(
    engine: "Engine", reference: Reference, credentials: Credentials | None
) -> tuple[oci.Descriptor, list[oci.Platform] | None]:
    """GET /distribution/{name}/json: what the name stands for, and the platforms; None where Docker knows none."""
    registry = engine.transfers.registry

    def ask(cancel: Cancellation) -> tuple[oci.Descriptor, list[oci.Platform] | None]:
        with registry.repository(reference.domain, reference.path, credentials, cancel=cancel) as repository:
            try:
                raw = repository.manifest(reference.digest or reference.tag)
            except NotFound as error:  # the words of the registry alone
                raise NotFound(error.message.partition(" not found: ")[2] or error.message) from None
            document = decode(raw)
            found: list[oci.Platform] | None = None
            if isinstance(document, oci.Index):
                found = [entry.platform or oci.Platform() for entry in document.manifests]
            elif raw.media_type == oci.DOCKER_MANIFEST:
                data = repository.small_blob(document.config.digest, document.config.size)
                found = [oci.decode(data, oci.ImageConfig, "image config", limit=oci.CONFIG_MAX).platform]
            return oci.Descriptor(raw.media_type, raw.digest, len(raw.data)), found

    answer: tuple[oci.Descriptor, list[oci.Platform] | None] = await engine.transfers.ask(ask)
    return answer


async def search(
    engine: "Engine", term: str, *, limit: int, filters: "SearchFilters", credentials: Credentials | None
) -> list[dict[str, Any]]:
    """GET /images/search. Raises `InvalidArgument` for a bad term."""
    domain, rest = _search_term(term)
    registry = engine.transfers.registry
    found = await engine.transfers.ask(lambda cancel: registry.search(domain, rest, limit, credentials, cancel=cancel))
    return [result for result in map(_result, found) if filters.admit(result)]


class SearchFilters:
    """What results of a search must be; None where it does not matter."""

    def __init__(self, *, official: bool | None, automated: bool | None, stars: int) -> None:
        self._official = official
        self._automated = automated
        self._stars = stars

    def admit(self, result: Mapping[str, Any]) -> bool:
        """Whether the result is wanted."""
        if self._official is not None and result["is_official"] != self._official:
            return False
        if self._automated is not None and result["is_automated"] != self._automated:
            return False
        return bool(result["star_count"] >= self._stars)


def _result(found: Mapping[str, Any]) -> dict[str, Any]:
    """One result with the fields the API has, of the types it has."""

    def field(name: str, kind: type) -> Any:
        value = found.get(name)
        return value if isinstance(value, kind) else kind()

    return {
        "star_count": field("star_count", int),
        "is_official": field("is_official", bool),
        "name": field("name", str),
        "is_automated": False,  # automated builds are no more
        "description": field("description", str),
    }


def _search_term(term: str) -> tuple[str, str]:
    """The registry and what to look for: `host/term`, or a term of Docker's."""
    if "://" in term:
        raise InvalidArgument(f"invalid repository name: repository name ({term}) should not have a scheme")
    host, slash, rest = term.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        return DEFAULT_DOMAIN, term.removeprefix("library/")
    if host in (DEFAULT_DOMAIN, _DOCKER_SEARCHED):
        return DEFAULT_DOMAIN, rest.removeprefix("library/")
    return host, rest


# configuration


def registry_config(config: EngineConfig) -> RegistryConfig:
    """What registries need to know of the configuration."""
    environment = from_environment()
    return RegistryConfig(
        insecure=tuple(config.insecure_registries),
        mirrors=tuple(config.registry_mirrors),
        proxy=ProxyConfig(
            config.http_proxy or environment.http,
            config.https_proxy or environment.https,
            config.no_proxy or environment.no_proxy,
        ),
        attempts=config.max_download_attempts,
    )


def describe(config: RegistryConfig) -> dict[str, Any]:
    """The fields of GET /info."""
    mirrors = [mirror.rstrip("/") + "/" for mirror in config.mirrors]
    networks = [*LOOPBACK[::-1], *(entry for entry in config.insecure if _is_network(entry))]
    hosts = [entry for entry in config.insecure if not _is_network(entry)]
    official = {"docker.io": {"Mirrors": mirrors, "Name": "docker.io", "Official": True, "Secure": True}}
    others = {host: {"Mirrors": [], "Name": host, "Official": False, "Secure": False} for host in hosts}
    return {
        "HttpProxy": _hidden(config.proxy.http),
        "HttpsProxy": _hidden(config.proxy.https),
        "NoProxy": config.proxy.no_proxy,
        "RegistryConfig": {
            "IndexConfigs": official | others,
            "InsecureRegistryCIDRs": networks,
            "Mirrors": mirrors or None,
        },
    }


def _hidden(url: str) -> str:
    """A proxy's URL without its credentials."""
    before, at, after = url.rpartition("@")
    return f"{before.partition('://')[0]}://xxxxx:xxxxx@{after}" if at and "://" in before else url


def _is_network(entry: str) -> bool:
    try:
        ip_network(entry, strict=False)
    except ValueError:
        return False
    return "/" in entry


def check(values: Mapping[str, Any]) -> None:
    """Raise `InvalidArgument`, with dockerd's words, for settings of registries that are wrong."""
    for name in ("downloads", "uploads"):
        if values[f"max-concurrent-{name}"] < 0:
            raise InvalidArgument(f"invalid max concurrent {name}: {values[f'max-concurrent-{name}']}")
    if values["max-download-attempts"] < 0:
        raise InvalidArgument(f"invalid max download attempts: {values['max-download-attempts']}")
    for mirror in values["registry-mirrors"]:
        _check_mirror(mirror)
    for entry in values["insecure-registries"]:
        _check_insecure(entry)


def _check_mirror(mirror: str) -> None:
    try:
        parts = urlsplit(mirror)
        parts.port  # noqa: B018 - raises for what is none
    except ValueError:
        raise InvalidArgument(f'invalid mirror: "{mirror}" is not a valid URI') from None
    if not parts.scheme or not parts.netloc:
        raise InvalidArgument(
            f"invalid mirror: no scheme specified for \"{mirror}\": must use either 'https://' or 'http://'"
        )
    if parts.scheme not in ("http", "https"):
        raise InvalidArgument(
            f"invalid mirror: unsupported scheme \"{parts.scheme}\" in \"{mirror}\": must use either 'https://' or 'http://'"
        )
    if parts.query or parts.fragment:
        raise InvalidArgument(f'invalid mirror: query or fragment at end of the URI "{mirror}"')
    if parts.username is not None:
        place = mirror.rpartition("@")[2]
        shown = f"{parts.scheme}://{parts.username}:xxxxx@{place}"
        raise InvalidArgument(f'invalid mirror: username/password not allowed in URI "{shown}"')


def _check_insecure(entry: str) -> None:
    if "://" in entry:
        raise InvalidArgument(f"insecure registry {entry} should not contain '://'")
    if entry.startswith("-") or entry.endswith("-"):
        raise InvalidArgument(f"invalid index name ({entry}). Cannot begin or end with a hyphen")
    if not entry or ("/" in entry and not _is_network(entry)):
        raise InvalidArgument(f"insecure registry {entry} is not valid: neither HOST[:PORT] nor a network (CIDR)")
