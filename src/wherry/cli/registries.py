"""Conversations with registries that the command line has itself, as Docker's has: for `manifest` and `imagetools`."""

from __future__ import annotations

from wherry.cli.errors import StatusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, NoReturn

    from wherry.cli.references import Reference
    from wherry.cli.session import Session
    from wherry.client.credentials import Auth
    from wherry.registry.client import Registry
    from wherry.registry.credentials import Credentials
    from wherry.registry.repository import RawManifest, Repository

IMAGES = ("application/vnd.docker.distribution.manifest.v2+json", "application/vnd.oci.image.manifest.v1+json")
DOCKER_LIST, OCI_INDEX = (
    "application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.oci.image.index.v1+json",
)  # fmt: skip
LISTS = (DOCKER_LIST, OCI_INDEX)


class Remote:
    """The repository of a reference, with the user's credentials for it. As a context manager it closes its
    connections, and raises StatusError for what registries answer."""

    def __init__(self, session: Session, reference: Reference, *, insecure: bool = False) -> None:
        from wherry.client.credentials import lookup_if_possible, server_of

        self._registry, self._reference = _registry((reference.domain,) if insecure else ()), reference
        self._credentials = _credentials(lookup_if_possible(session.config, server_of(reference.domain)))
        self.repository: Repository

    def __enter__(self) -> Remote:
        from wherry.errors import WherryError

        reference = self._reference
        try:
            self.repository = self._registry.repository(reference.domain, reference.path, self._credentials)
        except WherryError as error:
            _raise(error)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        from wherry.errors import WherryError

        self.repository.close()
        if isinstance(error, WherryError):
            _raise(error)

    def manifest(self, reference: Reference) -> RawManifest | None:
        """The manifest or index that a reference of this repository names; None when there is none."""
        from wherry.errors import NotFound

        try:
            return self.repository.manifest(reference.digest or reference.tag)
        except NotFound as error:
            if str(error).startswith("pull access denied"):
                raise
            return None


def log_in(auth: Auth) -> dict[str, str]:
    """Try credentials without an engine; returns what an engine would. Raises StatusError."""
    from wherry.errors import WherryError

    try:
        status, token = _registry().login(auth["serveraddress"], _credentials(auth))
    except WherryError as error:
        raise StatusError(str(error)) from None
    return {"Status": status, "IdentityToken": token}


def _registry(insecure: tuple[str, ...] = ()) -> Registry:
    from wherry.registry.client import Registry
    from wherry.registry.config import RegistryConfig
    from wherry.registry.proxies import from_environment

    return Registry(RegistryConfig(insecure=insecure, proxy=from_environment(), attempts=1))


def _credentials(found: Auth) -> Credentials:
    from wherry.registry.credentials import Credentials

    return Credentials(
        username=found.get("username", ""),
        password=found.get("password", ""),
        identity_token=found.get("identitytoken", ""),
        registry_token=found.get("registrytoken", ""),
    )


def document(data: bytes, what: str) -> dict[str, Any]:
    """JSON of a registry's, which must be an object; raises StatusError that says `what`."""
    from wherry.jsontext import loads

    try:
        found = loads(data)
    except (ValueError, RecursionError) as error:
        raise StatusError(f"{what}: {error}") from None
    if not isinstance(found, dict):
        raise StatusError(f"{what}: not a JSON object")
    return found


def _raise(error: Exception) -> NoReturn:
    from wherry.registry.errors import Unreachable

    before = "failed to configure transport: error pinging v2 registry: " if isinstance(error, Unreachable) else ""
    raise StatusError(f"{before}{error}") from None
