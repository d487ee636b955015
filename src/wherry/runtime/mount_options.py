"""The options of an OCI mount, parsed once into what the kernel's calls take.

The names are those of the runtime specification (config.md, "Linux mount options"), which are mount(8)'s and their
recursive forms; what is none of them is the file system's own.
"""

from collections.abc import Sequence
from typing import NamedTuple

from wherry.linux import mounts as m

# option → (attribute bits set, attribute bits cleared)
ATTRIBUTES: dict[str, tuple[int, int]] = {
    "ro": (m.ATTR_RDONLY, 0),
    "rw": (0, m.ATTR_RDONLY),
    "nosuid": (m.ATTR_NOSUID, 0),
    "suid": (0, m.ATTR_NOSUID),
    "nodev": (m.ATTR_NODEV, 0),
    "dev": (0, m.ATTR_NODEV),
    "noexec": (m.ATTR_NOEXEC, 0),
    "exec": (0, m.ATTR_NOEXEC),
    "nodiratime": (m.ATTR_NODIRATIME, 0),
    "diratime": (0, m.ATTR_NODIRATIME),
    "relatime": (m.ATTR_RELATIME, m.ATTR_ATIME),
    "norelatime": (0, m.ATTR_ATIME),
    "noatime": (m.ATTR_NOATIME, m.ATTR_ATIME),
    "atime": (0, m.ATTR_ATIME),
    "strictatime": (m.ATTR_STRICTATIME, m.ATTR_ATIME),
    "nostrictatime": (0, m.ATTR_ATIME),
    "nosymfollow": (m.ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, m.ATTR_NOSYMFOLLOW),
}
RECURSIVE: dict[str, tuple[int, int]] = {f"r{name}": bits for name, bits in ATTRIBUTES.items()}

# option → (flag, recursive)
PROPAGATION: dict[str, tuple[int, bool]] = {
    name: (flag, recursive)
    for word, flag in (
        ("private", m.MS_PRIVATE),
        ("shared", m.MS_SHARED),
        ("slave", m.MS_SLAVE),
        ("unbindable", m.MS_UNBINDABLE),
    )
    for name, recursive in ((word, False), ("r" + word, True))
}

# option → (MS_ flag, set or cleared) of the superblock; fsconfig(2) takes the same words
SUPERBLOCK: dict[str, tuple[int, bool]] = {
    "sync": (m.MS_SYNCHRONOUS, True),
    "async": (m.MS_SYNCHRONOUS, False),
    "dirsync": (m.MS_DIRSYNC, True),
    "lazytime": (m.MS_LAZYTIME, True),
    "nolazytime": (m.MS_LAZYTIME, False),
    "mand": (m.MS_MANDLOCK, True),
    "nomand": (m.MS_MANDLOCK, False),
}
# Accepted and without effect: defaults, and what the kernel no longer acts on
NEUTRAL = frozenset(("defaults", "loud", "silent", "iversion", "noiversion", "remount"))
EXTENSIONS = frozenset(("bind", "rbind", "tmpcopyup", "idmap", "ridmap"))


class MountOptions(NamedTuple):
    """What the options of one mount ask for."""

    set: int = 0  # attributes of the mount
    clear: int = 0
    recursive_set: int = 0  # attributes of the mount and all below
    recursive_clear: int = 0
    propagation: tuple[tuple[int, bool], ...] = ()  # (MS_ flag, recursive), in order
    superblock: tuple[str, ...] = ()  # words for fsconfig
    data: tuple[tuple[str, str | None], ...] = ()  # the file system's own (key, value)
    bind: bool = False
    recursive_bind: bool = False
    copy_up: bool = False
    idmap: str = ""  # "", "idmap", "ridmap"

    @property
    def read_only(self) -> bool:
        return bool((self.set | self.recursive_set) & m.ATTR_RDONLY)

    def flags(self) -> int:
        """The MS_ flags that mount(2) takes for the same."""
        flags = m.attributes_to_flags(self.set)
        for word in self.superblock:
            bit, on = SUPERBLOCK[word]
            flags = flags | bit if on else flags & ~bit
        return flags

    def data_string(self) -> str:
        """The file system's own options as mount(2) takes them."""
        return ",".join(key if value is None else f"{key}={value}" for key, value in self.data)


def _apply(bits: tuple[int, int], set_: int, clear: int) -> tuple[int, int]:
    on, off = bits
    return set_ & ~off | on, clear & ~on | off


def parse(options: Sequence[str]) -> MountOptions:
    """Parse the `options` list of an OCI mount; where two contradict, the later counts."""
    set_ = clear = recursive_set = recursive_clear = 0
    propagation: list[tuple[int, bool]] = []
    superblock: list[str] = []
    data: list[tuple[str, str | None]] = []
    words: set[str] = set()
    for option in options:
        if option in ATTRIBUTES:
            set_, clear = _apply(ATTRIBUTES[option], set_, clear)
        elif option in RECURSIVE:
            recursive_set, recursive_clear = _apply(RECURSIVE[option], recursive_set, recursive_clear)
        elif option in PROPAGATION:
            propagation.append(PROPAGATION[option])
        elif option in SUPERBLOCK:
            superblock.append(option)
        elif option in EXTENSIONS:
            words.add(option)
        elif option not in NEUTRAL:
            key, equals, value = option.partition("=")
            data.append((key, value if equals else None))
    return MountOptions(
        set_,
        clear,
        recursive_set,
        recursive_clear,
        tuple(propagation),
        tuple(superblock),
        tuple(data),
        bind="bind" in words or "rbind" in words,
        recursive_bind="rbind" in words,
        copy_up="tmpcopyup" in words,
        idmap="ridmap" if "ridmap" in words else "idmap" if "idmap" in words else "",
    )
