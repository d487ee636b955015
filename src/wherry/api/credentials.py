"""Who asks a registry: the X-Registry-Auth header, and the body of POST /auth."""

import base64
import binascii
from typing import Any

import msgspec

from wherry.http.message import Request
from wherry.registry.credentials import Credentials

_HEADER = "x-registry-auth"


def from_request(request: Request) -> Credentials | None:
    """The credentials in the header; None when there are none, and when they are nonsense: Docker ignores that, too."""
    try:
        text = request.headers.get(_HEADER) or ""
        document = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError):
        return None
    return from_document(document) if isinstance(document, dict) else None


def from_document(document: dict[str, Any]) -> Credentials | None:
    """An AuthConfig, keys in any case; None for one that says nothing."""
    values = {key.lower(): value for key, value in document.items() if isinstance(value, str)}
    found = Credentials(
        username=values.get("username", ""),
        password=values.get("password", ""),
        identity_token=values.get("identitytoken", ""),
        registry_token=values.get("registrytoken", ""),
    )
    return None if found == Credentials() else found
