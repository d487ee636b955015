"""Whose namespaces a container enters (`--network container:`, `--pid container:`, `--ipc container:`)."""

from typing import TYPE_CHECKING, NamedTuple

from wherry.engine.containers import Entry
from wherry.engine.model import Container
from wherry.errors import Conflict, Internal, InvalidArgument, NotFound

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


class Joins(NamedTuple):
    """Paths of the namespaces to join, None where the container has its own (or the host's)."""

    network: str | None = None
    network_owner: Container | None = None
    pid: str | None = None
    ipc: str | None = None
    shared_memory: str | None = None
    """/dev/shm of the one whose IPC namespace it is."""


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
    )


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
