"""Errors of registries, in the words Docker has for them."""

import json
from typing import Any

from wherry.errors import Internal, NotFound, WherryError

_MESSAGES = {
    "UNAUTHORIZED": "authentication required",
    "DENIED": "requested access to the resource is denied",
    "TOOMANYREQUESTS": "too many requests",
    "UNKNOWN": "unknown error",
}
_BY_STATUS = {401: "UNAUTHORIZED", 403: "DENIED", 429: "TOOMANYREQUESTS"}
_SHORT = 15
_ERRORS_SHOWN = 10
TEXT_MAX = 4096


class RegistryError(Internal):
    """A registry, or the way to it, failed. `code` is the registry's own (`MANIFEST_UNKNOWN`), `status` that of HTTP,
    0 for neither. `passing`: trying again may help, not before `retry_after` seconds where that is known."""

    def __init__(
        self, message: str, *, code: str = "", status: int = 0, passing: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.passing = passing
        self.retry_after = retry_after


class Unreachable(RegistryError):
    """No conversation came about, or it broke off: `Get "https://…": reason`."""

    def __init__(self, method: str, url: str, reason: str, *, passing: bool = True) -> None:
        super().__init__(f'{method.capitalize()} "{url}": {reason}', passing=passing)
        self.reason = reason


def of_code(code: str, message: str = "", *, status: int = 0) -> RegistryError:
    """The error that a registry names by `code`."""
    text = f"{code.lower().replace('_', ' ')}: {message or _MESSAGES.get(code, '')}"
    return RegistryError(text, code=code, status=status)


def of_reply(status: int, reason: str, content_type: str, body: bytes, bearer: dict[str, str] | None) -> RegistryError:
    """The error that a reply other than 2xx stands for. `bearer`: the parameters of its Bearer challenge."""
    if not 400 <= status < 500:
        text = f"received unexpected HTTP status: {status} {reason}".rstrip()
        return RegistryError(text, status=status, passing=status in (500, 502, 503, 504))
    denied = _of_challenge(bearer or {}, status)
    error = denied or _of_body(status, content_type.partition(";")[0].strip().lower(), body)
    error.status = status
    error.passing = status in (408, 425, 429)
    return error


def _of_challenge(bearer: dict[str, str], status: int) -> RegistryError | None:
    code = {"invalid_token": "UNAUTHORIZED", "insufficient_scope": "DENIED"}.get(bearer.get("error", ""))
    return of_code(code, bearer.get("error_description", ""), status=status) if code else None


def _of_body(status: int, content_type: str, body: bytes) -> RegistryError:
    if content_type not in ("application/json", "application/vnd.api+json"):
        return of_code(_BY_STATUS.get(status, "UNKNOWN"), _text(body))
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return _unreadable(status, "invalid JSON", body)
    if isinstance(document, dict) and isinstance(details := document.get("details"), str) and details:
        return of_code(_BY_STATUS.get(status, "UNKNOWN"), details)
    return _of_errors(document) or _unreadable(status, "no error details found in HTTP response body", body)


def _of_errors(document: Any) -> RegistryError | None:
    """What `{"errors": [{"code", "message"}, …]}` says."""
    errors = document.get("errors") if isinstance(document, dict) else None
    if not isinstance(errors, list):
        return None
    found = [_of_entry(entry) for entry in errors[:_ERRORS_SHOWN] if isinstance(entry, dict)]
    if len(found) < 2:
        return found[0] if found else None
    found[0].args = ("errors:\n" + "".join(f"{error}\n" for error in found),)
    return found[0]


def _of_entry(entry: dict[str, Any]) -> RegistryError:
    code, message = entry.get("code"), entry.get("message")
    code = code[:64] if isinstance(code, str) and code else "UNKNOWN"
    return of_code(code, message[:TEXT_MAX] if isinstance(message, str) else "")


def _unreadable(status: int, why: str, body: bytes) -> RegistryError:
    if status == 401:
        return of_code("UNAUTHORIZED")
    text = _text(body)
    short = text if len(text) < _SHORT else text[: _SHORT - 3] + "..."
    return RegistryError(f'error parsing HTTP {status} response body: {why}: "{short}"')


def _text(body: bytes) -> str:
    text = body[:TEXT_MAX].decode(errors="replace")
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def of_pull(error: RegistryError, name: str, reference: str) -> WherryError:
    """What a failed pull tells: `name` is the repository and `reference` the image as people write them."""
    if error.code == "DENIED":
        why = f"pull access denied for {name}, repository does not exist or may require 'docker login'"
    elif error.code == "MANIFEST_UNKNOWN":
        why = f"manifest for {reference} not found"
    elif error.code == "NAME_UNKNOWN":
        why = f"repository {name} not found"
    else:
        return error
    return NotFound(f"{why}: {error}")
