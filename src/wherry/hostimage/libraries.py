"""Finding shared libraries as the dynamic loader would (ld.so(8)), without running it.

Order: DT_RPATH (when there is no DT_RUNPATH), DT_RUNPATH, the directories of /etc/ld.so.conf, the built-in ones; a
library of another architecture is passed over. LD_LIBRARY_PATH is not looked at: it is not the image's.
"""

import glob
import os

from wherry.hostimage import elf

_BUILT_IN = ("/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib")
_CONF_DEPTH_MAX = 8


def configured_directories(conf: str = "/etc/ld.so.conf", depth: int = 0) -> list[str]:
    """The directories that `conf` and the files it includes name, in order."""
    directories: list[str] = []
    try:
        with open(conf, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    for line in lines:
        text = line.partition("#")[0].strip()
        if text.startswith("include ") and depth < _CONF_DEPTH_MAX:
            pattern = os.path.join(os.path.dirname(conf), text.removeprefix("include ").strip())
            for included in sorted(glob.glob(pattern)):
                directories += configured_directories(included, depth + 1)
        elif text.startswith("/"):
            directories.append(text.partition("=")[0].rstrip("/") or "/")
    return directories


def musl_directories() -> list[str]:
    """The directories of musl's loader, when the host has one."""
    directories: list[str] = []
    for path in sorted(glob.glob("/etc/ld-musl-*.path")):
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            directories += [part for part in file.read().replace(":", "\n").split() if part.startswith("/")]
    return directories


class Finder:
    """Finds libraries; remembers what it read."""

    def __init__(self, directories: list[str] | None = None) -> None:
        """`directories`: where to look after an object's own search paths; the host's when not given."""
        if directories is None:
            directories = [*configured_directories(), *musl_directories(), *_BUILT_IN]
        self._directories = directories
        self._read: dict[str, elf.Elf | None] = {}

    def elf(self, path: str) -> elf.Elf | None:
        """The parsed file, None when it is no ELF file."""
        if path not in self._read:
            self._read[path] = elf.read(path)
        return self._read[path]

    def find(self, name: str, needing: str, inherited: list[str]) -> str | None:
        """The path of the library `name` that the object at `needing` loads, or None. `inherited` are the DT_RPATHs
        of the objects that led to it."""
        if "/" in name:
            return name if os.path.exists(name) else None
        wanted = self.elf(needing)
        for directory in [*self.own_paths(needing), *inherited, *self._directories]:
            path = os.path.join(directory, name)
            if os.path.isfile(path) and (found := self.elf(path)) and (wanted is None or _same(found, wanted)):
                return path
        return None

    def own_paths(self, path: str) -> list[str]:
        """The search paths written into an object, `$ORIGIN` replaced."""
        parsed = self.elf(path)
        if parsed is None:
            return []
        origin = os.path.dirname(os.path.realpath(path))
        library = "lib64" if parsed.bits == 64 else "lib"
        paths = parsed.runpath or parsed.rpath
        return [_expand(part, origin, library) for part in paths]

    def passed_on(self, path: str) -> list[str]:
        """The search paths that hold for what the object's libraries need too: DT_RPATH only."""
        parsed = self.elf(path)
        return self.own_paths(path) if parsed is not None and not parsed.runpath else []


def _same(one: elf.Elf, other: elf.Elf) -> bool:
    return one.machine == other.machine and one.bits == other.bits


def _expand(path: str, origin: str, library: str) -> str:
    for name, value in (("ORIGIN", origin), ("LIB", library)):
        path = path.replace(f"${{{name}}}", value).replace(f"${name}", value)
    return path
