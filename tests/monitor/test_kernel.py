"""linux/: descriptors in messages, sealed files, inotify."""

import os
import subprocess
from pathlib import Path

import pytest

from wherry.linux import fdpass, inotify, memfd


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_descriptors_travel_and_close_on_exec():
    left, right = fdpass.pair()
    reader, writer = os.pipe()
    fdpass.send(left, b"hello", [writer, reader])
    payload, fds = fdpass.receive(right, 100)
    assert payload == b"hello"
    assert not any(os.get_inheritable(fd) for fd in fds)
    os.write(fds[0], b"x")
    assert os.read(fds[1], 9) == b"x"
    fdpass.close_all(fds)
    assert fds == []
    os.close(reader)
    os.close(writer)
    left.close()
    assert fdpass.receive(right, 100) == (b"", [])
    right.close()


def test_the_kernel_tells_who_sent_a_message():
    left, right = fdpass.pair()
    fdpass.name_senders(right)
    child = os.fork()
    if not child:
        fdpass.send(left, b"theirs", [0])
        os._exit(0)
    os.waitpid(child, 0)
    fdpass.send(left, b"ours", [0] * fdpass.MAX_FDS)
    payload, fds, sender = fdpass.receive_named(right, 100)
    assert (payload, len(fds), sender) == (b"theirs", 1, child)
    fdpass.close_all(fds)
    payload, fds, sender = fdpass.receive_named(right, 100)
    assert (payload, len(fds), sender) == (b"ours", fdpass.MAX_FDS, os.getpid())
    fdpass.close_all(fds)
    left.close()
    assert fdpass.receive_named(right, 100) == (b"", [], 0)
    right.close()


def test_a_record_too_long_is_refused_and_its_descriptors_closed():
    left, right = fdpass.pair()
    before = open_fds()
    fdpass.send(left, b"x" * 101, [0, 1])
    with pytest.raises(ValueError, match="longer"):
        fdpass.receive(right, 100)
    assert open_fds() == before
    with pytest.raises(BlockingIOError):
        fdpass.receive(right, 100, wait=False)
    left.close()
    right.close()


def test_the_most_descriptors_a_message_can_carry():
    left, right = fdpass.pair()
    fdpass.send(left, b"x", [0] * fdpass.MAX_FDS)
    _, fds = fdpass.receive(right, 100)
    assert len(fds) == fdpass.MAX_FDS
    fdpass.close_all(fds)
    left.close()
    right.close()


def test_a_sealed_file_cannot_change():
    fd = memfd.sealed("x", b"content")
    assert memfd.read(fd, 100) == b"content"
    with pytest.raises(ValueError, match="exceeds"):
        memfd.read(fd, 3)
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"X", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    os.close(fd)
    plain = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    with pytest.raises(ValueError, match="not sealed"):
        memfd.read(plain, 100)
    os.close(plain)


def test_a_copy_of_the_interpreter_runs_and_cannot_be_overwritten():
    fd = memfd.sealed_copy("/proc/self/exe", "wherry-python")
    real = os.path.realpath("/proc/self/exe")
    done = subprocess.run(
        [real, "-I", "-S", "-c", "import os, json; print(os.readlink('/proc/self/exe'))"],
        executable=f"/proc/self/fd/{fd}",
        pass_fds=[fd],
        stdout=subprocess.PIPE,
        check=True,
    )
    assert done.stdout.startswith(b"/memfd:wherry-python")
    with pytest.raises(OSError, match=r"not permitted|busy"):
        os.close(os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_TRUNC))
    os.close(fd)


def test_events_of_a_directory(tmp_path: Path):
    watcher = inotify.Inotify()
    assert watcher.read() == []
    number = watcher.add(str(tmp_path), inotify.IN_CREATE | inotify.IN_MODIFY | inotify.IN_MOVED_TO)
    assert watcher.add(str(tmp_path), inotify.IN_CREATE | inotify.IN_MODIFY | inotify.IN_MOVED_TO) == number
    (tmp_path / "a").write_bytes(b"x")
    os.rename(tmp_path / "a", tmp_path / "b")
    events = watcher.read()
    assert [(e.mask, e.name) for e in events if e.watch == number] == [
        (inotify.IN_CREATE, b"a"),
        (inotify.IN_MODIFY, b"a"),
        (inotify.IN_MOVED_TO, b"b"),
    ]
    watcher.remove(number)
    watcher.remove(number)
    assert [e.mask & inotify.IN_IGNORED for e in watcher.read()] == [inotify.IN_IGNORED]
    with pytest.raises(FileNotFoundError):
        watcher.add(str(tmp_path / "none"), inotify.IN_MODIFY)
    watcher.close()
