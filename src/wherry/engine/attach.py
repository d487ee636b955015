"""Attach: the client's own socket goes to the monitor, which speaks with it from then on.

A client that attaches before the start waits here, registered, and its socket goes to the spawner with the start, so
that it sees the first byte. Nothing of the conversation passes through the daemon.
"""

import secrets
import select
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from wherry.engine import detach_keys
from wherry.engine.containers import Entry
from wherry.engine.logs import LogOptions, logs
from wherry.http.hijack import MULTIPLEXED_STREAM, RAW_STREAM, Hijack
from wherry.runtime.client import Attachment

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


class AttachOptions(NamedTuple):
    """Query of POST /containers/{id}/attach; `mux` False: no stream headers whatever the container (WebSocket)."""

    stream: bool = False
    logs: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    detach_keys: str | None = None
    mux: bool = True


class Pending:
    """A client's socket and what it wants, until a monitor takes a copy."""

    __slots__ = ("_socket", "attachment")

    def __init__(self, client: socket.socket, attachment: Attachment) -> None:
        self._socket = client
        self.attachment = attachment

    def close(self) -> None:
        """Let go of our copy; the conversation ends if it was the only one."""
        self._socket.close()

    def hung_up(self) -> bool:
        """Both directions of the client's connection are closed."""
        poll = select.poll()
        poll.register(self._socket, 0)
        return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))


async def attach(engine: "Engine", ref: str, options: AttachOptions, connection: Hijack) -> None:
    """Connect a client to the container's standard streams; returns when it is handed over.

    Raises `NotFound`, `Conflict` (paused, restarting) or `InvalidArgument` (detach keys) before anything is accepted;
    afterwards the connection just ends. POST /containers/{id}/attach.
    """
    keys = detach_keys.parse(options.detach_keys or "")
    entry = engine.containers.lookup(ref)
    entry.check("attach", ref)
    tty = entry.record.config.Tty
    mux = options.mux and not tty
    await connection.accept(MULTIPLEXED_STREAM if mux else RAW_STREAM)
    if options.logs:
        await _replay(engine, ref, options, connection)
    engine.publish(entry.record, "attach")
    if not options.stream:
        await connection.close()
        return
    client, early = await connection.hand_over()
    attachment = Attachment(
        fd=client.fileno(),
        stdin=options.stdin and entry.record.config.OpenStdin,
        stdout=options.stdout,
        stderr=options.stderr,
        mux=mux,
        detach_keys=keys if tty else b"",
        early=early,
        id=secrets.token_hex(8),
    )
    await _hand_on(engine, entry, Pending(client, attachment), connection)


async def _hand_on(engine: "Engine", entry: Entry, pending: Pending, connection: Hijack) -> None:
    """Give the socket to the monitor, or keep it for the start."""
    async with entry.lock:
        if engine.containers.get(entry.id) is None:
            pending.close()
            await connection.close()
        elif entry.monitor is None:
            for gone in [p for p in entry.pending if p.hung_up()]:
                gone.close()
                entry.pending.remove(gone)
            entry.pending.append(pending)
            connection.release()
        else:
            try:
                await entry.monitor.attach(pending.attachment)
            finally:
                pending.close()
                connection.release()


async def _replay(engine: "Engine", ref: str, options: AttachOptions, connection: Hijack) -> None:
    wanted = LogOptions(stdout=options.stdout, stderr=options.stderr)
    if wanted.stdout or wanted.stderr:
        async for chunk in await logs(engine, ref, wanted):
            await connection.write(chunk)


def take_pending(entry: Entry) -> list[Pending]:
    """Those who wait for the start; the caller closes them."""
    waiting, entry.pending = entry.pending, []
    return waiting


def drop_pending(entry: Entry) -> None:
    """End the conversations of those who wait: there will be no start."""
    for pending in take_pending(entry):
        pending.close()


def detached(engine: "Engine", entry: Entry, event: dict[str, Any]) -> None:
    """A client left with the detach keys."""
    if event.get("exec_id"):
        engine.publish(entry.record, "exec_detach", {"execID": event["exec_id"]})
    else:
        engine.publish(entry.record, "detach")
