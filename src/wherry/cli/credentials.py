"""The credentials that go with a request about images of a registry."""

from __future__ import annotations

from wherry.client.credentials import header, lookup, lookup_if_possible, server_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.session import Session


def for_domain(session: Session, domain: str, *, strict: bool = True) -> dict[str, str]:
    """The header with the credentials for a reference's domain.

    A credential helper that fails is an error; unless `strict`, the request goes without what it keeps.
    """
    find = lookup if strict else lookup_if_possible
    return header(find(session.config, server_of(domain)))
