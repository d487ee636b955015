"""How the runtime fails: one exception, with runc's words."""

import os


class StartError(Exception):
    """A container or process could not be made. `kind` is a kind of `wherry.errors` ("InvalidArgument", "NotFound",
    "Internal"), `message` what to show."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def words(error: OSError) -> str:
    """What went wrong, as the tools of this trade write it: strerror in lower case."""
    if error.strerror:
        return error.strerror[:1].lower() + error.strerror[1:]
    return os.strerror(error.errno or 0).lower()


def path_error(operation: str, path: str, error: OSError) -> str:
    """`open /x: no such file or directory`"""
    return f"{operation} {path}: {words(error)}"
