"""A laboratory: tests that run in network and mount namespaces of their own, and hosts that live in further ones."""

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any

from wherry.linux import netns, rtnetlink
from wherry.linux.syscalls import NR, syscall

_NEWNS, _NEWNET = 0x20000, 0x40000000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18


def isolated(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in a child process with a network and a mount namespace of its own, where only lo is up."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        code, report = in_child(lambda: test(*args, **kwargs))
        if code:
            raise AssertionError(f"in the child (status {code}):\n{report}")

    return run


def in_child(function: Callable[[], object], *, new_namespaces: bool = True) -> tuple[int, str]:
    """Fork, run `function` in the child; return its wait status and the traceback it died of."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if new_namespaces:
                enter_namespaces()
            function()
            status = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[-60_000:])
        finally:
            sys.stdout.flush()
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as report:
        said = report.read()
    return os.waitpid(pid, 0)[1], said


def enter_namespaces() -> None:
    signal.alarm(100)  # whatever hangs ends, and its namespaces with it
    syscall(NR.unshare, _NEWNS | _NEWNET)
    syscall(NR.mount, None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    with rtnetlink.RouteSocket() as route:
        route.request("lo up", rtnetlink.set_link(1, up=True))


def ip(*arguments: str) -> Any:
    """`ip -j ...`, decoded."""
    done = subprocess.run(["ip", "-j", "-d", *arguments], capture_output=True, check=True)
    return json.loads(done.stdout or b"[]")


def nft(text: str) -> str:
    """Run nft commands, return what they print."""
    done = subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def nft_json(*arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(["nft", "-j", *arguments], capture_output=True, check=True)
    items: list[dict[str, Any]] = json.loads(done.stdout)["nftables"]
    return items


class Host:
    """A network namespace with a link to the test's own; code in it runs by `call`."""

    def __init__(self, pin: str, name: str = "", address: str = "", gateway: str = "", prefix: int = 24) -> None:
        self.pin = pin
        self.address = address
        netns.create(pin, lambda: self._bring_up(1))
        if name:
            self.connect(name, address, gateway, prefix)

    @staticmethod
    def _bring_up(number: int) -> None:
        with rtnetlink.RouteSocket() as route:
            route.request("up", rtnetlink.set_link(number, up=True))

    def connect(self, name: str, address: str, gateway: str, prefix: int) -> None:
        """Link `name` on the test's side with address `gateway`, eth0 here with `address`."""
        fd = os.open(self.pin, os.O_RDONLY)
        with rtnetlink.RouteSocket() as route:
            route.request("link", rtnetlink.new_veth(name, "eth0", peer_netns=fd))
            link = route.link(name)
            assert link
            route.request("address", rtnetlink.new_address(link.number, gateway, prefix))
        os.close(fd)
        self.call(lambda: self._configure(address, gateway, prefix))

    @staticmethod
    def _configure(address: str, gateway: str, prefix: int) -> None:
        with rtnetlink.RouteSocket() as route:
            link = route.link("eth0")
            assert link
            route.request(
                "configure",
                rtnetlink.set_link(link.number, up=True),
                rtnetlink.new_address(link.number, address, prefix),
                rtnetlink.new_route("0.0.0.0/0", gateway=gateway),
            )

    def call(self, function: Callable[[], Any]) -> Any:
        return netns.run_in(self.pin, function)

    def route(self, destination: str, gateway: str) -> None:
        def add() -> None:
            with rtnetlink.RouteSocket() as route:
                route.request("route", rtnetlink.new_route(destination, gateway=gateway))

        self.call(add)

    def close(self) -> None:
        netns.delete(self.pin)


def listen(pin: str | None, port: int, *, kind: int = socket.SOCK_STREAM, address: str = "0.0.0.0") -> socket.socket:
    """A bound (and listening) socket in the namespace `pin`, None for the test's own."""

    def make() -> socket.socket:
        sock = socket.socket(socket.AF_INET, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(16)
        sock.settimeout(3)
        return sock

    result: socket.socket = make() if pin is None else netns.run_in(pin, make)
    return result


def reaches(pin: str | None, server: socket.socket, address: str, port: int, *, timeout_s: float = 0.25) -> str:
    """Connect from namespace `pin` to address:port: "" unless `server` got exactly that, else the client's address as
    the server saw it. Bytes go both ways."""

    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_INET, server.type)
        sock.settimeout(timeout_s)
        sock.connect((address, port))
        return sock

    try:
        client = connect() if pin is None else netns.run_in(pin, connect)
    except OSError:
        return ""
    with client:
        if server.type == socket.SOCK_DGRAM:
            return _datagram(client, server, timeout_s)
        server.settimeout(timeout_s)
        try:
            accepted, peer = server.accept()
        except TimeoutError:
            return ""
        with accepted:
            accepted.sendall(b"pong")
            assert client.recv(4) == b"pong"
        return str(peer[0])


def _datagram(client: socket.socket, server: socket.socket, timeout_s: float) -> str:
    server.settimeout(timeout_s)
    client.send(b"ping")
    try:
        data, peer = server.recvfrom(16)
    except OSError:
        return ""
    assert data == b"ping"
    server.sendto(b"pong", peer)
    assert client.recv(4) == b"pong"
    return str(peer[0])
