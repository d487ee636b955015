"""Whose namespaces a container enters (`--network container:`, `--pid container:`, `--ipc container:`)."""

from typing import TYPE_CHECKING, NamedTuple

from wherry.engine.containers import Entry
from wherry.engine.model import Container
from wherry.errors import Conflict, Internal, InvalidArgument, NotFound

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


class Donor(NamedTuple):
    """A process whose namespaces are named by its number, which may come to mean another one."""

    id: str
    pid: int
    began: str
    """Its start, in clock ticks after boot; empty when it was gone already."""


class Joins(NamedTuple):
    """Paths of the namespaces to join, None where the container has its own (or the host's)."""

    network: str | None = None
    network_owner: Container | None = None
    pid: str | None = None
    ipc: str | None = None
    shared_memory: str | None = None
    """/dev/shm of the one whose IPC namespace it is."""
    donors: tuple[Donor, ...] = ()


def resolve_joins(engine: "Engine", record: Container) -> Joins:
    """Look the others up; they must be running. Raises Docker's refusals."""
    host = record.host_config
    network, owner = None, None
    if host.NetworkMode.startswith("container:"):
        owner = _network_owner(engine, host.NetworkMode)
        network = owner.sandbox_key or f"/proc/{owner.state.pid}/ns/net"
    pid = _process_of(engine, host.PidMode, "PID")
    ipc = _process_of(engine, host.IpcMode, "IPC")
    if ipc is not None and ipc.host_config.IpcMode not in ("shareable", "host") and not _joins(ipc):
        raise InvalidArgument(
            f"failed to join IPC namespace: container {ipc.id}: non-shareable IPC "
            "(hint: use IpcMode:shareable for the donor container)"
        )
    return Joins(
        network,
        owner,
        f"/proc/{pid.state.pid}/ns/pid" if pid else None,
        f"/proc/{ipc.state.pid}/ns/ipc" if ipc else None,
        f"/proc/{ipc.state.pid}/root/dev/shm" if ipc else None,
        tuple(_donor(record) for record in (None if owner and owner.sandbox_key else owner, pid, ipc) if record),
    )


def check_donors(engine: "Engine", joins: Joins) -> None:
    """Once the namespaces are joined: whether the processes they were named by have been the same all the time.
    Raises `Conflict` when one ended, for its number may have been another's by then."""
    for donor in joins.donors:
        entry = engine.containers.get(donor.id)
        if entry and _alive(entry) and donor.began and _donor(entry.record) == donor:
            continue
        raise Conflict(f"cannot join the namespaces of container {donor.id}: it stopped meanwhile")


def _donor(record: Container) -> Donor:
    pid = record.state.pid
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
    except OSError:
        return Donor(record.id, pid, "")
    return Donor(record.id, pid, "" if fields[0] in b"ZX" else fields[19].decode("ascii"))  # proc_pid_stat(5): field 22


def _joins(record: Container) -> bool:
    return record.host_config.IpcMode.startswith("container:")


def _network_owner(engine: "Engine", mode: str) -> Container:
    try:
        entry = engine.containers.lookup(mode.partition(":")[2])
    except NotFound as error:
        raise Internal(f"joining network namespace of container: {error}") from None
    record = entry.record
    if entry.status == "restarting":
        raise Conflict(f"cannot join network namespace of container: container {record.name} is restarting")
    if not _alive(entry):
        raise Conflict(
            "cannot join network namespace of a non running container: "
            f"container {record.name} is {record.state.status}"
        )
    return record


def _process_of(engine: "Engine", mode: str, what: str) -> Container | None:
    if not mode.startswith("container:"):
        return None
    entry = engine.containers.lookup(mode.partition(":")[2])
    if not _alive(entry):
        raise (Internal if what == "PID" else Conflict)(
            f"failed to join {what} namespace: container {entry.id} is not running"
        )
    return entry.record


def _alive(entry: Entry) -> bool:
    return entry.status in ("running", "paused") and entry.record.state.pid > 0
