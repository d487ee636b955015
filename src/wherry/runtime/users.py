"""Who the process is: names looked up in the container's own /etc/passwd and /etc/group.

Both files are hostile input: they are opened inside the root, must be regular, have at most 10 MiB and 200,000 lines,
and nothing of the host's name services is asked. What a user specification means is Docker's rule: a number is always
an id, never a name that looks like one; the first matching line counts; an explicit group replaces the supplementary
ones.
"""

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from wherry.linux.openat import open_in_root
from wherry.runtime.failure import StartError, path_error

MAX_ID = (1 << 31) - 1
_MAX_FILE = 10 << 20
_MAX_LINES = 200_000
_RANGE = f"uids and gids must be in range 0-{MAX_ID}"


class User(NamedTuple):
    """Credentials of a process."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


class Entry(NamedTuple):
    """A line of /etc/passwd."""

    name: str
    uid: int
    gid: int
    home: str


class Group(NamedTuple):
    """A line of /etc/group."""

    name: str
    gid: int
    members: tuple[str, ...]


def read_database(root_fd: int, path: str) -> bytes:
    """The content of a regular file in the root, b"" when there is none. Raises StartError for anything that is not
    a regular file or is too large."""
    try:
        fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise StartError("InvalidArgument", path_error("open", path, error)) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise StartError("InvalidArgument", f"{path} is not a regular file")
        if not status.st_size:  # so say files of procfs, too: reading /proc/kmsg would take the host's messages away
            return b""
        if status.st_size > _MAX_FILE:
            raise StartError("InvalidArgument", f"{path} is larger than {_MAX_FILE} bytes")
        data = _read(fd, path)
    finally:
        os.close(fd)
    if data.count(b"\n") > _MAX_LINES:
        raise StartError("InvalidArgument", f"{path} has more than {_MAX_LINES} lines")
    return data


def _read(fd: int, path: str) -> bytes:
    chunks = []
    total = 0
    while chunk := os.read(fd, 1 << 20):
        total += len(chunk)
        if total > _MAX_FILE:
            raise StartError("InvalidArgument", f"{path} is larger than {_MAX_FILE} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _number(text: str) -> int | None:
    """A decimal number as Docker's parser takes it (a sign is allowed), else None."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        return None
    return int(text)


def _lines(data: bytes) -> Iterator[list[str]]:
    start = 0
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        line = data[start:end].strip()
        start = end + 1
        if line and not line.startswith(b"#"):
            yield os.fsdecode(line).split(":")


def passwd_entries(data: bytes) -> Iterator[Entry]:
    """The entries of an /etc/passwd, name:password:uid:gid:gecos:home:shell; a field that is missing is empty or 0."""
    for fields in _lines(data):
        fields += [""] * 6
        yield Entry(fields[0], _number(fields[2]) or 0, _number(fields[3]) or 0, fields[5])


def group_entries(data: bytes) -> Iterator[Group]:
    """The entries of an /etc/group, name:password:gid:members."""
    for fields in _lines(data):
        fields += [""] * 4
        yield Group(fields[0], _number(fields[2]) or 0, tuple(filter(None, fields[3].split(","))))


def _checked(number: int) -> int:
    if not 0 <= number <= MAX_ID:
        raise StartError("InvalidArgument", _RANGE)
    return number


def resolve(specification: str, passwd: bytes, group: bytes) -> User:
    """What `USER specification` ("name", "uid", either with ":group" or ":gid", or "") means in a container with
    these two files. Raises StartError with Docker's words."""
    user_part, _, group_part = specification.partition(":")
    number = _number(user_part)
    matched, user = _find_user(user_part, number, passwd)
    if group_part:
        return user._replace(gid=_find_group(group_part, group))
    if not matched:
        return user
    return user._replace(groups=tuple(g.gid for g in group_entries(group) if matched in g.members))


def _find_user(user_part: str, number: int | None, passwd: bytes) -> tuple[str, User]:
    wanted = 0 if not user_part else number
    for entry in passwd_entries(passwd):
        if entry.uid == wanted if wanted is not None else entry.name == user_part:
            return entry.name, User(_checked(entry.uid), _checked(entry.gid), (), entry.home)
    if wanted is None:
        raise StartError("InvalidArgument", f"unable to find user {user_part}: no matching entries in passwd file")
    return "", User(_checked(wanted), 0, (), "/")


def _find_group(group_part: str, group: bytes) -> int:
    number = _number(group_part)
    for entry in group_entries(group):
        if entry.gid == number if number is not None else entry.name == group_part:
            return _checked(entry.gid)
    if number is None:
        raise StartError("InvalidArgument", f"unable to find group {group_part}: no matching entries in group file")
    return _checked(number)


def additional_groups(names: tuple[str, ...], group: bytes) -> tuple[int, ...]:
    """The ids of groups given by name or number (`--group-add`). Raises StartError for an unknown name."""
    found: dict[int, None] = {}
    for name in names:
        matches = [entry.gid for entry in group_entries(group) if name in (entry.name, str(entry.gid))]
        number = _number(name)
        if not matches and number is None:
            raise StartError("InvalidArgument", f"unable to find group {name}: no matching entries in group file")
        found[_checked(matches[0] if matches else number or 0)] = None
    return tuple(found)


def home_of(uid: int, passwd: bytes) -> str:
    """The home directory of `uid`, "/" when it has none."""
    for entry in passwd_entries(passwd):
        if entry.uid == uid:
            return entry.home or "/"
    return "/"
