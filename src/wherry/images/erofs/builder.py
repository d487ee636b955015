"""From the headers of a layer's tar to a tree in memory: what the extractor (`archive.extract`) does on a disk.

What is accepted, refused and made is the same, entry by entry; both ask `archive.rules`. Where this one is better: a
directory's attributes are set when its entry comes, on the directory that is there then.
"""

import errno
import os
import stat
import time
from array import array

from wherry.images.archive import headers, rules
from wherry.images.archive.names import show
from wherry.images.archive.reader import Entry, TarReader
from wherry.images.archive.rules import Parts, Unpacked
from wherry.images.erofs import Unsuitable, format
from wherry.images.erofs.attributes import accepted
from wherry.images.erofs.tree import ROOT, Tree, failure

_CACHED_DIRECTORIES = 4096
_LINK_MAX = 4095  # PATH_MAX without its NUL
_CHUNKS_MAX = 1 << 18
_CHUNK_BITS_MAX = 31


class TreeBuilder:
    """Builds the tree of one archive; used once, by one thread."""

    def __init__(self) -> None:
        self.tree = Tree(time.time_ns())
        self.tar_end = 0
        """Where the last content in the tar ends, in bytes."""
        self._cache: dict[Parts, int] = {}
        self._size = 0
        self._entries = 0

    def build(self, reader: TarReader) -> Unpacked:
        """Take in all entries of `reader`, whose content is not looked at. Raises as `LayerExtractor.extract` does, and
        `Unsuitable`."""
        for entry in reader:
            self._take(entry, reader.offset)
        return Unpacked(self._size, self._entries)

    # entries

    def _take(self, entry: Entry, offset: int) -> None:
        parts = rules.place(entry)
        self._entries += 1
        if not parts:
            return
        try:
            parent = self._cache.get(parts[:-1]) or self._directory(parts[:-1], create=True)
            if parts[-1].startswith(rules.WHITEOUT):
                self._whiteout(parent, parts[-1])
            elif entry.type == headers.REGULAR:
                self._regular(parent, parts[-1], entry, offset)
            elif entry.type == headers.DIRECTORY:
                self._make_directory(parent, parts[-1], entry)
            elif entry.type == headers.SYMLINK:
                self._symlink(parent, parts[-1], entry)
            elif entry.type == headers.HARDLINK:
                self._hardlink(parent, parts, entry)
            else:
                self._node(parent, parts[-1], entry)
        except OSError as error:
            raise rules.explain(error, entry) from error

    def _regular(self, parent: int, name: bytes, entry: Entry, offset: int) -> None:
        if name in self.tree.directories[parent]:
            self._replace(parent, name)
        self._size += entry.size
        block = format.TAR_BLOCK + offset // format.BLOCK
        self._claim(offset + (entry.size if entry.extents is None else 0))
        number = self._add(stat.S_IFREG, entry, entry.size, block if entry.size else 0)
        if entry.extents is not None:
            self._map_sparse(number, entry, block)
        self.tree.enter(parent, name, number)

    def _make_directory(self, parent: int, name: bytes, entry: Entry) -> None:
        tree = self.tree
        number = tree.directories[parent].get(name)
        if number not in tree.directories:
            was_whiteout = number is not None and self._replace(parent, name)
            number = tree.make_directory(parent, name)
            if was_whiteout:
                tree.opaque.add(number)
        mode = stat.S_IFDIR | entry.mode
        owner = (entry.uid, entry.gid)
        format.set_owner(tree.inodes, number * format.INODE_SIZE, mode, owner, rules.time_ns(entry))
        tree.xattrs.pop(number, None)
        self._set_xattrs(number, entry, mode)

    def _symlink(self, parent: int, name: bytes, entry: Entry) -> None:
        if not entry.linkname or len(entry.linkname) > _LINK_MAX:
            raise failure(errno.ENAMETOOLONG if entry.linkname else errno.ENOENT)
        if name in self.tree.directories[parent]:
            self._replace(parent, name)
        number = self._add(stat.S_IFLNK, entry._replace(mode=0o777), len(entry.linkname))
        self.tree.spend(len(entry.linkname) + 128)
        self.tree.targets[number] = entry.linkname
        self._size += len(entry.linkname)
        self.tree.enter(parent, name, number)

    def _hardlink(self, parent: int, parts: Parts, entry: Entry) -> None:
        target = rules.link_target(entry)
        number = self._linked(target)
        existing = self.tree.directories[parent].get(parts[-1])
        if existing == number:
            return
        if existing is not None:
            self._replace(parent, parts[-1])
            number, parent = self._linked(target), self._directory(parts[:-1])
        if number in self.tree.directories:
            raise failure(errno.EPERM)
        self.tree.link(parent, parts[-1], number)

    def _linked(self, target: Parts) -> int:
        number = self.tree.directories[self._directory(target[:-1])].get(target[-1])
        if number is None:
            raise failure(errno.ENOENT)
        return number

    def _node(self, parent: int, name: bytes, entry: Entry) -> None:
        device = rules.device(entry)
        if name in self.tree.directories[parent]:
            self._replace(parent, name)
        data = 0 if entry.type == headers.FIFO else format.device_number(os.major(device), os.minor(device))
        number = self._add(rules.NODE_TYPES[entry.type], entry, 0, data)
        if entry.type == headers.CHARACTER and not device:
            self.tree.whiteouts.add(number)
        self.tree.enter(parent, name, number)

    def _add(self, kind: int, entry: Entry, size: int = 0, data: int = 0) -> int:
        mode = kind | entry.mode
        number = self.tree.add(mode, (entry.uid, entry.gid), rules.time_ns(entry), size, data)
        self._set_xattrs(number, entry, mode)
        return number

    def _set_xattrs(self, number: int, entry: Entry, mode: int) -> None:
        xattrs = accepted(entry.xattrs, mode) if entry.xattrs else []
        if xattrs:
            if len(format.xattr_body(xattrs)) > format.XATTRS_MAX:
                raise Unsuitable(f"{show(entry.name)} has too many extended attributes")
            self.tree.spend(sum(200 + len(name) + len(value) for _, name, value in xattrs))
            self.tree.xattrs[number] = xattrs

    # content

    def _claim(self, end: int) -> None:
        """Content that ends at `end` in the tar is pointed to."""
        self.tar_end = max(self.tar_end, end)
        if -(-end // format.BLOCK) + format.TAR_BLOCK >= format.BLOCKS_MAX:
            raise Unsuitable("its tar is too large")

    def _map_sparse(self, number: int, entry: Entry, block: int) -> None:
        """Chunks as large as the edges of the extents let them be; those without content are holes."""
        extents = [extent for extent in entry.extents or () if extent[1]]
        self._claim((block - format.TAR_BLOCK) * format.BLOCK + sum(length for _, length in extents))
        edges = 0
        for offset, length in extents:
            edges |= offset | (0 if offset + length == entry.size else length)
        bits = min((edges & -edges).bit_length() - 1, _CHUNK_BITS_MAX) if edges else _CHUNK_BITS_MAX
        chunks = _ceil(entry.size, bits)
        if bits < format.BLOCK_BITS or chunks > _CHUNKS_MAX:
            raise Unsuitable(f"sparse file {show(entry.name)} is in too small pieces")
        addresses = array("I", [format.HOLE]) * chunks
        for offset, length in extents:
            for at in range(offset >> bits, _ceil(offset + length, bits)):
                addresses[at] = block
                block += 1 << bits - format.BLOCK_BITS
        self.tree.spend(4 * chunks + 128)
        self.tree.chunks[number] = addresses
        format.set_data(self.tree.inodes, number * format.INODE_SIZE, entry.size, bits - format.BLOCK_BITS)

    # whiteouts

    def _whiteout(self, parent: int, name: bytes) -> None:
        if name == rules.OPAQUE:
            self.tree.opaque.add(parent)
            return
        hidden = rules.hidden(name)
        existing = self.tree.directories[parent].get(hidden)
        if existing is None:
            number = self.tree.add(stat.S_IFCHR)
            self.tree.whiteouts.add(number)
            self.tree.enter(parent, hidden, number)
        elif existing in self.tree.directories:
            self.tree.opaque.add(existing)

    # what is there already

    def _replace(self, parent: int, name: bytes) -> bool:
        """Remove what `name` is, with all below it; whether it was a whiteout."""
        number = self.tree.directories[parent][name]
        if self.tree.kinds[number] in (format.DIRECTORY, format.SYMLINK):
            self._cache.clear()
        self.tree.remove(parent, name)
        return number in self.tree.whiteouts

    # directories

    def _directory(self, parts: Parts, *, create: bool = False) -> int:
        if not parts:
            return ROOT
        number = self._cache.get(parts)
        if number is not None:
            return number
        self.tree.step()
        parent = self._directory(parts[:-1], create=create)
        number = self.tree.directories[parent].get(parts[-1])
        if number is None:
            if not create:
                raise failure(errno.ENOENT)
            number = self.tree.make_directory(parent, parts[-1])
        elif number not in self.tree.directories:
            number = self._through(parent, number, parts, create)
        if len(self._cache) >= _CACHED_DIRECTORIES:
            self._cache.clear()
        self._cache[parts] = number
        return number

    def _through(self, parent: int, number: int, parts: Parts, create: bool) -> int:
        """The directory behind a name that is none itself: a link is followed, a whiteout gives way to a directory that
        hides what lies below."""
        if number in self.tree.targets:
            if create:
                self.tree.make_directories(parts)
            return self.tree.resolve(parts)
        if not create or number not in self.tree.whiteouts:
            raise failure(errno.ENOTDIR)
        self.tree.remove(parent, parts[-1])
        made = self.tree.make_directory(parent, parts[-1])
        self.tree.opaque.add(made)
        return made


def _ceil(size: int, bits: int) -> int:
    """How many chunks of 2**`bits` bytes `size` takes."""
    return -(-size // (1 << bits))
