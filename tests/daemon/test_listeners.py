"""The sockets the daemon opens: who may connect, what is refused, what is left behind."""

import os
import socket
import stat
import subprocess
import sys

import pytest

from wherry.daemon import config
from wherry.daemon.listeners import close_listeners, open_listeners
from wherry.daemon.notify import notify
from wherry.daemon.options import parse_flags
from wherry.errors import Conflict, InvalidArgument


def opened(*words):
    return open_listeners(config.load(*parse_flags(list(words))))


def test_unix_socket_is_for_root_and_the_group_alone(tmp_path):
    path = tmp_path / "dir" / "wherry.sock"
    listeners = opened("-H", f"unix://{path}", "-G", "4242")
    status = path.stat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o660
    assert (status.st_uid, status.st_gid) == (os.getuid(), 4242)
    close_listeners(listeners)
    assert not path.exists()


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path):
    path = tmp_path / "wherry.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    listeners = opened("-H", f"unix://{path}")
    with pytest.raises(Conflict, match="in use"):
        opened("-H", f"unix://{path}")
    close_listeners(listeners)


def test_a_file_is_never_removed(tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(InvalidArgument, match="not a socket"):
        opened("-H", f"unix://{path}")
    assert path.read_text() == "data"


def test_all_or_none(tmp_path):
    path = tmp_path / "wherry.sock"
    with pytest.raises(InvalidArgument, match="must be absolute"):
        opened("-H", f"unix://{path}", "-H", "unix://relative")
    assert not path.exists()


def test_tcp_without_client_certificates_is_for_loopback():
    listeners = opened("-H", "tcp://127.0.0.1:0")
    assert listeners[0].address.startswith("tcp://127.0.0.1:")
    close_listeners(listeners)
    with pytest.raises(InvalidArgument, match="--tlsverify"):
        opened("-H", "tcp://0.0.0.0:0")
    close_listeners(opened("-H", "tcp://0.0.0.0:0", "--tlsverify=false"))


def test_a_taken_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(Conflict, match=f"127.0.0.1:{port}: bind: address already in use"):
            opened("-H", f"tcp://127.0.0.1:{port}")


@pytest.mark.parametrize("host", ["npipe:////./pipe/x", "tcp://127.0.0.1:x", "fd://"])
def test_what_cannot_be_listened_on(host):
    with pytest.raises(InvalidArgument):
        opened("-H", host)


def test_a_group_that_is_asked_for_must_exist(tmp_path):
    with pytest.raises(InvalidArgument, match="could not find group nosuchgroup"):
        opened("-H", f"unix://{tmp_path}/s", "-G", "nosuchgroup")


def test_sockets_passed_by_the_service_manager():
    program = """
import os, socket
passed = socket.create_server(("127.0.0.1", 0))
os.dup2(passed.fileno(), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "api"}
from wherry.daemon import config
from wherry.daemon.listeners import open_listeners
from wherry.daemon.options import parse_flags
for host in ("fd://", "fd://api", "fd://3"):
    (found,) = open_listeners(config.load(*parse_flags(["-H", host])))
    assert found.socket.getsockname() == passed.getsockname()
    found.socket.detach()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_notify_reaches_the_manager(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify("READY=1", "STATUS=fine")
        assert manager.recv(100) == b"READY=1\nSTATUS=fine"
    notify("STOPPING=1")  # nobody listens any more: not our problem
