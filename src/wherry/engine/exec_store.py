"""The records of execs: in memory, for a while after the process ended, and as files for the next daemon.

The files lie under the exec root, one per exec that a client asked for. A daemon that comes back reads them and hears
from the monitors what became of each (`exec.taken_back`): an exit code is not lost because nobody was there to hear it.
"""

import asyncio
import logging
import os
import time
from collections.abc import Iterator

import msgspec

from wherry.engine.model import ExecRecord
from wherry.errors import NotFound
from wherry.store.atomic import write_file
from wherry.store.paths import Paths

log = logging.getLogger("wherry.engine")

KEEP_S = 300.0
"""How long the record of an ended exec can still be inspected."""
KEEP_FILES = 1000
"""How many ended execs have a file: of more, a daemon that comes back knows the last."""
MOST_FILES = 5000
"""How many execs have a file at all: what is created beyond that does not outlive the daemon."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(ExecRecord).decode


class ExecStore:
    """The exec records, oldest first."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._records: dict[str, ExecRecord] = {}
        self._ended: dict[str, float] = {}
        self._ends: dict[str, asyncio.Future[int]] = {}
        self._files: set[str] = set()
        self._files_of_ended: dict[str, None] = {}

    def load(self) -> Iterator[ExecRecord]:
        """Read what an earlier daemon left; yields the records. What cannot be read is deleted."""
        for exec_id in os.listdir(self._paths.execs):
            try:
                record = _decode(self._paths.exec_record(exec_id).read_bytes())
            except (OSError, msgspec.MsgspecError) as error:
                log.warning("the record of exec %s cannot be read: %s", exec_id, error)
                self._unlink(exec_id)
                continue
            self._records[record.id] = record
            self._files.add(record.id)
            if record.exit_code is not None:
                self.ended(record.id)
            yield record

    def add(self, record: ExecRecord) -> None:
        self._purge()
        self._records[record.id] = record

    def keep(self, record: ExecRecord) -> None:
        """From now on a later daemon shall know the record, too, unless there are too many."""
        if len(self._files) < MOST_FILES:
            self._files.add(record.id)
            self.save(record)

    def save(self, record: ExecRecord) -> None:
        """Note a change of a record that is kept. A file that cannot be written keeps no exec from running."""
        if record.id not in self._files:
            return
        try:
            write_file(self._paths.exec_record(record.id), _encode(record), durable=False)  # a reboot ends it anyway
        except OSError as error:
            log.warning("exec %s would not be known after a restart: %s", record.id, error)

    def get(self, exec_id: str) -> ExecRecord:
        record = self._records.get(exec_id)
        if record is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return record

    def find(self, exec_id: str) -> ExecRecord | None:
        return self._records.get(exec_id)

    def end_of(self, exec_id: str) -> "asyncio.Future[int]":
        """A future for the exit code of an exec that has not ended."""
        return self._ends.setdefault(exec_id, asyncio.get_running_loop().create_future())

    def ended(self, exec_id: str) -> None:
        """Note the end; the record can be inspected for a while yet."""
        self._ended[exec_id] = time.monotonic()
        self._keep_ended(exec_id)
        waiting = self._ends.pop(exec_id, None)
        if waiting is not None and not waiting.done():
            code = self._records[exec_id].exit_code
            waiting.set_result(137 if code is None else code)

    def drop(self, exec_id: str) -> None:
        """Forget a record."""
        self._records.pop(exec_id, None)
        self._ended.pop(exec_id, None)
        self._unlink(exec_id)

    def _keep_ended(self, exec_id: str) -> None:
        if exec_id in self._files:
            self._files_of_ended[exec_id] = None
            if len(self._files_of_ended) > KEEP_FILES:
                self._unlink(next(iter(self._files_of_ended)))

    def _unlink(self, exec_id: str) -> None:
        self._files.discard(exec_id)
        self._files_of_ended.pop(exec_id, None)
        try:
            os.unlink(self._paths.exec_record(exec_id))
        except OSError:
            pass

    def _purge(self) -> None:
        oldest = time.monotonic() - KEEP_S
        while self._ended:
            exec_id, at = next(iter(self._ended.items()))
            if at > oldest:
                return
            self.drop(exec_id)
