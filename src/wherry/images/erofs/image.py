"""From a tree in memory to the image: places for inodes that need more room, then directories, then all of it written.

The inodes of the tree are written as they are, at the places their numbers say. An inode that is followed by something
(extended attributes, the target of a short link, chunk addresses) gets a second place behind them, and only that one is
named; what stays unnamed in the table is never read. Data that lies right after an inode must not cross a block.
"""

import sys
from array import array
from collections.abc import Callable
from uuid import uuid4

from wherry.images.erofs import format
from wherry.images.erofs.attributes import OPAQUE
from wherry.images.erofs.tree import ROOT, Tree

_META = format.META_BLOCK * format.BLOCK
_SLOTS_PER_INODE = format.INODE_SIZE // format.SLOT


class Image:
    """Writes one tree; used once."""

    def __init__(self, tree: Tree, tar_blocks: int) -> None:
        """`tar_blocks` is the size of the tar in blocks of 512 bytes."""
        self._tree = tree
        self._tar_blocks = tar_blocks
        self._moved: dict[int, int] = {}
        self._extended = bytearray()
        self._begin = len(tree.inodes)

    def write(self, write: Callable[[bytes | bytearray], object]) -> None:
        """Hand all of the image to `write`, in order. The tree is of no use afterwards."""
        self._place_extended()
        metadata = _META + self._begin + len(self._extended)
        padding = -metadata % format.BLOCK
        data = self._data((metadata + padding) // format.BLOCK)
        blocks = (metadata + padding + len(data)) // format.BLOCK
        live = len(self._tree.kinds) - 1
        seconds = self._tree.now_ns // 10**9
        write(format.superblock(self._address(ROOT), live, blocks, self._tar_blocks, seconds, uuid4().bytes))
        write(self._tree.inodes)
        write(self._extended)
        write(bytes(padding))
        write(data)

    def _address(self, number: int) -> int:
        return self._moved.get(number, number * _SLOTS_PER_INODE)

    # inodes with something after them

    def _place_extended(self) -> None:
        tree = self._tree
        for number in sorted({*tree.xattrs, *tree.opaque, *tree.targets, *tree.chunks}):
            xattrs = tree.xattrs.get(number, [])
            if number in tree.opaque and number in tree.directories:
                xattrs = [*xattrs, OPAQUE]
            body = format.xattr_body(xattrs) if xattrs else b""
            if number in tree.targets:
                self._place_link(number, body)
            elif number in tree.chunks:
                self._place(number, format.CHUNKED, body, _little(tree.chunks[number]))
            elif body:
                self._place(number, format.PLAIN, body, b"")

    def _place_link(self, number: int, body: bytes) -> None:
        target = self._tree.targets[number]
        if format.INODE_SIZE + len(body) + len(target) <= format.BLOCK:
            self._place(number, format.INLINE, body, target)
        elif body:
            self._place(number, format.PLAIN, body, b"")

    def _place(self, number: int, layout: int, body: bytes, tail: bytes) -> None:
        """Give an inode its second place, with the `body` of its attributes and its data, `tail`, after it."""
        place = self._extended
        place += bytes(-(_META + self._begin + len(place)) % format.SLOT)
        if layout == format.INLINE:
            room = -(_META + self._begin + len(place)) % format.BLOCK or format.BLOCK
            if room < format.INODE_SIZE + len(body) + len(tail):
                place += bytes(room)
        at = len(place)
        old = number * format.INODE_SIZE
        place += self._tree.inodes[old : old + format.INODE_SIZE]
        format.set_layout(place, at, layout, len(body))
        place += body
        place += tail
        self._moved[number] = (self._begin + at) // format.SLOT

    # directories and long links

    def _data(self, first_block: int) -> bytearray:
        """The blocks from `first_block` on: directories, and links that are too long for their inode's block."""
        data = bytearray()
        for number in self._tree.directories:
            self._point(number, first_block, data, self._directory(number))
        for number, target in self._tree.targets.items():
            if format.layout(*self._record(number)) != format.INLINE:
                self._point(number, first_block, data, target)
        return data

    def _point(self, number: int, first_block: int, data: bytearray, content: bytes) -> None:
        format.set_data(*self._record(number), len(content), first_block + len(data) // format.BLOCK)
        data += content
        data += bytes(-len(data) % format.BLOCK)

    def _record(self, number: int) -> tuple[bytearray, int]:
        """Where the inode that counts is."""
        address = self._moved.get(number)
        if address is None:
            return self._tree.inodes, number * format.INODE_SIZE
        return self._extended, address * format.SLOT - self._begin

    def _directory(self, number: int) -> bytes:
        children, kinds, address = self._tree.directories[number], self._tree.kinds, self._address
        entries = [(name, address(child), kinds[child]) for name, child in children.items()]
        entries.append((b".", address(number), format.DIRECTORY))
        entries.append((b"..", address(self._tree.parents[number]), format.DIRECTORY))
        entries.sort()
        below = sum(kind == format.DIRECTORY for _, _, kind in entries)
        format.set_links(*self._record(number), below)
        return format.directory(entries)


def _little(addresses: "array[int]") -> bytes:
    if sys.byteorder == "big":
        addresses.byteswap()
    return addresses.tobytes()
