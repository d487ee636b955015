"""Names in archives: lexical cleaning, nothing else. No name ever reaches the kernel before it passed here."""

from wherry.errors import InvalidArgument

NAME_MAX = 255
# PATH_MAX: no longer path can be opened by name; the depth is bounded so that the
# descriptors of one path's directories fit under the usual limit of 1024.
_PATH_MAX = 4096
_DEPTH_MAX = 256


def clean(name: bytes) -> tuple[bytes, ...]:
    """The components of an archive member's name, relative to the archive's root; () is the root itself.

    `.`, empty components and a leading `/` mean nothing; `..` takes the component before it back, as a name and not
    as a link would have it. Raises `InvalidArgument` for names that leave the root and names no file can have.
    """
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not parts:
                raise InvalidArgument(f"invalid archive: {show(name)} is outside of the root")
            parts.pop()
        else:
            parts.append(part)
    long = len(name) > NAME_MAX and (len(name) > _PATH_MAX or any(len(part) > NAME_MAX for part in parts))
    if long or b"\0" in name or len(parts) > _DEPTH_MAX:
        raise InvalidArgument(f"invalid archive: {show(name)} is no possible file name")
    return tuple(parts)


def show(name: bytes) -> str:
    """A name as an error message shows it: quoted, cut to a sane length."""
    text = name if len(name) <= 200 else name[:200] + b"..."
    return '"' + text.decode("utf-8", "backslashreplace") + '"'
