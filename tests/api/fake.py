"""An engine that does nothing by itself: the API's handlers call the engine's real functions' names, replaced here."""

import asyncio
import importlib
import threading
from types import SimpleNamespace

from wherry.engine.containers import Entry
from wherry.engine.events import EventBus
from wherry.engine.model import Container, ContainerConfig, HostConfig, State
from wherry.errors import NotFound
from wherry.images.snapshots.overlay import OverlayDriver
from wherry.store.paths import Paths

ID = "73637104f8ce0557c960dc811e8539b7571521d984cc72c805e8b8a0377fade5"
IMAGE_ID = "sha256:" + "ead5" * 16


def container(name="web", container_id=ID, **changes) -> Container:
    record = Container(
        id=container_id,
        name=name,
        created=1_795_377_249_254_770_568,
        image_id=IMAGE_ID,
        path="sh",
        args=["-c", "echo hi; sleep 100"],
        config=ContainerConfig(Image="apirec:1", Hostname=container_id[:12]),
        host_config=HostConfig(NetworkMode="bridge"),
        state=State(status="running", pid=4711, started_at=1_795_377_249_277_565_629),
    )
    for key, value in changes.items():
        setattr(record, key, value)
    return record


class Containers:
    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def add(self, record: Container) -> Entry:
        entry = self.entries[record.id] = Entry(record)
        return entry

    def __iter__(self):
        return iter(list(self.entries.values()))

    def get(self, container_id):
        return self.entries.get(container_id)

    def lookup(self, ref):
        for entry in self:
            if ref.removeprefix("/") in (entry.id, entry.record.name) or entry.id.startswith(ref):
                return entry
        raise NotFound(f"No such container: {ref}")


class Images:
    def __init__(self) -> None:
        self.by_name: dict[str, SimpleNamespace] = {}

    def resolve(self, ref, platform=None):
        for name, image in self.by_name.items():
            if ref in (name, image.id):
                return image
        raise NotFound(f"No such image: {ref}:latest")

    driver = OverlayDriver()

    def layer_dirs(self, _image):
        return ["/layers/top", "/layers/bottom"]

    def history(self, ref, platform=None):
        self.resolve(ref)
        return []


class FakeEngine:
    """What handlers reach for on the engine itself; `calls` is what they asked of its functions."""

    def __init__(self, root) -> None:
        self.paths = Paths(root / "data", root / "exec")
        self.paths.create()
        self.containers = Containers()
        self.images = Images()
        self.events = EventBus()
        self.network = SimpleNamespace(networks=list, inspect=None)
        self.volumes = SimpleNamespace(list=list)
        self.calls: list[tuple] = []

    async def run_blocking(self, function, *args, **kwargs):
        return await asyncio.get_running_loop().run_in_executor(None, lambda: function(*args, **kwargs))

    def replace(self, monkeypatch, path, result=None, error=None, function=None) -> None:
        """Let `wherry.engine.<path>` (module.function) return `result`, raise `error` or be `function`."""
        module_name, _, name = path.rpartition(".")
        module = importlib.import_module(f"wherry.engine.{module_name}")

        async def asynchronous(_engine, *args, **kwargs):
            self.calls.append((path, args, kwargs))
            if error is not None:
                raise error
            return result

        monkeypatch.setattr(module, name, function or asynchronous)


def cat(sock, early: bytes, framed: bool) -> None:
    """A container running `cat`, in a thread: what a monitor does with the socket it was given."""
    from wherry.http.stdcopy import STDOUT, frame

    def run() -> None:
        sock.setblocking(True)
        sock.settimeout(60)
        data = early
        while more := sock.recv(65536):
            data += more
        sock.sendall(frame(STDOUT, data) if framed else data)
        sock.close()

    threading.Thread(target=run, daemon=True).start()
