"""What the OCI command line remembers of a container between two of its calls.

    <root>/                     --root, 0700
    └── <id>/                   made by create, removed by delete
        ├── lock                flock held while a command changes the container
        ├── state.json          class `Record`; with pid 0 until init waits at the gate
        └── start.sock          where init waits for the start; unlinked by start

A container whose creator died has the pid 0: it counts as stopped, and delete removes it with its cgroup and whoever
is in there.
"""

import fcntl
import json
import os
import socket
from typing import Any, NamedTuple

from wherry.runtime.failure import StartError, words

OCI_VERSION = "1.2.0"
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


class Record(NamedTuple):
    """state.json."""

    id: str
    pid: int
    start_time: int  # of the process, clock ticks since boot: tells it from a later one with the same pid
    bundle: str
    created: str  # RFC 3339
    owner: int
    cgroup: str
    config: dict[str, Any]
    keyring: bool = True  # it has a session keyring of its own

    def alive(self) -> bool:
        """Whether init still runs."""
        return self.pid > 0 and self.start_time >= 0 and process_start_time(self.pid) == self.start_time


def check_id(container_id: str) -> None:
    """Raises StartError for an id that is no file name."""
    if not container_id or container_id in (".", "..") or not _ID_CHARACTERS.issuperset(container_id):
        raise StartError("InvalidArgument", "invalid container ID format")


def process_start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat; -1 when there is no such process, or only its zombie."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        fields = os.read(fd, 4096).rpartition(b")")[2].split()
    except ProcessLookupError:
        return -1
    finally:
        os.close(fd)
    return -1 if fields[0] in (b"Z", b"X") else int(fields[19])


class ContainerDirectory:
    """One container's directory under the root."""

    def __init__(self, root: str, container_id: str) -> None:
        check_id(container_id)
        self.id = container_id
        self.path = os.path.join(root, container_id)

    def create(self) -> None:
        """Make it. Raises StartError when the id is taken."""
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        try:
            os.mkdir(self.path, 0o700)
        except FileExistsError:
            raise StartError("Conflict", "container with given ID already exists") from None

    def lock(self) -> int:
        """Wait for the exclusive lock of the container; it is held until the descriptor is closed."""
        try:
            fd = os.open(os.path.join(self.path, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise StartError("NotFound", "container does not exist") from None
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd

    def save(self, record: Record) -> None:
        """Write state.json at once."""
        write_whole(os.path.join(self.path, "state.json"), json.dumps(record._asdict()).encode())

    def load(self) -> Record:
        """Read state.json. Raises StartError when there is no such container."""
        try:
            fd = os.open(os.path.join(self.path, "state.json"), os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise StartError("NotFound", "container does not exist") from None
        with open(fd, "rb") as file:
            return Record(**json.load(file))

    def waiting(self) -> bool:
        """Whether init still waits at the gate."""
        return os.path.lexists(os.path.join(self.path, "start.sock"))

    def listen(self) -> socket.socket:
        """The gate."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        with _Here(self.path) as here:
            listener.bind(f"{here}/start.sock")
        listener.listen(1)
        return listener

    def knock(self) -> socket.socket:
        """Connect to the gate. Raises StartError when init is gone."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            with _Here(self.path) as here:
                connection.connect(f"{here}/start.sock")
        except OSError as error:
            connection.close()
            raise StartError("Internal", f"the container's init does not wait any more: {words(error)}") from None
        return connection

    def open_gate(self) -> None:
        """Forget the gate: init has passed it."""
        os.unlink(os.path.join(self.path, "start.sock"))

    def remove(self) -> None:
        """Remove the directory and the few files we keep there."""
        try:
            for name in os.listdir(self.path):
                os.unlink(os.path.join(self.path, name))
            os.rmdir(self.path)
        except FileNotFoundError:
            pass


class _Here:
    """A short name for a directory: socket addresses end at 107 bytes, paths do not."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> str:
        return f"/proc/self/fd/{self._fd}"

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def containers(root: str) -> list[Record]:
    """All containers under the root, by id."""
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    records = []
    for name in names:
        try:
            records.append(ContainerDirectory(root, name).load())
        except StartError:
            continue
    return records


def write_whole(path: str, data: bytes) -> None:
    """Write a file that is whole or absent."""
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)
    os.rename(temporary, path)
