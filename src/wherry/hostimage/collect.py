"""What a program needs from the host: itself, its interpreter, its libraries and theirs, by reading files only."""

import os
import re
import sys
import sysconfig

from wherry.hostimage.libraries import Finder
from wherry.hostimage.tree import Tree

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHEBANG_MAX = 256  # BINPRM_BUF_SIZE of the kernel
# glibc loads these by name at run time: name service, and unwinding at the end of a thread.
_LOADED_BY_NAME = ("libnss_files.so.2", "libnss_dns.so.2", "libgcc_s.so.1")
_PYTHON_SKIP = frozenset(
    ("__pycache__", "test", "tests", "idlelib", "turtledemo", "ensurepip", "site-packages", "dist-packages")
)
_APPLET = re.compile(rb"[a-z0-9_.\[-]{1,32}")
_APPLETS_START = b"\0[\0[[\0"


class MissingError(Exception):
    """Something a program needs is not on this host; the text says what."""


class Collector:
    """Fills a tree with programs and all they need."""

    def __init__(self, tree: Tree, finder: Finder | None = None) -> None:
        self.tree = tree
        self._finder = finder or Finder()
        self._done: set[str] = set()

    def program(self, name: str) -> str:
        """Add a program given by path, or by name to be looked up in PATH; return its path in the image. Raises
        `MissingError`."""
        path = name if "/" in name else _which(name)
        if path is None or not os.path.isfile(path):
            raise MissingError(f"{name}: no such program on this host")
        if not os.access(path, os.X_OK):
            raise MissingError(f"{name}: not executable: a file that is no program goes in by --with")
        path = os.path.abspath(path)
        real = self._take(path)
        self.executable(real)
        if _is_busybox(real):
            self._busybox(path, real)
        return path

    def _take(self, path: str) -> str:
        try:
            return self.tree.take(path)
        except FileNotFoundError:
            raise MissingError(f"{path}: not on this host") from None

    def executable(self, path: str, inherited: list[str] | None = None) -> None:
        """Add what the file at the real path `path` needs, if it is a script or an ELF object."""
        if path in self._done:
            return
        self._done.add(path)
        with open(path, "rb") as file:
            head = file.read(_SHEBANG_MAX)
        if head.startswith(b"#!"):
            self._script(path, head)
        elif head.startswith(b"\x7fELF"):
            self._object(path, inherited or [])

    def _script(self, path: str, head: bytes) -> None:
        words = os.fsdecode(head[2:].partition(b"\n")[0]).split()
        if not words:
            return
        interpreter = words[0]
        self.program(interpreter)
        if os.path.basename(interpreter) == "env":
            operands = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
            if operands:
                self.program(operands[0])

    def _object(self, path: str, inherited: list[str]) -> None:
        parsed = self._finder.elf(path)
        if parsed is None:
            return
        if parsed.interpreter:
            self.executable(self._take(parsed.interpreter))
            if "ld-linux" in parsed.interpreter or "ld64" in parsed.interpreter:
                self._loaded_by_name(path, inherited)
        passed_on = [*self._finder.passed_on(path), *inherited]
        for name in parsed.needed:
            library = self._finder.find(name, path, inherited)
            if library is None:
                raise MissingError(f"{path}: needs {name}, which is not on this host")
            self.executable(self._take(library), passed_on)

    def _loaded_by_name(self, path: str, inherited: list[str]) -> None:
        for name in _LOADED_BY_NAME:
            library = self._finder.find(name, path, inherited)
            if library is not None:
                self.executable(self._take(library), inherited)

    def path(self, path: str) -> None:
        """Add a file, or a directory with all in it, and what the ELF objects and scripts among them need."""
        for taken in self._all(path):
            if os.access(taken, os.X_OK) or ".so" in os.path.basename(taken):
                self.executable(taken)

    def _all(self, path: str) -> list[str]:
        try:
            return self.tree.take_all(os.path.abspath(path))
        except FileNotFoundError:
            raise MissingError(f"{path}: not on this host") from None

    def python(self) -> str:
        """Add the interpreter that runs us with its standard library, without its tests; return its path."""
        interpreter = self.program(os.path.realpath(sys.executable))
        directories = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
        destination = sysconfig.get_config_var("DESTSHARED")
        for directory in sorted(filter(None, {*directories, destination})):
            base = directory.replace(sys.prefix, sys.base_prefix, 1) if sys.prefix != sys.base_prefix else directory
            if os.path.isdir(base):
                for taken in self.tree.take_all(base, _PYTHON_SKIP):
                    if taken.endswith(".so"):
                        self.executable(taken)
        for name in ("python3", "python"):
            self.tree.link(f"/usr/bin/{name}", interpreter)
        return interpreter

    def _busybox(self, path: str, real: str) -> None:
        for applet in applets(real):
            self.tree.link(f"/bin/{applet}", path)


def _which(name: str) -> str | None:
    for directory in (os.environ.get("PATH") or PATH).split(":"):
        path = os.path.join(directory or ".", name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def _is_busybox(path: str) -> bool:
    return os.path.basename(path).startswith("busybox")


def applets(path: str) -> list[str]:
    """The applets of a busybox, from the table of names in it: NUL-terminated, sorted, beginning with `[`."""
    with open(path, "rb") as file:
        data = file.read()
    start = data.find(_APPLETS_START)
    if start < 0:
        return []
    names: list[bytes] = []
    at = start + 1
    while (end := data.find(b"\0", at)) > at:
        name = data[at:end]
        if not _APPLET.fullmatch(name) or (names and name <= names[-1]):
            break
        names.append(name)
        at = end + 1
    return [name.decode() for name in names]
