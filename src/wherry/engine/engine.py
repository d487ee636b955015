"""The engine: its parts, wired, and the few things that all of them need.

`Engine.open` takes the data root's lock, opens the database, starts the image store, the network and the spawner, and
takes the containers back that run. `close` lets go of everything; the containers go on.
"""

import asyncio
import functools
import logging
import os
import sqlite3
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from wherry.engine import containers as container_tables
from wherry.engine import exits, health, host_limits, restore, specs, stop, storage, tending
from wherry.engine.config import EngineConfig
from wherry.engine.containers import ContainerStore, Entry
from wherry.engine.events import EventBus
from wherry.engine.exec_store import ExecStore
from wherry.engine.model import Container
from wherry.engine.oci import cgroup_path
from wherry.engine.transfers import Transfers
from wherry.engine.volume_mounts import VolumeMounts
from wherry.engine.volumes import VolumeStore
from wherry.images import store as image_tables
from wherry.images.store import ImageStore
from wherry.network import service as network_tables
from wherry.network.service import NetworkService
from wherry.runtime.cgroups import features, host_hierarchies
from wherry.runtime.client import Monitor, Spawner
from wherry.store.atomic import lock_file
from wherry.store.db import Database, open_database
from wherry.store.paths import Paths

log = logging.getLogger("wherry.engine")

P = ParamSpec("P")
T = TypeVar("T")

_WORKERS = 16
_PROBES = 8
_TRANSFERS = 8
"""How many archives can be read from clients at once. A client may be slow: it must not hold a worker."""

_COPIES = 32
"""How many copies in and out of containers can be under way at once."""


class Engine:
    """One engine; made by `Engine.open`."""

    images: ImageStore
    network: NetworkService
    spawner: Spawner
    id: str

    def __init__(self, config: EngineConfig, paths: Paths, db: Database, locks: list[int]) -> None:
        self.config = config
        self.paths = paths
        self.db = db
        self.events = EventBus()
        self.containers = ContainerStore(db)
        self.volumes = VolumeStore(db, paths)
        self.volume_mounts = VolumeMounts()
        self.execs = ExecStore(paths)
        self.transfers = Transfers(config)
        self.boot_id = restore.read_boot_id()
        self.host = specs.host_facts(config.seccomp_profile)
        self.cgroup_version = 2 if host_hierarchies().unified else 1
        self.limits = features()
        """Which limits this host can set."""
        self.warnings: list[str] = []
        """What this host lacks, as told at start; `docker info` shows it."""
        self.overlay_problem = ""
        """Why no overlay can be mounted for containers; "" when it can, or nobody asked."""
        self._locks = locks
        self._pool = ThreadPoolExecutor(_WORKERS, "engine")
        self._transfers = ThreadPoolExecutor(_TRANSFERS, "transfer")
        self._files = ThreadPoolExecutor(_COPIES, "files")
        self._tending: asyncio.Task[None] | None = None
        self.probing = asyncio.Semaphore(_PROBES)
        """Lets a few health probes start at a time."""
        self.repairing = asyncio.Lock()
        """Held while the host is repaired: starts wait for it."""
        self.attention = asyncio.Event()
        """Something was left that a repair should see to soon."""
        self.closing = False
        """Nothing new is begun: what is under way comes to its end."""
        self.pruning: set[str] = set()
        """The kinds of objects being pruned: one prune of a kind at a time."""
        self._tasks: set[asyncio.Task[Any]] = set()

    @classmethod
    async def open(cls, config: EngineConfig) -> "Engine":
        """Start an engine on `config.data_root`. Raises `Conflict` when another daemon has it, `Internal` when the
        database is newer than this code; nothing runs then."""
        paths = Paths(config.data_root, config.exec_root)
        paths.create()
        locks: list[int] = []
        try:
            locks.append(lock_file(paths.lock, "--data-root"))
            locks.append(lock_file(paths.exec_lock, "--exec-root"))
            db = open_database(
                paths.database,
                {
                    "engine": container_tables.MIGRATIONS,
                    "images": image_tables.MIGRATIONS,
                    "network": network_tables.MIGRATIONS,
                },
            )
        except BaseException:
            for lock in locks:
                os.close(lock)
            raise
        engine = cls(config, paths, db, locks)
        try:
            await restore.prepare(engine)
            engine.id = engine._identity()
            driver = storage.choose_driver(engine)
            engine.images = ImageStore(db, paths, driver)
            for entry in engine.containers:
                engine.images.keep(entry.record.lower_dirs)
            engine.images.downloads.resize(config.max_concurrent_downloads)
            engine.network = NetworkService(db, paths, config.network_options())
            await engine._start_parts()
            storage.report_unusable(engine)
            for text in [*host_limits.missing(engine.limits), *engine.network.warnings]:
                engine.warn(text)
            await restore.restore(engine)
            engine._tending = asyncio.create_task(tending.tend(engine))
        except BaseException:
            await engine.close()
            raise
        return engine

    async def _start_parts(self) -> None:
        """Images, network and spawner at the same time. Raises the first failure, when all have come to an end."""
        images = self.run_blocking(self.images.collect_garbage)
        network = self.run_blocking(self.network.start)
        spawner = Spawner.launch(str(self.paths.spawner_log))
        results = await asyncio.gather(images, network, spawner, return_exceptions=True)
        if isinstance(results[2], Spawner):
            self.spawner = results[2]
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def close(self) -> None:
        """Finish what is under way, let go of monitors, spawner and network, close the database."""
        self.closing = True
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.wait({self._tending})
        self.events.close()
        for entry in self.containers:
            if entry.restart_task is not None:
                entry.restart_task.cancel()
            health.let_go(entry)
        await asyncio.sleep(0)  # probes that were let go have their processes killed
        await self.settle()
        for entry in self.containers:
            if entry.unsaved:
                self.save_or_later(entry)
        for entry in self.containers:
            if entry.monitor is not None:
                monitor, entry.monitor = entry.monitor, None
                await monitor.close()
        if hasattr(self, "spawner"):
            await self.spawner.close()
        if hasattr(self, "network"):
            await self.run_blocking(self.network.stop)
        self.transfers.close()
        if hasattr(self, "images"):
            self.images.downloads.close()
            await self.run_blocking(self.images.unmount, storage.in_use(self))
        self._pool.shutdown()
        self._transfers.shutdown(wait=False, cancel_futures=True)
        self._files.shutdown(wait=False, cancel_futures=True)
        self.db.close()
        for lock in self._locks:
            os.close(lock)

    def reconfigure(self, config: EngineConfig) -> None:
        """Take over what may change while running: labels, debug, default ulimits and shm size, log driver, runtimes,
        DNS, registries and limits of transfers. What containers were created with stays."""
        for name in (
            "debug",
            "default_runtime",
            "default_shm_size",
            "default_ulimits",
            "dns",
            "dns_opts",
            "dns_search",
            "insecure_registries",
            "labels",
            "log_driver",
            "log_opts",
            "max_concurrent_downloads",
            "max_concurrent_uploads",
            "max_download_attempts",
            "registry_mirrors",
            "runtimes",
        ):
            setattr(self.config, name, getattr(config, name))
        self.transfers.reconfigure(self.config)
        self.images.downloads.resize(self.config.max_concurrent_downloads)
        self.events.publish("daemon", "reload", self.id, {"name": os.uname().nodename})

    # Work

    async def run_blocking(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking work in a worker thread."""
        call = functools.partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    async def transfer(self, function: Callable[[], T]) -> T:
        """Run blocking work that reads from a client, in one of a few threads set aside for it."""
        return await asyncio.get_running_loop().run_in_executor(self._transfers, function)

    async def on_files(self, function: Callable[[], T]) -> T:
        """Run blocking work on the files of a container, in a thread set aside for it: a client on the other end may
        be slow. Cancelled, it still waits for the thread, whose client is gone then."""
        work = asyncio.get_running_loop().run_in_executor(self._files, function)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait({work})
            work.exception()  # that the client is gone, most likely: nobody is left to be told
            raise

    async def to_the_end(self, work: Awaitable[T]) -> T:
        """Await `work`, which goes on to its end (or is undone by itself) even if the caller is cancelled."""
        task = asyncio.ensure_future(work)
        self._keep(task)
        return await asyncio.shield(task)

    def background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let `work` run; its failure is logged. `settle` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._keep(task)
        task.add_done_callback(_log_failure)
        return task

    def _keep(self, task: "asyncio.Future[Any]") -> None:
        if isinstance(task, asyncio.Task):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Wait until nothing runs in the background any more, pauses before restarts excepted."""
        while True:
            waiting = {e.restart_task for e in self.containers} | {asyncio.current_task()}
            tasks = [task for task in self._tasks if task not in waiting]
            if not tasks:
                return
            await asyncio.gather(*tasks, return_exceptions=True)

    # Records and events

    def warn(self, text: str) -> None:
        """Something the host lacks: into the log, once, and into `docker info`."""
        log.warning("%s", text)
        self.warnings.append(f"WARNING: {text}")

    def save(self, record: Container, *, durable: bool = True) -> None:
        """Write a changed record; see `Database.transaction` for `durable`."""
        self.containers.save(record, durable=durable)

    def save_or_later(self, entry: Entry, *, durable: bool = True) -> None:
        """Write the record of `entry`, whose change has already happened: when that fails (the disk is full), the
        change stands, and the writing is tried again every minute."""
        entry.unsaved = True
        try:
            self.containers.save(entry.record, durable=durable)
        except (sqlite3.Error, OSError) as error:
            log.error("the record of container %s could not be written, to be tried again: %s", entry.id, error)
        else:
            entry.unsaved = False

    def publish(self, record: Container, action: str, extra: dict[str, str] | None = None) -> None:
        """A container event, with Docker's attributes: the labels, image, name, and `extra`."""
        attributes = {**(record.config.Labels or {}), "image": record.config.Image, "name": record.name}
        self.events.publish("container", action, record.id, attributes | (extra or {}))

    def publish_network(self, action: str, network_id: str, name: str, container_id: str) -> None:
        """A connect or disconnect event."""
        kind = {"none": "null", "host": "host"}.get(name, "bridge")
        self.events.publish("network", action, network_id, {"container": container_id, "name": name, "type": kind})

    def volume_users(self, name: str) -> list[str]:
        """The ids of the containers that have the volume `name`."""
        return [
            entry.id
            for entry in self.containers
            if any(point.Type == "volume" and point.Name == name for point in entry.record.mounts)
        ]

    # What runs

    def cgroup_path(self, container_id: str, record: Container | None = None) -> str:
        """Where the container's cgroup is, relative to the hierarchies' roots."""
        parent = (record.host_config.CgroupParent if record else "") or self.config.cgroup_parent
        return cgroup_path(parent, container_id)

    def unhealthy(self, entry: Entry) -> None:
        """The container has become unhealthy: do what it asks for then (HostConfig.HealthcheckOnFailureAction)."""
        if not self.closing:
            self.background(stop.when_unhealthy(self, entry))

    def watch(self, entry: Entry) -> Callable[[Monitor, dict[str, Any]], None]:
        """The handler for what the monitor of `entry` reports."""
        return exits.handler(self, entry)

    # Start

    def _identity(self) -> str:
        """The engine's id, made once per data root."""
        row = self.db.one("SELECT value FROM engine WHERE key = 'id'")
        if row is not None:
            return str(row[0])
        made = str(uuid.uuid4())
        self.db.execute("INSERT INTO engine VALUES ('id', ?)", (made,))
        return made


def _log_failure(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("background work failed", exc_info=task.exception())
