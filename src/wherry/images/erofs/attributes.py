"""Extended attributes as a file system takes them: what Linux refuses to set is left out, as when a tree is made.

xattr(7), acl(5), capabilities(7); kernel fs/xattr.c, fs/posix_acl.c, security/commoncap.c.
"""

import errno
import os
import stat
import struct

from wherry.images.archive.rules import FOREIGN_XATTRS

Xattr = tuple[int, bytes, bytes]
"""The index of a name's prefix in EROFS, the rest of the name, the value."""

OPAQUE: Xattr = (4, b"overlay.opaque", b"y")

_PREFIXES = ((b"user.", 1), (b"trusted.", 4), (b"security.", 6))
_ACCESS, _DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
_CAPABILITY = b"security.capability"
_CAPABILITY_SIZES = {2: 20, 3: 24}
_NAME_MAX = 255
_VALUE_MAX = 0xFFFF  # one less than Linux's; the field has 16 bits
_TOTAL_MAX = 200_000
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32


def accepted(xattrs: dict[bytes, bytes], mode: int) -> list[Xattr]:
    """Those of `xattrs` that a file of `mode` (type included) gets. Raises OSError as setxattr(2) does where that is no
    reason to leave one out."""
    found = []
    for name, value in xattrs.items():
        if name.startswith(FOREIGN_XATTRS):
            continue
        if not 0 < len(name) <= _NAME_MAX:
            raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
        if len(value) > _VALUE_MAX:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        xattr = _accepted(name, value, mode)
        if xattr is not None:
            found.append(xattr)
    if sum(len(name) + len(value) for _, name, value in found) > _TOTAL_MAX:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return found


def _accepted(name: bytes, value: bytes, mode: int) -> Xattr | None:
    if name in (_ACCESS, _DEFAULT):
        return _acl(name == _DEFAULT, value, mode)
    for prefix, index in _PREFIXES:
        if not name.startswith(prefix) or name == prefix:
            continue
        if index == 1 and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return None
        if name == _CAPABILITY and not _is_capability(value):
            return None
        return index, name[len(prefix) :], value
    return None


def _is_capability(value: bytes) -> bool:
    return len(value) >= 4 and _CAPABILITY_SIZES.get(value[3]) == len(value)


def _acl(default: bool, value: bytes, mode: int) -> Xattr | None:
    """An access control list, with the permissions that the file's mode, set after it, leaves it."""
    entries = _parse_acl(value)
    if entries is None or stat.S_ISLNK(mode):
        return None
    if default:
        if not stat.S_ISDIR(mode):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return 3, b"", value
    tags = {tag for tag, _, _ in entries}
    if not tags & {_USER, _GROUP, _MASK}:
        return None  # it says no more than a mode does
    group = _MASK if _MASK in tags else _GROUP_OBJ
    bits = {_USER_OBJ: mode >> 6 & 7, group: mode >> 3 & 7, _OTHER: mode & 7}
    packed = [struct.pack("<HHI", tag, bits.get(tag, permissions), who) for tag, permissions, who in entries]
    return 2, b"", value[:4] + b"".join(packed)


def _parse_acl(value: bytes) -> list[tuple[int, int, int]] | None:
    """The (tag, permissions, id) entries, or None for what is no valid list, or an empty one."""
    if len(value) < 12 or (len(value) - 4) % 8 or value[:4] != b"\2\0\0\0":
        return None
    entries = list(struct.iter_unpack("<HHI", value[4:]))
    tags = [tag for tag, _, _ in entries]
    once = [tag for tag in tags if tag not in (_USER, _GROUP)]
    wanted = [_USER_OBJ, _GROUP_OBJ, *([_MASK] if _MASK in tags else []), _OTHER]
    if tags != sorted(tags) or once != wanted or ({_USER, _GROUP} & set(tags) and _MASK not in tags):
        return None
    if any(bits & ~7 or (tag in (_USER, _GROUP) and who == 0xFFFFFFFF) for tag, bits, who in entries):
        return None
    return entries
