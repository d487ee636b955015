"""The file tree of an image being collected from the host: what to take, under which path, links preserved."""

import errno
import os
import stat
from typing import NamedTuple

_LINKS_MAX = 40


class Node(NamedTuple):
    """One file: kind "file", "directory" or "link"; `source` is the host's file to copy, `data` the content when
    there is none; `target` of a link."""

    kind: str
    mode: int
    source: str = ""
    data: bytes = b""
    target: str = ""
    mtime: int = 0


class Tree:
    """Nodes by absolute path. Adding a path adds its directories, and for every symbolic link on the way the link
    and what it leads to, so that the path means the same in the image as here."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}

    def directory(self, path: str, mode: int = 0o755) -> None:
        """A directory of our own making."""
        path = self._place(path)
        self.nodes[path] = Node("directory", mode)

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """A file of our own making."""
        path = self._place(path)
        self.nodes[path] = Node("file", mode, data=data)

    def link(self, path: str, target: str) -> None:
        """A symbolic link of our own making; what is there already stays."""
        path = self._place(path)
        self.nodes.setdefault(path, Node("link", 0o777, target=target))

    def has(self, path: str) -> bool:
        """Whether something is at `path`, links of directories followed."""
        return self._place(path) in self.nodes

    def _place(self, path: str) -> str:
        """Where `path` really lies, links among its directories followed; missing directories are added."""
        parent, name = os.path.split(path)
        if parent == "/":
            return path
        for _ in range(_LINKS_MAX):
            parent = self._place(parent)
            node = self.nodes.setdefault(parent, Node("directory", 0o755))
            if node.kind != "link":
                return os.path.join(parent, name)
            parent = os.path.normpath(os.path.join(os.path.dirname(parent), node.target))
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)

    def take(self, path: str) -> str:
        """Take one file or empty directory of the host with the links that lead to it; return its real path.

        Raises OSError (ENOENT, ELOOP) and ValueError for what is neither file nor directory nor link."""
        at = "/"
        rest = [part for part in os.path.abspath(path).split("/") if part]
        links = 0
        while rest:
            part = rest.pop(0)
            if part == "..":
                at = os.path.dirname(at)
                continue
            here = os.path.join(at, part)
            status = os.lstat(here)
            if stat.S_ISLNK(status.st_mode):
                links += 1
                if links > _LINKS_MAX:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = os.readlink(here)
                self.nodes[here] = Node("link", 0o777, target=target, mtime=int(status.st_mtime))
                if target.startswith("/"):
                    at = "/"
                rest[:0] = [piece for piece in target.split("/") if piece not in ("", ".")]
                continue
            self._real(here, status)
            at = here
        return at

    def _real(self, path: str, status: os.stat_result) -> None:
        mode = stat.S_IMODE(status.st_mode)
        mtime = int(status.st_mtime)
        if stat.S_ISDIR(status.st_mode):
            if path not in self.nodes:
                self.nodes[path] = Node("directory", mode, mtime=mtime)
        elif stat.S_ISREG(status.st_mode):
            self.nodes[path] = Node("file", mode, source=path, mtime=mtime)
        else:
            raise ValueError(f"{path}: neither a file, a directory nor a link")

    def take_all(self, path: str, skip: frozenset[str] = frozenset()) -> list[str]:
        """Take a file, or a directory with everything below but the names in `skip` and special files; return the
        real paths of the files taken. Links inside are kept as they are; where they lead is not followed."""
        real = self.take(path)
        if not os.path.isdir(real):
            return [real]
        taken = []
        for directory, subdirectories, files in os.walk(real):
            subdirectories[:] = sorted(name for name in subdirectories if name not in skip)
            for name in [*subdirectories, *sorted(files)]:
                inner = os.path.join(directory, name)
                status = os.lstat(inner)
                if stat.S_ISLNK(status.st_mode):
                    self.link(inner, os.readlink(inner))
                elif stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode):
                    self._real(inner, status)
                    if stat.S_ISREG(status.st_mode):
                        taken.append(inner)
        return taken
