"""The credentials that go with a request about images of a registry."""

from __future__ import annotations

import os

from wherry.cli.errors import StatusError
from wherry.client.credentials import header, lookup, lookup_if_possible, server_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session

_FALSE = ("", "0", "f", "F", "false", "False", "FALSE")


def for_domain(session: Session, domain: str, *, strict: bool = True) -> dict[str, str]:
    """The header with the credentials for a reference's domain.

    A credential helper that fails is an error; unless `strict`, the request goes without what it keeps.
    """
    find = lookup if strict else lookup_if_possible
    return header(find(session.config, server_of(domain)))


def refuse_trust(parsed: Parsed) -> None:
    """Raise StatusError where the user wants signatures checked: there is nothing here that checks them."""
    name = "disable-content-trust"
    disabled = parsed[name] if name in parsed.changed else os.environ.get("DOCKER_CONTENT_TRUST", "") in _FALSE
    if not disabled:
        raise StatusError("content trust is not supported: --disable-content-trust goes on without signatures")
