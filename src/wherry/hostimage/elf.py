"""What an ELF file says it needs to run: its interpreter and its shared libraries.

Read from the program headers (elf(5), gABI "Dynamic Section") with bounds checked; the file is never executed and
no tool is asked. Not an ELF file, or a damaged one, is None.
"""

import errno
import os
import struct
from typing import NamedTuple

_PT_LOAD = 1
_PT_DYNAMIC = 2
_PT_INTERP = 3
_DT_NEEDED, _DT_STRTAB, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 1, 5, 14, 15, 29
_TABLE_MAX = 16 << 20
_HEADERS_MAX = 1024


class Elf(NamedTuple):
    """`machine` and `bits` tell architectures apart; search paths are as written, `$ORIGIN` and all."""

    machine: int
    bits: int
    interpreter: str
    needed: list[str]
    rpath: list[str]
    runpath: list[str]


class _Segment(NamedTuple):
    kind: int
    offset: int
    address: int
    size: int


def read(path: str | os.PathLike[str]) -> Elf | None:
    """Parse the file; None when it is no (sound) ELF file. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _parse(fd)
    except (struct.error, ValueError, OverflowError):
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:  # an offset no file has
            raise
        return None
    finally:
        os.close(fd)


def _parse(fd: int) -> Elf | None:
    head = os.pread(fd, 64, 0)
    if head[:4] != b"\x7fELF" or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    bits = 64 if head[4] == 2 else 32
    order = "<" if head[5] == 1 else ">"
    (machine,) = struct.unpack_from(order + "H", head, 18)
    segments = _segments(fd, head, bits, order)
    interpreter = ""
    for segment in segments:
        if segment.kind == _PT_INTERP:
            interpreter = os.fsdecode(os.pread(fd, min(segment.size, 4096), segment.offset).partition(b"\0")[0])
    entries, strings = _dynamic(fd, segments, bits, order)
    return Elf(
        machine,
        bits,
        interpreter,
        [_string(strings, value) for tag, value in entries if tag == _DT_NEEDED],
        _search(entries, strings, _DT_RPATH),
        _search(entries, strings, _DT_RUNPATH),
    )


def _segments(fd: int, head: bytes, bits: int, order: str) -> list[_Segment]:
    if bits == 64:
        (offset,) = struct.unpack_from(order + "Q", head, 32)
        size, count = struct.unpack_from(order + "HH", head, 54)
    else:
        (offset,) = struct.unpack_from(order + "I", head, 28)
        size, count = struct.unpack_from(order + "HH", head, 42)
    if count > _HEADERS_MAX or size > 256:
        raise ValueError("too many program headers")
    table = os.pread(fd, size * count, offset)
    segments = []
    for at in range(0, len(table) - size + 1, size or 1):
        if bits == 64:
            kind, _, where, address, _, length = struct.unpack_from(order + "IIQQQQ", table, at)
        else:
            kind, where, address, _, length = struct.unpack_from(order + "IIIII", table, at)
        segments.append(_Segment(kind, where, address, length))
    return segments


def _dynamic(fd: int, segments: list[_Segment], bits: int, order: str) -> tuple[list[tuple[int, int]], bytes]:
    """The entries of the dynamic section and the string table they point into."""
    section = next((segment for segment in segments if segment.kind == _PT_DYNAMIC), None)
    if section is None:
        return [], b""
    data = os.pread(fd, min(section.size, _TABLE_MAX), section.offset)
    entries = []
    step = bits // 4
    for at in range(0, len(data) - step + 1, step):
        tag, value = struct.unpack_from(order + ("qQ" if bits == 64 else "iI"), data, at)
        if tag == 0:
            break
        entries.append((tag, value))
    address = next((value for tag, value in entries if tag == _DT_STRTAB), 0)
    for segment in segments:
        if segment.kind == _PT_LOAD and segment.address <= address < segment.address + segment.size:
            offset = address - segment.address + segment.offset
            return entries, os.pread(fd, min(segment.address + segment.size - address, _TABLE_MAX), offset)
    return entries, b""


def _string(strings: bytes, at: int) -> str:
    end = strings.find(b"\0", at)
    if not 0 <= at < len(strings) or end < 0:
        raise ValueError("string outside of the table")
    return os.fsdecode(strings[at:end])


def _search(entries: list[tuple[int, int]], strings: bytes, tag: int) -> list[str]:
    return [part for t, value in entries if t == tag for part in _string(strings, value).split(":") if part]
