"""The one place where errors meet HTTP."""

import errno
import logging
import os
import sqlite3
from http import HTTPStatus

import msgspec

from wherry.api import versions
from wherry.api.versions import Version
from wherry.errors import (
    Conflict,
    Forbidden,
    Internal,
    InvalidArgument,
    NotFound,
    NotModified,
    Unauthorized,
    Unavailable,
    Unimplemented,
    WherryError,
)
from wherry.http.message import Response

log = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[WherryError], HTTPStatus], ...] = (
    (NotFound, HTTPStatus.NOT_FOUND),
    (InvalidArgument, HTTPStatus.BAD_REQUEST),
    (Conflict, HTTPStatus.CONFLICT),
    (NotModified, HTTPStatus.NOT_MODIFIED),
    (Unauthorized, HTTPStatus.UNAUTHORIZED),
    (Forbidden, HTTPStatus.FORBIDDEN),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (Unimplemented, HTTPStatus.NOT_IMPLEMENTED),
    (Internal, HTTPStatus.INTERNAL_SERVER_ERROR),
)


_FULL = (errno.ENOSPC, errno.EDQUOT)


def explain(error: Exception) -> tuple[HTTPStatus, str]:
    """The status and the text for the client. What is none of ours is a defect: logged with its traceback."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status, error.message
    if isinstance(error, ConnectionError):
        return HTTPStatus.BAD_REQUEST, "the client went away"
    if isinstance(error, sqlite3.Error):
        log.error("the database: %s", error)
        return HTTPStatus.INTERNAL_SERVER_ERROR, f"the engine's database cannot be used: {error}"
    if isinstance(error, OSError) and error.errno in _FULL:
        log.error("%s: %s", error.filename, error.strerror)
        where = f"{error.filename}: " if error.filename else ""
        return HTTPStatus.INTERNAL_SERVER_ERROR, where + os.strerror(error.errno).lower()
    log.error("unexpected error, please report it", exc_info=error)
    return HTTPStatus.INTERNAL_SERVER_ERROR, str(error) or type(error).__name__


def respond(error: Exception, version: Version | None = None) -> Response:
    """The reply that tells `error`: `{"message": ...}`, plain text to the oldest clients, nothing with 304."""
    status, message = explain(error)
    if status is HTTPStatus.NOT_MODIFIED:
        return Response(status)
    if version is not None and version < versions.JSON_ERRORS_SINCE:
        plain = [("X-Content-Type-Options", "nosniff")]
        return Response(status, f"{message}\n".encode(), content_type="text/plain; charset=utf-8", headers=plain)
    return Response(status, msgspec.json.encode({"message": message}) + b"\n", content_type="application/json")
