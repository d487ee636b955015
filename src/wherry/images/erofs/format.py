"""The structures of an EROFS image, as pure functions to bytes. Little endian, whatever the machine.

An image of ours, in blocks of 512 bytes:

    0  nothing (boot sectors)
    2  superblock and, 128 bytes after it, the slot of the device that the tar is
    3  inodes, 64 bytes each by their number; those that have something right after them follow; see `image`
       directories and long symbolic links
    TAR_BLOCK  where the tar's blocks are in the image's address space
"""

import struct
from collections.abc import Sequence

BLOCK_BITS = 9
BLOCK = 1 << BLOCK_BITS
SLOT = 32
"""Inodes are addressed in units of this."""
INODE_SIZE = 64
META_BLOCK = 3
TAR_BLOCK = 1 << 24
"""The address of the tar's first block; before it there is room for an image of 8 GiB."""
BLOCKS_MAX = 1 << 32
HOLE = (1 << 32) - 1
"""The address of a chunk that is a hole."""

PLAIN, INLINE, CHUNKED = 0, 2, 4
"""Where an inode's data lies: in consecutive blocks; right after the inode; in chunks."""

REGULAR, DIRECTORY, CHARACTER, BLOCK_DEVICE, FIFO, SYMLINK = 1, 2, 3, 4, 5, 7
"""Kinds of files, numbered as in directory entries."""

_MAGIC = 0xE0F5E1E2
_SUPER_OFFSET = 1024
_DEVICE_OFFSET = 1152
_DEVICE_SLOT = 128
_CHECKSUM, _MTIME = 1, 2  # compatible features
_CHUNKED_FILE, _DEVICE_TABLE = 4, 8  # incompatible ones

_INODE = struct.Struct("<HHHHQIIIIqIIIIII")
_MODE = struct.Struct("<H")
_LINKS = struct.Struct("<I")
_FORMAT = struct.Struct("<HH")
_DATA = struct.Struct("<QI")
_ENTRY = struct.Struct("<QHBB")
_NS = 10**9

XATTRS_MAX = 12 + 4 * 0xFFFE
"""Bytes that the extended attributes of one inode may take."""


def inode(
    number: int, mode: int, owner: tuple[int, int], mtime_ns: int, size: int = 0, data: int = 0, links: int = 1
) -> bytes:
    """An inode in its long form. `data` is the first block, or a device as `device_number` gives it."""
    seconds, nanoseconds = divmod(mtime_ns, _NS)
    return _INODE.pack(
        1, 0, mode, 0, size, data, number, owner[0], owner[1], seconds, nanoseconds, links, 0, 0, 0, 0
    )  # fmt: skip


def device_number(major: int, minor: int) -> int:
    """A device's number as the kernel encodes it in 32 bits."""
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def set_layout(inodes: bytearray, at: int, layout: int, xattr_size: int) -> None:
    """Say of the inode at `at` where its data is, and how large the body of its extended attributes is."""
    _FORMAT.pack_into(inodes, at, 1 | layout << 1, 1 + (xattr_size - 12) // 4 if xattr_size else 0)


def layout(inodes: bytearray, at: int) -> int:
    """Where the data of the inode at `at` is."""
    found: int = _FORMAT.unpack_from(inodes, at)[0]
    return found >> 1


def set_data(inodes: bytearray, at: int, size: int, data: int) -> None:
    """Give the inode at `at` its size and first block (or chunk format)."""
    _DATA.pack_into(inodes, at + 8, size, data)


def links(inodes: bytearray, at: int) -> int:
    """How many names the inode at `at` has."""
    count: int = _LINKS.unpack_from(inodes, at + 44)[0]
    return count


def set_links(inodes: bytearray, at: int, count: int) -> None:
    """Set that."""
    _LINKS.pack_into(inodes, at + 44, count)


def set_owner(inodes: bytearray, at: int, mode: int, owner: tuple[int, int], mtime_ns: int) -> None:
    """Change what an archive says of the inode at `at`."""
    _MODE.pack_into(inodes, at + 4, mode)
    struct.pack_into("<IIqI", inodes, at + 24, *owner, *divmod(mtime_ns, _NS))


def superblock(root: int, inodes: int, blocks: int, tar_blocks: int, seconds: int, uuid: bytes) -> bytes:
    """Everything before the inodes. `root` is the root's address in slots, `inodes` their count, `blocks` those of the
    image itself, `seconds` the time it was made. No two images have the same `uuid`, and none zeros: overlay remembers
    by it where a file came from that it copied up."""
    block = bytearray(META_BLOCK * BLOCK)
    struct.pack_into(
        "<IIIBBHQQIIII", block, _SUPER_OFFSET, _MAGIC, 0, _CHECKSUM | _MTIME, BLOCK_BITS, 0, root, inodes,
        seconds, 0, blocks, META_BLOCK, 0,
    )  # fmt: skip
    block[_SUPER_OFFSET + 48 : _SUPER_OFFSET + 64] = uuid
    features, slot = _CHUNKED_FILE | _DEVICE_TABLE, _DEVICE_OFFSET // _DEVICE_SLOT
    struct.pack_into("<IHHHBBI", block, _SUPER_OFFSET + 80, features, 0, 1, slot, 0, 0, 0)
    struct.pack_into("<II", block, _DEVICE_OFFSET + 64, tar_blocks, TAR_BLOCK)
    struct.pack_into("<I", block, _SUPER_OFFSET + 4, crc32c(bytes(block[_SUPER_OFFSET:])))
    return bytes(block)


def directory(entries: Sequence[tuple[bytes, int, int]]) -> bytes:
    """The blocks of a directory: `entries` are (name, address in slots, kind), sorted by name, "." and ".." among them.
    The last block is as short as it can be."""
    blocks: list[bytes] = []
    begin, used = 0, 0
    for at, (name, _, _) in enumerate(entries):
        size = len(name) + _ENTRY.size
        if used + size > BLOCK:
            blocks.append(_directory_block(entries[begin:at]).ljust(BLOCK, b"\0"))
            begin, used = at, 0
        used += size
    blocks.append(_directory_block(entries[begin:]))
    return b"".join(blocks)


def _directory_block(entries: Sequence[tuple[bytes, int, int]]) -> bytes:
    offset = len(entries) * _ENTRY.size
    heads = []
    for name, address, kind in entries:
        heads.append(_ENTRY.pack(address, offset, kind, 0))
        offset += len(name)
    return b"".join([*heads, *[name for name, _, _ in entries]])


def xattr_body(entries: Sequence[tuple[int, bytes, bytes]]) -> bytes:
    """What follows an inode that has extended attributes: (index of the prefix, rest of the name, value) each."""
    body = [bytes(12)]
    for prefix, name, value in entries:
        entry = struct.pack("<BBH", len(name), prefix, len(value)) + name + value
        body.append(entry + bytes(-len(entry) % 4))
    return b"".join(body)


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC = _crc_table()


def crc32c(data: bytes) -> int:
    """The CRC-32C of `data` as superblocks carry it: not inverted at the end."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc
