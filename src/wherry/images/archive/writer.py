"""A tar writer whose output depends on its arguments only: ustar headers, pax records where those do not suffice."""

from wherry.images.archive import headers

_OCTAL_8 = 0o7777777
_OCTAL_12 = 0o77777777777
_NS = 10**9

Device = tuple[int, int]


def _field(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def _record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    total = length + len(str(length))
    total = length + len(str(total))
    return b"%d %s=%s\n" % (total, key, value)


def _block(
    name: bytes,
    kind: bytes,
    mode: int,
    owner: tuple[int, int],
    size: int,
    mtime: int,
    link: bytes,
    device: tuple[int, int],
) -> bytes:
    block = b"".join(
        (
            name[:100].ljust(100, b"\0"),
            _field(mode, 8),
            _field(owner[0] if owner[0] <= _OCTAL_8 else 0, 8),
            _field(owner[1] if owner[1] <= _OCTAL_8 else 0, 8),
            _field(size if size <= _OCTAL_12 else 0, 12),
            _field(mtime if 0 <= mtime <= _OCTAL_12 else 0, 12),
            b" " * 8,
            kind,
            link[:100].ljust(100, b"\0"),
            b"ustar\00000",
            bytes(64),
            _field(device[0], 8),
            _field(device[1], 8),
            bytes(167),
        )
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def member(
    name: bytes,
    *,
    kind: bytes = headers.REGULAR,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime_ns: int = 0,
    linkname: bytes = b"",
    device: tuple[int, int] = (0, 0),
    xattrs: dict[bytes, bytes] | None = None,
) -> bytes:
    """The header blocks of one member; `size` bytes of content and `padding(size)` have to follow."""
    records = []
    seconds, fraction = divmod(mtime_ns, _NS)
    if len(name) > 100 or not name.isascii():
        records.append(_record(b"path", name))
    if len(linkname) > 100 or not linkname.isascii():
        records.append(_record(b"linkpath", linkname))
    if size > _OCTAL_12:
        records.append(_record(b"size", b"%d" % size))
    if uid > _OCTAL_8:
        records.append(_record(b"uid", b"%d" % uid))
    if gid > _OCTAL_8:
        records.append(_record(b"gid", b"%d" % gid))
    if fraction or not 0 <= seconds <= _OCTAL_12:
        records.append(_record(b"mtime", _pax_time(mtime_ns)))
    records.extend(_record(b"SCHILY.xattr." + key, value) for key, value in sorted((xattrs or {}).items()))
    block = _block(name, kind, mode & 0o7777, (uid, gid), size, seconds, linkname, device)
    if not records:
        return block
    body = b"".join(sorted(records))
    extended = _block(b"PaxHeaders/" + name[-80:], headers.PAX, 0o644, (0, 0), len(body), 0, b"", (0, 0))
    return extended + body + padding(len(body)) + block


def _pax_time(mtime_ns: int) -> bytes:
    sign = b"-" if mtime_ns < 0 else b""
    seconds, fraction = divmod(abs(mtime_ns), _NS)
    return b"%s%d.%09d" % (sign, seconds, fraction) if fraction else b"%s%d" % (sign, seconds)


def padding(size: int) -> bytes:
    """The zeros after `size` bytes of content."""
    return bytes(-size % headers.BLOCK)


def end() -> bytes:
    """The end of an archive."""
    return bytes(2 * headers.BLOCK)
