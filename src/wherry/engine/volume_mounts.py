"""The volumes that are file systems of their own: mounted on `_data` at first use, unmounted after the last.

`type`, `o` and `device` of the local driver are what mount(8) takes: tmpfs, a bind of another directory, nfs. Who uses
a volume is a running container, or a create that fills it: known from the containers a starting engine finds, so that
nothing has to be counted on the disk.
"""

import logging
import os
import re
import secrets
import socket
import stat
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from wherry.engine.model import Container, MountPoint
from wherry.engine.mounts import open_source, subpath
from wherry.engine.volumes import Volume
from wherry.errors import Internal
from wherry.failpoint import hit
from wherry.linux import mounts as m
from wherry.runtime import mount_options

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

log = logging.getLogger("wherry.engine")


class VolumeMounts:
    """Who uses which volume. Thread-safe; a mount that hangs holds up its own volume's users alone."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._users: defaultdict[str, set[str]] = defaultdict(set)

    def hold(self, volume: Volume, user: str) -> None:
        """Mount the volume if it isn't, for `user` until `release`. Raises `Internal` in Docker's words."""
        with self._locks[volume.name]:
            if not m.mounted(volume.mountpoint):
                hit("engine.volume.before_mount")
                _mount(volume)
                hit("engine.volume.after_mount")
            self._users[volume.name].add(user)

    def release(self, volume: Volume, user: str) -> None:
        """Unmount it if nobody else uses it; idempotent."""
        with self._locks[volume.name]:
            self._users[volume.name].discard(user)
            if not self._users[volume.name] and m.mounted(volume.mountpoint):
                hit("engine.volume.before_unmount")
                m.unmount_all(volume.mountpoint)

    def adopt(self, name: str, user: str) -> None:
        """A container that ran before this engine did uses it."""
        self._users[name].add(user)

    def used(self, name: str) -> bool:
        return bool(self._users.get(name))


class Places:
    """Where the volumes of a container that is about to start are; `close` once they are mounted in it, in a worker
    thread."""

    def __init__(self, points: list[MountPoint]) -> None:
        self.points = points
        """The mount points of the container. A part of a volume is bound to a place of ours: nobody can exchange it."""
        self._parts: list[str] = []

    def bind_part(self, engine: "Engine", record: Container, point: MountPoint) -> None:
        part = os.fspath(engine.paths.part(record.id))
        source = open_source(point)
        try:
            if stat.S_ISDIR(os.fstat(source).st_mode):
                os.mkdir(part, 0o700)
            else:
                os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            self._parts.append(part)
            m.mount(m.fd_path(source), part, flags=m.MS_BIND | m.MS_REC)
            m.mount("", part, flags=m.MS_PRIVATE | m.MS_REC)
        finally:
            os.close(source)
        hit("engine.volume.part_bound")
        self.points.append(replace(point, Source=part))

    def close(self) -> None:
        while self._parts:
            _discard_part(self._parts.pop())


def discard_parts(engine: "Engine") -> None:
    """At start: what a daemon that died had bound."""
    for name in os.listdir(engine.paths.parts):
        _discard_part(os.fspath(engine.paths.parts / name))


def _discard_part(part: str) -> None:
    m.unmount_all(part)
    if os.path.isdir(part):
        os.rmdir(part)
    else:
        os.unlink(part)


def take(engine: "Engine", record: Container) -> Places:
    """Mount what the container uses, in a worker thread. Raises `Internal`, and what `open_source` does."""
    for volume in _of(engine, record):
        engine.volume_mounts.hold(volume, record.id)
    places = Places([])
    try:
        for point in record.mounts:
            if subpath(point):
                places.bind_part(engine, record, point)
            else:
                places.points.append(point)
    except BaseException:
        places.close()
        raise
    return places


def release(engine: "Engine", record: Container) -> None:
    """The container does not run any more; in a worker thread."""
    for volume in _of(engine, record):
        _release(engine, volume, record.id)


def _release(engine: "Engine", volume: Volume, user: str) -> None:
    try:
        engine.volume_mounts.release(volume, user)
    except OSError as error:
        log.error("volume %s cannot be unmounted: %s", volume.name, error)
        engine.attention.set()


def borrow(engine: "Engine", record: Container) -> Callable[[], None]:
    """Mount the container's volumes for somebody who looks into it, until the function returned is called. Raises
    `Internal`."""
    user, volumes = f"view {secrets.token_hex(8)}", _of(engine, record)

    def give_back() -> None:
        for volume in volumes:
            _release(engine, volume, user)

    try:
        for volume in volumes:
            engine.volume_mounts.hold(volume, user)
    except BaseException:
        give_back()
        raise
    return give_back


def adopt(engine: "Engine") -> None:
    """At start, before any container is looked at: whatever may run keeps its volumes. One that turns out to have ended
    must not take away what another has."""
    for entry in engine.containers:
        if entry.status in ("running", "paused") or engine.paths.monitor_socket(entry.id).exists():
            for volume in _of(engine, entry.record):
                engine.volume_mounts.adopt(volume.name, entry.id)


def settle(engine: "Engine") -> None:
    """At start, when it is known what runs, in a worker thread."""
    for entry in engine.containers:
        if entry.monitor is None:
            release(engine, entry.record)


def unused(engine: "Engine") -> list[Volume]:
    """The volumes that are mounted although nobody uses them."""
    return [
        volume
        for volume in engine.volumes.list()
        if volume.options and not engine.volume_mounts.used(volume.name) and m.mounted(volume.mountpoint)
    ]


def _of(engine: "Engine", record: Container) -> list[Volume]:
    names = {point.Name for point in record.mounts if point.Type == "volume"}
    found = [engine.volumes.find(name) for name in sorted(names)]
    return [volume for volume in found if volume is not None and volume.options]


def _mount(volume: Volume) -> None:
    """moby volume/local/local_unix.go"""
    kind, device = volume.options.get("type", ""), volume.options.get("device", "")
    prefix = f"error while mounting volume '{volume.mountpoint}': "
    if not device:
        raise Internal(f"{prefix}missing device in volume options")
    words = _resolved(volume.options.get("o", ""), kind, prefix)
    options = mount_options.parse([word for word in words.split(",") if word])
    flags = options.flags() | (m.MS_BIND if options.bind else 0) | (m.MS_REC if options.recursive_bind else 0)
    try:
        m.mount(device, volume.mountpoint, kind, flags, options.data_string())
    except OSError as error:
        data = re.sub("password=[^,]*", "password=********", options.data_string())
        shown = [f"flags: {flags:#x}"] * bool(flags) + [f"data: {data}"] * bool(data)
        what = ", ".join([f"mount {device}:{volume.mountpoint}", *shown])
        raise Internal(
            f"{prefix}failed to mount local volume: {what}: {os.strerror(error.errno or 0).lower()}"
        ) from None
    if options.bind and flags & ~(m.MS_BIND | m.MS_REC):  # a bind takes no other flags at first
        m.mount("", volume.mountpoint, flags=flags & ~m.MS_REC | m.MS_REMOUNT)
    for flag, recursive in options.propagation:
        m.mount("", volume.mountpoint, flags=flag | (m.MS_REC if recursive else 0))


def _resolved(options: str, kind: str, prefix: str) -> str:
    """The kernel wants the server of a network file system as an address."""
    found = re.search("(?:^|,)addr=([^,]+)", options)
    if kind not in ("nfs", "cifs") or not found:
        return options
    try:
        address = socket.getaddrinfo(found[1], None)[0][4][0]
    except OSError:
        text = f"error resolving passed in network volume address: lookup {found[1]}: no such host"
        raise Internal(prefix + text) from None
    return options.replace(f"addr={found[1]}", f"addr={address}", 1)
