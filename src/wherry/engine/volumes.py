"""Volumes of the local driver: a row and a directory `volumes/<name>/_data`, which only an explicit removal deletes."""

import json
import os
import re
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.failpoint import hit
from wherry.linux.mounts import unmount_all
from wherry.store.db import Database
from wherry.store.paths import Paths
from wherry.store.trees import delete_tree

ANONYMOUS_LABEL = "com.docker.volume.anonymous"

_VALID_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


class Volume(Struct):
    """The record of a volume; `created` in ns."""

    name: str
    created: int
    anonymous: bool
    driver: str
    labels: dict[str, str]
    options: dict[str, str]
    mountpoint: str


class VolumeStore:
    """All volumes of one engine. Thread-safe: of many that create or remove one name, one does."""

    def __init__(self, db: Database, paths: Paths) -> None:
        self._db = db
        self._paths = paths

    def create(
        self,
        name: str | None,
        *,
        driver: str = "local",
        labels: dict[str, str] | None = None,
        options: dict[str, str] | None = None,
    ) -> tuple[Volume, bool]:
        """The volume `name`, made if there is none (None: a new anonymous one), and whether it was made.

        Raises `InvalidArgument` for a bad name, `NotFound` for an unknown driver, `Conflict` when it exists with
        another driver, `InvalidArgument` for driver options that make no sense.
        """
        anonymous = not name
        name = name or secrets.token_hex(32)
        check_name(name, driver)
        check_options(name, options or {})
        labels = dict(labels or {}) | ({ANONYMOUS_LABEL: ""} if anonymous else {})
        with self._db.transaction():
            existing = self.find(name)
            if existing is not None:
                return existing, False
            os.makedirs(self._paths.volume(name), mode=0o755, exist_ok=True)
            hit("engine.volume.after_directory")
            self._db.execute(
                "INSERT INTO volumes VALUES (?, ?, ?, ?, ?, ?)",
                (name, time.time_ns(), anonymous, driver, json.dumps(labels), json.dumps(options or {})),
            )
            return self.get(name), True

    def unmake(self, name: str) -> None:
        """Remove the empty directory of a volume that got no row; one that has a row stays as it is."""
        with self._db.transaction():
            if self.find(name) is not None:
                return
            for path in (self._paths.volume(name), self._paths.volumes / name):
                try:
                    os.rmdir(path)
                except FileNotFoundError:
                    continue

    def find(self, name: str) -> Volume | None:
        """By exact name."""
        row = self._db.one("SELECT * FROM volumes WHERE name = ?", (name,))
        return None if row is None else self._volume(row)

    def get(self, name: str) -> Volume:
        """By exact name; raises `NotFound`."""
        volume = self.find(name)
        if volume is None:
            raise NotFound(f"get {name}: no such volume")
        return volume

    def list(self) -> list[Volume]:
        """All volumes, oldest first."""
        return [self._volume(row) for row in self._db.all("SELECT * FROM volumes ORDER BY created")]

    def remove(self, name: str, users: Sequence[str]) -> None:
        """Forget the volume and delete its data. Raises as `discard`."""
        trashed = self.discard(name, users)
        if trashed is not None:
            delete_tree(trashed)

    def discard(self, name: str, users: Sequence[str]) -> Path | None:
        """Forget the volume and move its data into the trash; the caller deletes the path returned (None when there
        was no data). Raises `NotFound`, or `Conflict` when containers (`users`: ids) refer to it."""
        with self._db.transaction():
            self.get(name)
            if users:
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
            if os.path.lexists(self._paths.volume(name)):
                # Not even below a directory that goes into the trash may anything be mounted when that is emptied.
                unmount_all(str(self._paths.volume(name)))
            trashed: Path | None = self._paths.trashed(f"volume-{name[:64]}")
            try:
                os.rename(self._paths.volumes / name, str(trashed))
            except FileNotFoundError:
                trashed = None
            hit("engine.volume.after_rename")
            self._db.execute("DELETE FROM volumes WHERE name = ?", (name,))
            return trashed

    def _volume(self, row: tuple[Any, ...]) -> Volume:
        name, created, anonymous, driver, labels, options = row
        return Volume(
            name=name,
            created=created,
            anonymous=bool(anonymous),
            driver=driver,
            labels=json.loads(labels),
            options=json.loads(options),
            mountpoint=str(self._paths.volume(name)),
        )


_OPTIONS = {"type": ("device",), "device": ("type",), "o": ("device", "type"), "size": ()}
"""The options of the local driver: each with those that it needs."""


def check_options(name: str, options: dict[str, str]) -> None:
    """Raise what Docker raises for options of the local driver (moby volume/local/local_unix.go)."""
    for option in options:
        if option not in _OPTIONS:
            raise InvalidArgument(f'create {name}: invalid option: "{option}"')
    size = options.get("size", "0")
    if not re.fullmatch(r"\d+(\.\d+)? ?[kmgtp]?(i?b)?", size, re.IGNORECASE):
        raise InvalidArgument(f"create {name}: invalid size: '{size}'")
    for option in ("device", "type", "o"):
        for needed in _OPTIONS[option] if option in options else ():
            if needed not in options:
                raise InvalidArgument(f'create {name}: missing required option: "{needed}"')
    if float(re.match(r"[\d.]+", size)[0]):  # type: ignore[index]  # it is a number
        raise InvalidArgument(f"create {name}: quota size requested but no quota support")


def check_name(name: str, driver: str) -> None:
    """Raise what Docker raises for a name or driver it cannot use."""
    if driver not in ("", "local"):
        raise NotFound(f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found')
    if len(name) == 1:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if not _VALID_NAME.fullmatch(name) or len(name) > 255:
        raise InvalidArgument(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )
