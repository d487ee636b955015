"""One taxonomy of errors for the whole engine.

Everything raises these with the words Docker uses; only `wherry.api.errors` knows which HTTP status each one is,
and only the CLI knows which exit code. An exception that is none of these is a defect and is reported as such (500).

    WherryError
    ├── NotFound          404  the object named does not exist
    ├── InvalidArgument   400  the request itself is wrong, whatever the state
    ├── Conflict          409  right request, wrong state (name taken, still running)
    ├── NotModified       304  already as asked; the reply has no body
    ├── Unauthorized      401  who are you
    ├── Forbidden         403  you may not
    ├── Unavailable       503  not now
    ├── Unimplemented     501  not here
    └── Internal          500  we failed; the cause is chained
"""


class WherryError(Exception):
    """Base of all errors that may be shown to a user; `str(error)` is the text to show."""

    kind = "Internal"

    @property
    def message(self) -> str:
        return str(self)


class NotFound(WherryError):
    kind = "NotFound"


class InvalidArgument(WherryError):
    kind = "InvalidArgument"


class Conflict(WherryError):
    kind = "Conflict"


class NotModified(WherryError):
    kind = "NotModified"


class Unauthorized(WherryError):
    kind = "Unauthorized"


class Forbidden(WherryError):
    kind = "Forbidden"


class Unavailable(WherryError):
    kind = "Unavailable"


class Unimplemented(WherryError):
    kind = "Unimplemented"


class Internal(WherryError):
    kind = "Internal"


_BY_KIND: dict[str, type[WherryError]] = {
    cls.kind: cls
    for cls in (
        NotFound,
        InvalidArgument,
        Conflict,
        NotModified,
        Unauthorized,
        Forbidden,
        Unavailable,
        Unimplemented,
        Internal,
    )
}


def from_kind(kind: str, message: str) -> WherryError:
    """Rebuild an error that crossed a process boundary as (`kind`, `message`); unknown kinds become `Internal`."""
    return _BY_KIND.get(kind, Internal)(message)
