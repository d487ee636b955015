"""A network service on temporary roots, and containers that are nothing but their networks."""

import hashlib
import os
import socket
from pathlib import Path
from typing import Any

from tests.network.netlab import Host, listen, reaches
from wherry.linux import rtnetlink
from wherry.network.model import AttachRequest, Endpoint, NetworkOptions
from wherry.network.service import MIGRATIONS, NetworkService
from wherry.store.db import open_database
from wherry.store.paths import Paths

HOST, PEER = "192.0.2.1", "192.0.2.2"


def container_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


class Lab:
    """An engine's network on the test's own namespace (host A) and, when asked for, a peer outside (host B)."""

    def __init__(self, root: Path, name: str = "engine", *, peer: bool = False, **options: Any) -> None:
        root.mkdir(exist_ok=True)
        self.paths = Paths(root / name / "data", root / name / "run")
        self.paths.create()
        self.peer = Host(str(root / f"{name}-peer"), "up0", PEER, HOST) if peer else None
        self.options = NetworkOptions(**options)
        self.service = self.restart()

    def restart(self) -> NetworkService:
        """A new daemon on the same roots; the old one is as good as killed."""
        db = open_database(self.paths.database, {"network": MIGRATIONS})
        self.service = NetworkService(db, self.paths, self.options)
        self.service.start()
        return self.service

    def run(self, name: str, *, bindings: dict[str, list[dict[str, str]]] | None = None, **wishes: Any) -> Endpoint:
        request = AttachRequest(container_id=container_id(name), name=name, bindings=bindings or {}, **wishes)
        return self.service.attach(request)

    def publish(self, name: str, *ports: str) -> Endpoint:
        """Attach with docker's -p: [address:][host port:]port[/protocol]."""
        bindings: dict[str, list[dict[str, str]]] = {}
        for port in ports:
            wanted, _, protocol = port.partition("/")
            *where, inner = wanted.split(":")
            entry = {"HostIp": where[0] if len(where) == 2 else "", "HostPort": where[-1] if where else ""}
            bindings.setdefault(f"{inner}/{protocol or 'tcp'}", []).append(entry)
        return self.run(name, bindings=bindings)

    def rm(self, name: str) -> None:
        self.service.detach(container_id(name))

    def leaks(self, *live: str) -> list[str]:
        return self.service.reconcile({container_id(name) for name in live}, dry_run=True)

    def from_peer(self, server: socket.socket, port: int, address: str = HOST) -> str:
        assert self.peer
        return reaches(self.peer.pin, server, address, port)


def server_in(endpoint: Endpoint, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    return listen(endpoint.netns_path, port, kind=kind)


def host_links() -> set[str]:
    with rtnetlink.RouteSocket() as route:
        return {link.name for link in route.links()}


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))
