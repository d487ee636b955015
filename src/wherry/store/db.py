"""The state database: SQLite in WAL mode with synchronous=FULL, one writer.

Rules: content is fsynced before the row that names it is written; every change of metadata is one `transaction()`;
reads are direct. A change whose loss in a power cut is repaired anyway (what ran is not running any more, an exit is in
its record) may be made without waiting for the disk: `durable=False`. It is as atomic and as ordered as the others.
Each room owns its tables and hands `open_database` its migrations; a migration, once released, is
never edited, only followed by another.
"""

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from wherry.errors import Internal

Row = tuple[object, ...]


class Database:
    """One connection, shared by the event loop's thread and worker threads under a lock held for each statement or
    transaction. A commit costs about a third of a millisecond on an idle disk: small writes are done inline."""

    def __init__(self, path: str | Path) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
            self._connection.execute(f"PRAGMA {pragma}")

    def close(self) -> None:
        """Checkpoint and close; further use raises `sqlite3.ProgrammingError`."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """One atomic change: committed when the block ends, rolled back whole when it raises. `durable` waits until a
        power cut can't take it back. Nested use joins the outer transaction."""
        with self._lock:
            if self._connection.in_transaction:
                yield self._connection
                return
            if not durable:
                self._connection.execute("PRAGMA synchronous=NORMAL")
            try:
                yield from self._commit()
            finally:
                if not durable:
                    self._connection.execute("PRAGMA synchronous=FULL")

    def _commit(self) -> Iterator[sqlite3.Connection]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def execute(self, sql: str, parameters: Sequence[object] = (), *, durable: bool = True) -> int:
        """Run one changing statement; return the number of rows it changed."""
        with self.transaction(durable=durable) as tx:
            return tx.execute(sql, parameters).rowcount

    def all(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """All rows of a query."""
        with self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    def one(self, sql: str, parameters: Sequence[object] = ()) -> Row | None:
        """The first row of a query, or None."""
        with self._lock:
            row: Row | None = self._connection.execute(sql, parameters).fetchone()
            return row


def open_database(path: str | Path, migrations: Mapping[str, Sequence[str]]) -> Database:
    """Open or make the database and bring each room's tables up to date.

    `migrations` maps a room's name to its SQL scripts in order; the number already applied is kept per room. Raises
    `Internal` when the file was written by a newer version, before anything is touched, and when it is damaged.
    """
    try:
        db = Database(path)
        try:
            with db.transaction() as tx:
                _migrate(tx, path, migrations)
        except BaseException:
            db.close()
            raise
    except sqlite3.DatabaseError as error:
        raise Internal(f"{path}: {error}") from error
    return db


def _migrate(tx: sqlite3.Connection, path: str | Path, migrations: Mapping[str, Sequence[str]]) -> None:
    tx.execute("CREATE TABLE IF NOT EXISTS schema_versions (room TEXT PRIMARY KEY, version INTEGER NOT NULL)")
    applied = dict(tx.execute("SELECT room, version FROM schema_versions").fetchall())
    for room, scripts in migrations.items():
        done = applied.get(room, 0)
        if done > len(scripts):
            raise Internal(f"{path}: the tables of {room!r} are of version {done}, newer than this wherry knows")
        for script in scripts[done:]:
            for statement in filter(str.strip, script.split(";")):
                tx.execute(statement)
        tx.execute("INSERT OR REPLACE INTO schema_versions VALUES (?, ?)", (room, len(scripts)))
