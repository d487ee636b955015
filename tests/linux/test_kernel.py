"""The kernel's calls, one at a time, on a real kernel."""

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wherry.linux import caps, mounts, namespaces, openat, pidfd, prctl, rlimits, tty
from wherry.linux.syscalls import NR, check, syscall


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked child; its exit code, 0 when it returned."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_mount_namespace(work: Callable[[], None]) -> int:
    def within() -> None:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mounts.mount("", "/", "", mounts.MS_PRIVATE | mounts.MS_REC)
        work()

    return in_child(within)


def test_syscall_numbers_and_errors() -> None:
    assert syscall(NR.gettid) == os.getpid()
    with pytest.raises(OSError, match="Invalid argument") as caught:
        syscall(NR.close_range, 5, 3, 0)
    assert caught.value.errno == errno.EINVAL
    assert check(3, "x") == 3


# ---------------------------------------------------------------- openat2


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    root = tmp_path / "root"
    (root / "dir").mkdir(parents=True)
    (root / "dir/file").write_text("inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("outside")
    fd = os.open(root, os.O_PATH)
    yield root, fd
    os.close(fd)
    assert sorted(os.listdir(tmp_path / "outside")) == ["file"]


def _read(fd: int) -> str:
    try:
        return os.read(fd, 100).decode()
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "link",
    [
        "{out}/file",
        "../outside/file",
        "../../../../../../../..{out}/file",
        "/../outside/file",
        "/proc/self/root{out}/file",
    ],
)
def test_links_do_not_lead_out(tree: tuple[Path, int], link: str) -> None:
    root, fd = tree
    (root / "link").symlink_to(link.format(out=root.parent / "outside"))
    with pytest.raises(FileNotFoundError):
        openat.open_in_root(fd, "link", os.O_RDONLY)


def test_links_inside_are_followed_as_by_a_process_inside(tree: tuple[Path, int]) -> None:
    root, fd = tree
    (root / "absolute").symlink_to("/dir/../dir/file")
    (root / "climbing").symlink_to("../../../dir/file")
    for name in ("absolute", "climbing", "/../absolute"):
        assert _read(openat.open_in_root(fd, name, os.O_RDONLY)) == "inside"


def test_magic_links_are_refused(tree: tuple[Path, int]) -> None:
    proc = os.open("/proc", os.O_PATH)
    with pytest.raises(OSError, match="Too many levels") as caught:
        openat.open_in_root(proc, "self/root", openat.O_PATH)
    os.close(proc)
    assert caught.value.errno == errno.ELOOP


@pytest.mark.parametrize(
    ("path", "made"),
    [
        ("/a/b/c", "a/b/c"),
        ("a/../b", "b"),
        ("../../x", "x"),
        ("/dir/new", "dir/new"),
        ("/dangling/run", "target/run"),
        ("/climbing/z", "up/z"),
        ("/twice/q", "target/q"),
        ("/", ""),
    ],
)
def test_mkdir_in_root(tree: tuple[Path, int], path: str, made: str) -> None:
    root, fd = tree
    (root / "dangling").symlink_to("/target")
    (root / "climbing").symlink_to("../../up")
    (root / "twice").symlink_to("dangling")
    directory = openat.mkdir_in_root(fd, path, 0o711)
    assert os.path.samestat(os.fstat(directory), (root / made).stat())
    os.close(directory)


def test_mkdir_in_root_fails_on_files_and_loops(tree: tuple[Path, int]) -> None:
    root, fd = tree
    (root / "loop").symlink_to("/loop2/x")
    (root / "loop2").symlink_to("/loop/y")
    with pytest.raises(NotADirectoryError):
        openat.mkdir_in_root(fd, "/dir/file/x", 0o755)
    with pytest.raises(NotADirectoryError):
        openat.mkdir_in_root(fd, "/dir/file", 0o755)
    with pytest.raises(OSError, match="Too many levels"):
        openat.mkdir_in_root(fd, "/loop/z", 0o755)


def test_create_in_root(tree: tuple[Path, int]) -> None:
    root, fd = tree
    (root / "dangling").symlink_to("/far/away")
    for path, made in (("/x/y/z", "x/y/z"), ("/dangling", "far/away"), ("/dir/file", "dir/file")):
        created = openat.create_in_root(fd, path, 0o600)
        assert os.path.samestat(os.fstat(created), (root / made).stat())
        os.close(created)
    assert (root / "dir/file").read_text() == "inside"
    with pytest.raises(OSError, match="directory"):
        openat.create_in_root(fd, "/dir/file/x", 0o600)


def test_filesystem_type() -> None:
    proc = os.open("/proc", os.O_PATH)
    assert openat.filesystem_type(proc) == 0x9FA0
    os.close(proc)


# ---------------------------------------------------------------- mounts


@pytest.mark.root
def test_new_filesystem_attach_copy_and_change(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    def work() -> None:
        fd = mounts.new_filesystem("tmpfs", [("size", "64k"), ("mode", "700"), ("source", "mine")], mounts.ATTR_NOEXEC)
        for name in ("a", "b"):
            target = os.open(tmp_path / name, os.O_PATH)
            mounts.move_mount(fd if name == "a" else mounts.copy_mount(fd), target)
        (tmp_path / "a/f").write_text("x")
        assert (tmp_path / "b/f").read_text() == "x"
        assert os.stat(tmp_path / "a").st_mode & 0o777 == 0o700
        mounts.mount_setattr(fd, set_=mounts.ATTR_RDONLY | mounts.ATTR_NOATIME)
        flags = os.statvfs(tmp_path / "a").f_flag
        assert flags & os.ST_RDONLY
        assert flags & os.ST_NOEXEC
        assert flags & os.ST_NOATIME
        (tmp_path / "b/g").write_text("still writable")
        mounts.umount2(str(tmp_path / "b"), mounts.MNT_DETACH)
        assert not (tmp_path / "b/f").exists()

    assert in_mount_namespace(work) == 0
    assert os.listdir(tmp_path / "a") == []


@pytest.mark.root
def test_a_file_system_explains_itself() -> None:
    with pytest.raises(OSError, match="size") as caught:
        mounts.new_filesystem("tmpfs", [("size", "lots")])
    assert caught.value.errno == errno.EINVAL


@pytest.mark.root
def test_mount_names_its_target(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        mounts.mount("/x", str(tmp_path / "nowhere"), "tmpfs")
    with pytest.raises(OSError, match=str(tmp_path)):
        mounts.umount2(str(tmp_path))


# ---------------------------------------------------------------- processes


def test_capability_names_and_masks() -> None:
    assert caps.mask(["CAP_CHOWN", "CAP_SYS_ADMIN"]) == 1 | 1 << 21
    assert caps.names(caps.mask(caps.NAMES)) == list(caps.NAMES)
    assert len(caps.NAMES) == 41
    assert caps.NUMBERS["CAP_CHECKPOINT_RESTORE"] == 40


@pytest.mark.root
def test_capability_sets_are_what_proc_shows() -> None:
    def work() -> None:
        keep = caps.mask(["CAP_CHOWN", "CAP_SETPCAP", "CAP_BPF"])
        caps.drop_bounding(caps.known() & ~keep)
        caps.capset(keep, keep, keep)
        caps.set_ambient(caps.mask(["CAP_BPF"]))
        status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines() if "Cap" in line)
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapBnd")} == {keep}
        assert int(status["CapAmb"], 16) == 1 << 39
        assert caps.capget() == (keep, keep, keep)

    assert in_child(work) == 0


def test_close_all_but_keeps_what_it_should() -> None:
    def work() -> None:
        opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(12)]
        keep = (opened[0], opened[5], opened[11])
        prctl.close_all_but(keep)
        for fd in opened:
            try:
                os.fstat(fd)
                assert fd in keep
            except OSError:
                assert fd not in keep

    assert in_child(work) == 0


def test_pidfd() -> None:
    child = subprocess.Popen(["sleep", "100"])
    fd = pidfd.pidfd_open(child.pid)
    pidfd.pidfd_send_signal(fd, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        pidfd.pidfd_send_signal(fd, 0)
    os.close(fd)


def test_terminal_peer_and_size() -> None:
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
    peer = tty.open_peer(master)
    tty.set_size(master, 24, 81)
    assert tty.get_size(peer) == (24, 81)
    assert os.ttyname(peer).endswith(f"/{tty.number(master)}")
    assert not os.get_inheritable(peer)
    os.close(peer)
    os.close(master)


def test_rlimit_clamp(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    number = resource.RLIMIT_NOFILE
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, 100))
    assert rlimits.clamp(number, 50, 100) == (50, 100)
    assert rlimits.clamp(number, 500, resource.RLIM_INFINITY) == (100, 100)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, resource.RLIM_INFINITY))
    assert rlimits.clamp(number, 500, resource.RLIM_INFINITY) == (500, resource.RLIM_INFINITY)
    assert rlimits.to_kernel((1 << 64) - 1) == rlimits.to_kernel(-1) == resource.RLIM_INFINITY


@pytest.mark.root
def test_sibling_is_the_callers_parents_child() -> None:
    read_end, write_end = os.pipe()
    helper = os.fork()
    if helper == 0:
        sibling = namespaces.fork_sibling()
        if sibling == 0:
            os._exit(17)
        os.write(write_end, str(sibling).encode())
        os._exit(0)
    sibling = int(os.read(read_end, 20))
    os.waitpid(helper, 0)
    assert os.waitstatus_to_exitcode(os.waitpid(sibling, 0)[1]) == 17
    os.close(read_end)
    os.close(write_end)
