"""The containers: their states, their records, and how they are found.

A record (`model.Container`) is one JSON document in the table `containers`; an `Entry` is the record together with
what lives only as long as the daemon: the lock, the connection to the monitor, who waits and who is attached.
"""

import asyncio
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from wherry.engine.model import Container
from wherry.errors import Conflict, Internal, InvalidArgument, NotFound, NotModified, WherryError
from wherry.store.db import Database

if TYPE_CHECKING:
    from wherry.engine.attach import Pending
    from wherry.engine.health import Watch
    from wherry.runtime.client import Monitor

STATUSES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")


class Refusal(NamedTuple):
    """Why an action is not possible in a state; the text may use {id} and {ref} (what the client called it)."""

    error: type[WherryError]
    text: str


_SAME = Refusal(NotModified, "")
_NOT_RUNNING = Refusal(Conflict, "container {id} is not running")
_GOING = Refusal(Conflict, "container is marked for removal and cannot be started")
_RESTARTING = Refusal(Conflict, "Container {id} is restarting, wait until the container is running")
_CANNOT_KILL = Refusal(Conflict, "cannot kill container: {ref}: container {id} is not running")
_NOT_PAUSED = Refusal(Internal, "Container {id} is not paused")
_IN_PROGRESS = Refusal(Conflict, "removal of container {ref} is already in progress")
_STOP_FIRST = 'cannot remove container "{{ref}}": container is {}: stop the container before removing or force remove'

# The state machine: action -> state it is in -> state it goes to, or why not. An action absent from a row's states
# leaves the container where it is. `exit` is not asked for: it is what the monitor reports.
TABLE: dict[str, dict[str, str | Refusal]] = {
    "start": {
        "created": "running",
        "exited": "running",
        "restarting": "running",
        "running": _SAME,
        "paused": Refusal(Conflict, "cannot start a paused container, try unpause instead"),
        "removing": _GOING,
        "dead": _GOING,
    },
    "exit": dict.fromkeys(("created", "running", "paused", "restarting", "exited"), "exited"),
    "stop": {"created": _SAME, "exited": _SAME, "dead": _SAME, "removing": _SAME},
    "kill": {
        "created": _CANNOT_KILL,
        "exited": _CANNOT_KILL,
        "dead": _CANNOT_KILL,
        "removing": _CANNOT_KILL,
    },
    "pause": {
        "running": "paused",
        "paused": Refusal(Conflict, "Container {id} is already paused"),
        "restarting": _RESTARTING,
        **dict.fromkeys(("created", "exited", "dead", "removing"), _NOT_RUNNING),
    },
    "unpause": {"paused": "running", **dict.fromkeys(("created", "running", "exited", "dead"), _NOT_PAUSED)},
    "restart": {"removing": _GOING, "dead": _GOING},
    "attach": {
        "paused": Refusal(Conflict, "container {ref} is paused, unpause the container before attach"),
        "restarting": Refusal(Conflict, "container {ref} is restarting, wait until the container is running"),
    },
    "exec": {
        "paused": Refusal(Conflict, "Container {ref} is paused, unpause the container before exec"),
        "restarting": Refusal(Conflict, "Container {ref} is restarting, wait until the container is running"),
        **dict.fromkeys(("created", "exited", "dead", "removing"), _NOT_RUNNING),
    },
    "top": {
        "restarting": Refusal(Conflict, "container {id} is restarting, wait until the container is running"),
        **dict.fromkeys(("created", "exited", "dead", "removing"), _NOT_RUNNING),
    },
    "resize": dict.fromkeys(("created", "exited", "dead", "removing", "restarting"), _NOT_RUNNING),
    "rename": {"removing": _IN_PROGRESS},
    "update": dict.fromkeys(
        ("removing", "dead"), Refusal(Conflict, 'container is marked for removal and cannot be "update"')
    ),
    "remove": {
        "created": "removing",
        "exited": "removing",
        "dead": "removing",
        "removing": _IN_PROGRESS,
        "running": Refusal(Conflict, _STOP_FIRST.format("running")),
        "restarting": Refusal(Conflict, _STOP_FIRST.format("restarting")),
        "paused": Refusal(Conflict, 'cannot remove container "{ref}": container is paused and must be unpaused first'),
    },
}

MIGRATIONS = (
    """
    CREATE TABLE containers (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, status TEXT NOT NULL, image_id TEXT NOT NULL,
        created INTEGER NOT NULL, record BLOB NOT NULL
    );
    CREATE INDEX containers_image ON containers (image_id);
    CREATE TABLE volumes (
        name TEXT PRIMARY KEY, created INTEGER NOT NULL, anonymous INTEGER NOT NULL, driver TEXT NOT NULL,
        labels TEXT NOT NULL, options TEXT NOT NULL
    );
    CREATE TABLE engine (key TEXT PRIMARY KEY, value TEXT NOT NULL)
    """,
    """
    CREATE TABLE last_exits (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL, name TEXT NOT NULL, exit_code INTEGER NOT NULL, at REAL NOT NULL
    )
    """,
)

REMEMBER_S = 300.0
"""How long the exit code of a container that removed itself can still be asked for."""
REMEMBER = 1000
"""Of how many of them at most."""

_VALID_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Container).decode


class Wait(NamedTuple):
    """Somebody waiting for a container: resolved with (exit code, error text or None)."""

    removal: bool
    future: "asyncio.Future[tuple[int, str | None]]"


class Requested(NamedTuple):
    """An end that was asked for: the reason to show, and the signal by which it must have come (0: any end)."""

    reason: str
    signal: int = 0


class Unmounting(Protocol):
    """What still has mounts of a container."""

    async def unmounted(self) -> None:
        """Wait until they are gone."""


class Entry:
    """One container in memory. Changes of `record` are made under `lock` and saved before they take effect."""

    __slots__ = (
        "backoff_s",
        "copying",
        "exec_ids",
        "lock",
        "monitor",
        "pending",
        "process",
        "record",
        "removals",
        "requested",
        "requests",
        "restart_task",
        "restarts_by_request",
        "starters",
        "stay_down",
        "stops",
        "unmounting",
        "unsaved",
        "waits",
        "watch",
    )

    def __init__(self, record: Container) -> None:
        self.record = record
        self.lock = asyncio.Lock()
        self.monitor: Monitor | None = None
        self.unmounting: Unmounting | None = None
        """The last run's monitor, as long as it still has the container's mounts (`unmounting`)."""
        self.copying: asyncio.Event | None = None
        """Files are copied into it while it does not run: set when that is done."""
        self.pending: list[Pending] = []
        self.waits: list[Wait] = []
        self.exec_ids: list[str] = []
        self.process: dict[str, Any] | None = None
        self.restart_task: asyncio.Task[None] | None = None
        self.backoff_s = 0.0
        self.stay_down = False
        """Stopped by request: whatever the restart policy says, the next exit is the last of this run."""
        self.watch: Watch | None = None
        """The health probes of a running container that has any."""
        self.requested: Requested | None = None
        """Why the container is about to end, if somebody asked for it."""
        self.removals = 0
        """Forced removals under way: nothing starts it any more."""
        self.requests = 0
        """How often its end has been asked for since it was last started by request."""
        self.restarts_by_request = 0
        """How many requests to restart it wait for its end."""
        self.starters: set[asyncio.Future[None]] = set()
        """The ends of the starts that are under way, or about to be."""
        self.stops = 0
        """How many requests to stop wait for the end: each is an event of its own."""
        self.unsaved = False
        """The record in the database is older than this one: writing it failed."""

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def status(self) -> str:
        return self.record.state.status

    @property
    def goes_when_ended(self) -> bool:
        """Whether its end is also its removal (`--rm`); not when it ends to be started again."""
        return self.record.host_config.AutoRemove and not self.restarts_by_request

    def check(self, action: str, ref: str | None = None) -> str:
        """The state that `action` leads to; raises Docker's refusal when the table has one."""
        going = self.removals and action in ("start", "restart")
        found = _GOING if going else TABLE[action].get(self.status, self.status)
        if isinstance(found, Refusal):
            raise found.error(found.text.format(id=self.id, ref=ref or self.record.name))
        return found

    @contextmanager
    def starting(self) -> Iterator[None]:
        """While somebody starts the container, or stops it to start it again."""
        over = asyncio.get_running_loop().create_future()
        self.starters.add(over)
        try:
            yield
        finally:
            self.starters.discard(over)
            over.set_result(None)

    async def started(self) -> bool:
        """Wait for a start that is under way: what is asked for meanwhile is for what comes of it. Whether there was
        one."""
        if self.status in ("running", "paused", "restarting") or not self.starters:
            return False
        await asyncio.wait(self.starters)
        return True

    def wait(self, *, removal: bool) -> "asyncio.Future[tuple[int, str | None]]":
        """A future for the next exit, or for the removal."""
        future = asyncio.get_running_loop().create_future()
        self.waits.append(Wait(removal, future))
        return future

    def forget_wait(self, future: "asyncio.Future[tuple[int, str | None]]") -> None:
        """Nobody waits on `future` any more."""
        future.cancel()
        self.waits = [wait for wait in self.waits if wait.future is not future]

    def wake(self, *, removal: bool, error: str | None = None) -> None:
        """Resolve those who wait for an exit (or, with `removal`, everybody: nothing else will ever come)."""
        ready = [w for w in self.waits if removal or not w.removal]
        self.waits = [w for w in self.waits if not (removal or not w.removal)]
        for wait in ready:
            if not wait.future.done():
                wait.future.set_result((self.record.state.exit_code, error))


class ContainerStore:
    """All containers, by id and by name; the memory is the truth for reading, the database for coming back."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._entries: dict[str, Entry] = {}
        self._names: dict[str, str] = {}

    def load(self) -> list[str]:
        """Read every record; returns what was wrong with those that could not be read. They stay in the database."""
        problems = []
        for container_id, name, document in self._db.all("SELECT id, name, record FROM containers ORDER BY created"):
            self._names[str(name)] = str(container_id)
            try:
                record = _decode(document)  # type: ignore[arg-type]  # a BLOB column gives bytes
            except msgspec.MsgspecError as error:
                problems.append(f"container {container_id}: its record cannot be read: {error}")
                continue
            self._entries[record.id] = Entry(record)
        return problems

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, container_id: str) -> Entry | None:
        """By full id."""
        return self._entries.get(container_id)

    def lookup(self, ref: str) -> Entry:
        """By full id, exact name (with or without slash), unique prefix of an id, or name of a link (`OWNER/ALIAS`).

        Raises `NotFound` or, for a prefix of several, `InvalidArgument`.
        """
        entry = self._entries.get(ref) or self._entries.get(self._names.get(ref.removeprefix("/"), ""))
        if entry is not None:
            return entry
        found = [entry for key, entry in self._entries.items() if ref and key.startswith(ref)]
        if len(found) > 1:
            raise InvalidArgument(f"multiple IDs found with provided prefix: {ref}")
        if not found:
            return self._by_link(ref)
        return found[0]

    def _by_link(self, ref: str) -> Entry:
        """By the name a legacy link gives, `OWNER/ALIAS`."""
        name, _, alias = ref.strip("/").rpartition("/")
        owner = self._entries.get(self._names.get(name, ""))
        entry = self._entries.get(owner.record.links.get(alias, "")) if owner else None
        if entry is None:
            raise NotFound(f"No such container: {ref}")
        return entry

    def reserve_name(self, name: str, container_id: str) -> str:
        """Take `name` for `container_id` and return it without slash. Nothing can come between check and taking: both
        happen in one step of the loop. Raises `InvalidArgument` or `Conflict` naming the holder."""
        if not _VALID_NAME.fullmatch(name):
            raise InvalidArgument(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        bare = name.removeprefix("/")
        holder = self._names.get(bare)
        if holder is not None:
            raise Conflict(
                f'Conflict. The container name "/{bare}" is already in use by container "{holder}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
        self._names[bare] = container_id
        return bare

    def name_taken(self, name: str) -> bool:
        return name in self._names

    def release_name(self, name: str, container_id: str) -> None:
        """Give a reservation back; a name that meanwhile belongs to another stays."""
        if self._names.get(name) == container_id:
            del self._names[name]

    def insert(self, record: Container) -> None:
        """Write the row of a new record; once that is committed, `add` makes it a container."""
        self._db.execute(
            "INSERT INTO containers VALUES (?, ?, ?, ?, ?, ?)",
            (record.id, record.name, record.state.status, record.image_id, record.created, _encode(record)),
        )

    def add(self, record: Container) -> None:
        """Let a container whose row is written be found."""
        self._entries[record.id] = Entry(record)

    def save(self, record: Container, *, durable: bool = True) -> None:
        """Write a changed record; see `Database.transaction` for `durable`."""
        self._db.execute(
            "UPDATE containers SET name = ?, status = ?, image_id = ?, record = ? WHERE id = ?",
            (record.name, record.state.status, record.image_id, _encode(record), record.id),
            durable=durable,
        )

    def forget(self, entry: Entry) -> None:
        """Delete the row and free the name. The row says "removing", durably: if it came back, it would go again."""
        with self._db.transaction(durable=False) as tx:
            tx.execute("DELETE FROM containers WHERE id = ?", (entry.id,))
            if entry.record.host_config.AutoRemove and entry.record.started_before:
                _remember_exit(tx, entry.record)
        self._entries.pop(entry.id, None)
        self.release_name(entry.record.name, entry.id)

    def last_exit(self, ref: str) -> int | None:
        """The exit code of a container that ended and was removed with it (`--rm`) some minutes ago at most, by full id
        or name; None when there was none. A restart of the daemon cuts off those who wait for it: they ask again."""
        row = self._db.one(
            "SELECT exit_code FROM last_exits WHERE (id = ? OR name = ?) AND at > ? ORDER BY number DESC LIMIT 1",
            (ref, ref.removeprefix("/"), time.time() - REMEMBER_S),
        )
        return None if row is None else int(str(row[0]))

    def using_image(self, image_id: str) -> list[Entry]:
        """The containers made from an image."""
        return [entry for entry in self if entry.record.image_id == image_id]

    def known_ids(self) -> set[str]:
        """Every id with a row, readable or not."""
        return {str(row[0]) for row in self._db.all("SELECT id FROM containers")}

    def find(self, predicate: Callable[[Container], bool]) -> list[Entry]:
        return [entry for entry in self if predicate(entry.record)]


def _remember_exit(tx: sqlite3.Connection, record: Container) -> None:
    row = (record.id, record.name, record.state.exit_code, time.time())
    number = tx.execute("INSERT INTO last_exits (id, name, exit_code, at) VALUES (?, ?, ?, ?)", row).lastrowid or 0
    tx.execute("DELETE FROM last_exits WHERE number <= ?", (number - REMEMBER,))


def meta_document(record: Container) -> bytes:
    """The copy of a record that lies beside the container's data, for recovery without the database."""
    return msgspec.json.format(_encode(record), indent=1) + b"\n"
