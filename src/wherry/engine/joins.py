"""Whose namespaces a container enters (`--network container:`, `--pid container:`, `--ipc container:`)."""

import os
import select
from typing import TYPE_CHECKING, NamedTuple

from wherry.engine.containers import Entry
from wherry.engine.model import Container
from wherry.engine.proctree import is_of
from wherry.errors import Conflict, Internal, InvalidArgument, NotFound, WherryError
from wherry.linux.fdpass import close_all
from wherry.linux.pidfd import pidfd_open
from wherry.runtime import shared_memory

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


class Donor(NamedTuple):
    """Another container, what of it is joined, and what to say when it does not run."""

    entry: Entry
    pid: int
    refusal: WherryError


class Joins(NamedTuple):
    """Paths of the namespaces to join, None where the container has its own (or the host's)."""

    network: str | None = None
    network_owner: Container | None = None
    pid: str | None = None
    ipc: str | None = None
    shared_memory: str | None = None
    """/dev/shm of the one whose IPC namespace it is."""
    donors: tuple[Donor, ...] = ()


class HeldJoins(NamedTuple):
    """What is to be joined, named by descriptors of this process: it stays what it is, whatever becomes of numbers and
    names meanwhile."""

    joins: Joins
    donors: tuple[tuple[Donor, int], ...]
    """Each with a descriptor of its process."""
    fds: list[int]

    def check(self) -> None:
        """Raise the refusal when one of the donors has ended."""
        for donor, pidfd in self.donors:
            if _ended(pidfd):
                raise donor.refusal

    def close(self) -> None:
        """Let go of it."""
        close_all(self.fds)


def resolve_joins(engine: "Engine", record: Container) -> Joins:
    """Look the others up; they must be running. Raises Docker's refusals."""
    host = record.host_config
    network = _network_donor(engine, host.NetworkMode)
    pid = _donor_of(engine, host.PidMode, "PID")
    ipc = _donor_of(engine, host.IpcMode, "IPC")
    owner = network.entry.record if network else None
    if ipc is not None and not _shares_ipc(ipc.entry.record):
        raise InvalidArgument(
            f"failed to join IPC namespace: container {ipc.entry.id}: non-shareable IPC "
            "(hint: use IpcMode:shareable for the donor container)"
        )
    return Joins(
        (owner.sandbox_key or f"/proc/{owner.state.pid}/ns/net") if owner else None,
        owner,
        f"/proc/{pid.pid}/ns/pid" if pid else None,
        f"/proc/{ipc.pid}/ns/ipc" if ipc else None,
        shared_memory.of_process(f"/proc/{ipc.pid}") if ipc else None,
        tuple(donor for donor in (network, pid, ipc) if donor),
    )


def hold(joins: Joins) -> HeldJoins:
    """Open what `joins` names, of processes that are certainly the donors'. Raises a donor's refusal."""
    held = HeldJoins(joins, (), [])
    try:
        held = held._replace(donors=tuple((donor, _hold_donor(donor, held.fds)) for donor in joins.donors))
        named = joins._replace(
            network=joins.network and _hold(joins.network, held.fds),
            pid=joins.pid and _hold(joins.pid, held.fds),
            ipc=joins.ipc and _hold(joins.ipc, held.fds),
            shared_memory=joins.ipc and shared_memory.of_namespace(_hold(f"{joins.ipc[:-3]}mnt", held.fds)),
        )
        held.check()  # the numbers have meant them all the time
        return held._replace(joins=named)
    except OSError:
        refusal = _first_refusal(held)
        held.close()
        raise refusal from None
    except BaseException:
        held.close()
        raise


def _hold_donor(donor: Donor, fds: list[int]) -> int:
    """A descriptor of its process, if that is its monitor's: such a one has its number until the monitor reaps it."""
    monitor = donor.entry.monitor
    if monitor is None or monitor.closed:
        raise donor.refusal
    try:
        fds.append(pidfd_open(donor.pid))
        known = is_of(donor.pid, monitor.monitor_pid)
    except OSError:
        raise donor.refusal from None
    if not known or _ended(fds[-1]):
        raise donor.refusal
    return fds[-1]


def _first_refusal(held: HeldJoins) -> WherryError:
    """What to say when something of the donors is not there any more."""
    ended = [donor for donor, pidfd in held.donors if _ended(pidfd)]
    return (ended or held.joins.donors)[0].refusal


def _hold(path: str, fds: list[int]) -> str:
    """A name of what is at `path` now, good as long as the descriptor that is added to `fds` is open."""
    fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    return f"/proc/{os.getpid()}/fd/{fds[-1]}"


def _ended(pidfd: int) -> bool:
    """Whether the process has ended, reaped or not."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _shares_ipc(record: Container) -> bool:
    return record.host_config.IpcMode in ("shareable", "host") or _joins(record)


def _joins(record: Container) -> bool:
    return record.host_config.IpcMode.startswith("container:")


def _network_donor(engine: "Engine", mode: str) -> Donor | None:
    if not mode.startswith("container:"):
        return None
    try:
        entry = engine.containers.lookup(mode.partition(":")[2])
    except NotFound as error:
        raise Internal(f"joining network namespace of container: {error}") from None
    record = entry.record
    if entry.status == "restarting":
        raise Conflict(f"cannot join network namespace of container: container {record.name} is restarting")
    text = f"cannot join network namespace of a non running container: container {record.name} is "
    if not _alive(entry):
        raise Conflict(text + record.state.status)
    return Donor(entry, record.state.pid, Conflict(text + "exited"))


def _donor_of(engine: "Engine", mode: str, what: str) -> Donor | None:
    if not mode.startswith("container:"):
        return None
    entry = engine.containers.lookup(mode.partition(":")[2])
    kind = Internal if what == "PID" else Conflict
    refusal = kind(f"failed to join {what} namespace: container {entry.id} is not running")
    if not _alive(entry):
        raise refusal
    return Donor(entry, entry.record.state.pid, refusal)


def _alive(entry: Entry) -> bool:
    return entry.status in ("running", "paused") and entry.record.state.pid > 0
