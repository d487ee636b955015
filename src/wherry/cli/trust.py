"""Content trust: signatures of images, which nothing here checks."""

from __future__ import annotations

import os

from wherry.cli.errors import StatusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.cli.flags import Parsed

_FALSE = ("", "0", "f", "F", "false", "False", "FALSE")


def refuse_trust(parsed: Parsed) -> None:
    """Raise StatusError where the user wants an image's signature checked."""
    name = "disable-content-trust"
    disabled = parsed[name] if name in parsed.changed else os.environ.get("DOCKER_CONTENT_TRUST", "") in _FALSE
    if not disabled:
        raise StatusError("content trust is not supported: --disable-content-trust goes on without signatures")
