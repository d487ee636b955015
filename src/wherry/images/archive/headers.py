"""The 512-byte tar header and the records that extend it, as pure functions from bytes.

Dialects: v7, ustar (POSIX 1003.1-1988), pax (1003.1-2001), GNU (base-256 numbers, long names, old sparse files), star.
Sources: pax(1) "ustar Interchange Format", GNU tar manual "Basic Tar Format" and "Sparse Formats". Anything that does
not parse raises `InvalidArgument("archive/tar: invalid tar header")`, which is what Docker's users know.
"""

import base64
import zlib
from typing import NamedTuple

from wherry.errors import InvalidArgument

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)

REGULAR = b"0"
HARDLINK = b"1"
SYMLINK = b"2"
CHARACTER = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"
PAX = b"x"
PAX_GLOBAL = b"g"
GNU_LONG_NAME = b"L"
GNU_LONG_LINK = b"K"
GNU_SPARSE = b"S"

# Types whose size field is not followed by content, whatever it says.
HEADER_ONLY = frozenset((HARDLINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO))
_XATTR_SCHILY = b"SCHILY.xattr."
_XATTR_LIBARCHIVE = b"LIBARCHIVE.xattr."
_INT64 = 1 << 63
# Far more records than any tool writes; each costs a dictionary entry.
_PAX_RECORDS_MAX = 10_000

Extents = list[tuple[int, int]]


def invalid(detail: str = "") -> InvalidArgument:
    """The error for a header that makes no sense; `detail` says what."""
    return InvalidArgument("archive/tar: invalid tar header" + (f": {detail}" if detail else ""))


class Header(NamedTuple):
    """One header block. `size` is that of the content in the archive; names are raw bytes; `mtime` is in seconds."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    type: bytes
    linkname: bytes
    device: tuple[int, int]


class Pax(NamedTuple):
    """What a pax extended header says: `records` by keyword, extended attributes, and the pieces of sparse maps that
    GNU's format 0.0 spreads over repeated keywords."""

    records: dict[bytes, bytes]
    xattrs: dict[bytes, bytes]
    sparse_numbers: list[int]


def number(field: bytes) -> int:
    """A numeric field: octal text, or GNU's base-256 when the first byte's top bit is set."""
    digits = field[:-1]
    if digits.isdigit() and field[-1] in b" \0":  # as nearly all are
        return _octal(digits)
    if field[0] & 0x80:
        value = int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
        bits = len(field) * 8 - 1
        if value >> (bits - 1):
            value -= 1 << bits
        if not -_INT64 <= value < _INT64:
            raise invalid("number out of range")
        return value
    text = field.strip(b" \0").partition(b"\0")[0]
    if not text:
        return 0
    if not text.isdigit():
        raise invalid("not a number")
    return _octal(text)


def _octal(digits: bytes) -> int:
    try:
        return int(digits, 8)
    except ValueError:
        raise invalid("not an octal number") from None


def decimal(text: bytes) -> int:
    """A non-negative decimal number of a pax record or sparse map."""
    if not text.isdigit() or len(text) > 19:
        raise invalid("not a decimal number")
    value = int(text)
    if value >= _INT64:
        raise invalid("number out of range")
    return value


def _sum(block: bytes) -> int:
    """The sum of the bytes of a header block. The lower half of its Adler-32 is 1 more, as long as that is below 65521,
    which 512 characters of ASCII cannot reach: ten times faster."""
    return (zlib.adler32(block) & 0xFFFF) - 1 if block.isascii() else sum(block)


def _signed_sum(block: bytes) -> int:
    return sum(byte - 256 if byte > 127 else byte for byte in block)


def checksum_matches(block: bytes) -> bool:
    """Whether a header block's checksum is right, taken over unsigned bytes or, as some old tars did, signed ones."""
    try:
        wanted = number(block[148:156])
    except InvalidArgument:
        return False
    field = block[148:156]
    if _sum(block) - sum(field) + 256 == wanted:
        return True
    return _signed_sum(block) - _signed_sum(field) + 256 == wanted


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def parse_header(block: bytes) -> Header:
    """Parse a header block that is not all zeros."""
    if not checksum_matches(block):
        raise invalid("wrong checksum")
    name = _text(block[:100])
    kind = block[156:157]
    size = number(block[124:136])
    if size < 0:
        raise invalid("negative size")
    magic = block[257:263]
    if magic == b"ustar\0" and block[345]:
        # star's prefix is shorter, its times follow it
        prefix = _text(block[345:476] if block[508:512] == b"tar\0" else block[345:500])
        name = prefix + b"/" + name
    if kind in (b"\0", b"7"):
        kind = REGULAR
    device = (0, 0)
    if kind in (CHARACTER, BLOCK_DEVICE):
        device = (number(block[329:337]), number(block[337:345]))
    return Header(
        name,
        number(block[100:108]) & 0o7777,
        number(block[108:116]),
        number(block[116:124]),
        size,
        number(block[136:148]),
        kind,
        _text(block[157:257]),
        device,
    )


def parse_pax(data: bytes) -> Pax:
    """Parse the body of a pax extended header: `<length> <keyword>=<value>\\n` records."""
    pax = Pax({}, {}, [])
    at = count = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        length = decimal(data[at:space]) if space > at else 0
        record = data[space + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        count += 1
        if not equals or record[-1:] != b"\n" or at + length > len(data) or count > _PAX_RECORDS_MAX:
            raise invalid("bad pax record")
        at += length
        _keep(pax, key, value)
    return pax


def _keep(pax: Pax, key: bytes, value: bytes) -> None:
    if key.startswith((_XATTR_SCHILY, _XATTR_LIBARCHIVE)) and b"\0" in key:
        raise invalid("NUL in a name")
    if key.startswith(_XATTR_SCHILY):
        pax.xattrs[key[len(_XATTR_SCHILY) :]] = value
    elif key.startswith(_XATTR_LIBARCHIVE):
        # SCHILY wins when an archive has both, as bsdtar writes them.
        pax.xattrs.setdefault(key[len(_XATTR_LIBARCHIVE) :], _base64(value))
    elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
        pax.sparse_numbers.append(decimal(value))
    else:
        if b"\0" in value and key in (b"path", b"linkpath"):
            raise invalid("NUL in a name")
        pax.records[key] = value


def _base64(value: bytes) -> bytes:
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except ValueError:
        raise invalid("bad extended attribute") from None


def pax_time(value: bytes) -> int:
    """A pax time (`seconds[.fraction]`, perhaps negative) in nanoseconds."""
    text = value.removeprefix(b"-")
    seconds, _, fraction = text.partition(b".")
    nanoseconds = decimal(seconds or b"0") * 10**9 + decimal(fraction[:9].ljust(9, b"0"))
    return -nanoseconds if value.startswith(b"-") else nanoseconds


def old_sparse_extents(block: bytes, start: int, count: int) -> Extents:
    """The extents in a GNU sparse header (`start` 386, `count` 4) or extension block (0, 21); empty slots end them."""
    extents = []
    for at in range(start, start + count * 24, 24):
        if not block[at]:
            break
        extents.append((number(block[at : at + 12]), number(block[at + 12 : at + 24])))
    return extents


def check_extents(extents: Extents, stored: int, real: int) -> Extents:
    """Return `extents` of a sparse file of `real` bytes of which `stored` are in the archive, when they are in order,
    apart, inside the file and add up; raise otherwise."""
    end = total = 0
    for offset, length in extents:
        if offset < end or length < 0 or offset + length > real:
            raise invalid("bad sparse map")
        end = offset + length
        total += length
    if total != stored:
        raise invalid("sparse map and size differ")
    return extents
