"""An initramfs with this machine's Python, pytest and the source tree: everything a guest needs is in memory.

The archive is cpio's "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst), uncompressed: under
emulation, unpacking costs more than reading.
"""

import compileall
import importlib.metadata
import os
import re
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).resolve().parents[2]
_UNUSED = re.compile(
    r"/(test|tests|idlelib|tkinter|ensurepip|lib2to3|turtledemo|pydoc_data|config-[^/]*|site-packages|dist-packages)(/|$)"
)
_PACKAGES = ("pytest", "pytest-timeout", "h11", "wsproto", "msgspec", "isal", "backports.zstd")


class Archive:
    """A cpio archive being written; parents are added before their children."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._known: set[str] = set()

    def directory(self, path: str) -> None:
        """Add `path` ("a/b") and what is above it."""
        if not path or path in self._known:
            return
        self.directory(os.path.dirname(path))
        self._entry(path, stat.S_IFDIR | 0o755, b"")

    def file(self, path: str, content: bytes, mode: int = 0o644, modified_s: int = 0) -> None:
        self._add(path, stat.S_IFREG | mode, content, modified_s=modified_s)

    def link(self, path: str, target: str) -> None:
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def node(self, path: str, mode: int, major: int, minor: int) -> None:
        self._add(path, mode, b"", major, minor)

    def copy(self, source: str, path: str | None = None) -> None:
        """Add the file `source` as it is, under its own path unless told otherwise; links as what they lead to.
        Compiled Python is good only beside a source of the same age."""
        content, status = Path(source).read_bytes(), os.stat(source)
        self.file((path or source).lstrip("/"), content, stat.S_IMODE(status.st_mode), int(status.st_mtime))

    def tree(self, source: str, path: str, unused: re.Pattern[str] | None = None) -> None:
        """Add the files below the directory `source` at `path`."""
        for parent, directories, files in os.walk(source):
            directories.sort()
            for name in sorted(files):
                full = os.path.join(parent, name)
                if unused is None or not unused.search(full[len(source) :]):
                    self.copy(full, path + full[len(source) :])

    def close(self) -> None:
        self._entry("TRAILER!!!", 0, b"")

    def _add(
        self, path: str, mode: int, content: bytes, major: int = 0, minor: int = 0, *, modified_s: int = 0
    ) -> None:
        if path not in self._known:
            self.directory(os.path.dirname(path))
            self._entry(path, mode, content, major, minor, modified_s)

    def _entry(self, path: str, mode: int, content: bytes, major: int = 0, minor: int = 0, modified_s: int = 0) -> None:
        self._known.add(path)
        name = path.encode() + b"\0"
        fields = (len(self._known), mode, 0, 0, 1, modified_s, len(content), 0, 0, major, minor, len(name), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        self._out.write(header + b"\0" * (-len(header) % 4) + content + b"\0" * (-len(content) % 4))


def build(
    out: BinaryIO, *, scripts: dict[str, str], busybox: str, modules: Iterable[str], programs: Iterable[str]
) -> None:
    """Write the archive: `scripts` are texts of executable files, "init" among them; `modules` are paths of kernel
    modules, kept at /modules in the order in which they are to be loaded; `programs` are paths of executables, kept at
    /programs with the libraries they load."""
    archive = Archive(out)
    archive.node("dev/console", stat.S_IFCHR | 0o600, 5, 1)
    archive.copy(busybox, "bin/busybox")
    archive.link("bin/sh", "busybox")
    archive.link("usr/bin/busybox", "/bin/busybox")
    for name, text in scripts.items():
        archive.file(name, text.encode(), 0o755)
    for number, module in enumerate(modules):
        archive.copy(module, f"modules/{number:02}-{os.path.basename(module)}")
    _add_python(archive)
    wanted = list(programs)
    for program in wanted:
        archive.copy(program, f"programs/{os.path.basename(program)}")
    for library in sorted(_libraries(wanted)):
        archive.copy(library)
    for name in ("src", "tests"):
        # What the guest need not compile: emulated, that is half the time the daemon takes to start.
        compileall.compile_dir(ROOT / name, quiet=2)
        archive.tree(str(ROOT / name), f"work/{name}")
    archive.copy(str(ROOT / "pyproject.toml"), "work/pyproject.toml")
    archive.close()


def _add_python(archive: Archive) -> None:
    interpreter = os.path.realpath(sys.executable)
    archive.copy(interpreter)
    archive.link("python", interpreter)
    standard = sysconfig.get_path("stdlib", vars={"base": sys.base_prefix, "installed_base": sys.base_prefix})
    archive.tree(standard, standard.lstrip("/"), _UNUSED)
    packages = dict(_package_files(_PACKAGES))
    extensions = [str(path) for path in Path(standard, "lib-dynload").glob("*.so")]
    extensions += [source for source in packages if source.endswith(".so")]
    for library in sorted(_libraries([interpreter, *extensions])):
        archive.copy(library)
    for source, path in packages.items():
        archive.copy(source, f"site/{path}")


def _libraries(programs: list[str]) -> set[str]:
    """Shared objects that `programs` load, the dynamic linker included."""
    found: set[str] = set()
    shown = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False).stdout
    for line in shown.splitlines():
        match = re.search(r"(/\S+) \(0x", line)
        if match and os.path.exists(match[1]):
            found.add(match[1])
    return found


def _package_files(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(file, path below site-packages) of installed distributions and of what they require here."""
    waiting, done = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in done:
            continue
        done.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in distribution.files or ():
            if not str(file).startswith("..") and os.path.isfile(source := str(file.locate())):
                yield source, str(file)
        wanted = (each for each in distribution.requires or () if "extra ==" not in each)
        waiting += [re.split(r"[^A-Za-z0-9_.-]", each, maxsplit=1)[0] for each in wanted]
