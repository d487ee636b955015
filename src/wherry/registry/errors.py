"""Errors of registries, in the words Docker has for them."""

from typing import Any

from wherry import goquote, jsontext
from wherry.errors import Internal, NotFound, WherryError

_CODES = {
    "BLOB_UNKNOWN": "blob unknown to registry",
    "BLOB_UPLOAD_INVALID": "blob upload invalid",
    "BLOB_UPLOAD_UNKNOWN": "blob upload unknown to registry",
    "DENIED": "requested access to the resource is denied",
    "DIGEST_INVALID": "provided digest did not match uploaded content",
    "MANIFEST_BLOB_UNKNOWN": "blob unknown to registry",
    "MANIFEST_INVALID": "manifest invalid",
    "MANIFEST_UNKNOWN": "manifest unknown",
    "MANIFEST_UNVERIFIED": "manifest failed signature verification",
    "NAME_INVALID": "invalid repository name",
    "NAME_UNKNOWN": "repository name not known to registry",
    "RANGE_INVALID": "invalid content range",
    "SIZE_INVALID": "provided length did not match content length",
    "TAG_INVALID": "manifest tag did not match URI",
    "TOOMANYREQUESTS": "too many requests",
    "UNAUTHORIZED": "authentication required",
    "UNAVAILABLE": "service unavailable",
    "UNKNOWN": "unknown error",
    "UNSUPPORTED": "The operation is unsupported.",
}
_BY_STATUS = {401: "UNAUTHORIZED", 403: "DENIED", 429: "TOOMANYREQUESTS"}
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


class Unconnected(Unreachable):
    """There was nobody to talk to."""


def of_code(code: str, message: str = "", *, status: int = 0) -> RegistryError:
    """The error that a registry names by `code`."""
    text = f"{code.lower().replace('_', ' ')}: {message or _CODES[code]}"
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
        document = jsontext.loads(body)
    except (ValueError, RecursionError) as error:
        return _unreadable(status, str(error) or "nested too deeply", body)
    if isinstance(document, dict) and isinstance(details := document.get("details"), str) and details:
        return of_code(_BY_STATUS.get(status, "UNKNOWN"), details[:TEXT_MAX])
    return _of_errors(document) or _unreadable(status, "no error details found in HTTP response body", body)


def _of_errors(document: Any) -> RegistryError | None:
    """The first that `{"errors": [{"code", "message"}, …]}` tells: the others follow from it, more often than not."""
    errors = document.get("errors") if isinstance(document, dict) else None
    first = errors[0] if isinstance(errors, list) and errors else None
    if not isinstance(first, dict):
        return None
    code, message = first.get("code"), first.get("message")
    known = code if isinstance(code, str) and code in _CODES else "UNKNOWN"
    return of_code(known, _text(message.encode()) if isinstance(message, str) else "")


def _unreadable(status: int, why: str, body: bytes) -> RegistryError:
    if status == 401:
        return of_code("UNAUTHORIZED")
    return RegistryError(f"error parsing HTTP {status} response body: {why}: {goquote.quote(_text(body))}")


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
