"""Images and configurations that try to get out: each test is a weakness that runtimes have had."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .lab import CAPABILITIES, Lab, parse_mountinfo

pytestmark = pytest.mark.root


def _replace(path: Path, target: str) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.symlink_to(target)


@pytest.mark.parametrize("name", ["proc", "sys"])
@pytest.mark.parametrize("what", ["link", "outward", "file"])
def test_proc_and_sys_must_be_directories(lab: Lab, canary: Path, name: str, what: str) -> None:
    """CVE-2019-19921, CVE-2023-27561: masks and labels would go to where a link leads."""
    (lab.rootfs / "fake").mkdir()
    if what == "file":
        (lab.rootfs / name).rmdir()
        (lab.rootfs / name).write_text("")
    else:
        _replace(lab.rootfs / name, "/fake" if what == "link" else str(canary / "dir"))
    result = lab.run("true")
    assert result.code == 1
    assert "must be mounted on ordinary directory" in result.err


@pytest.mark.parametrize("target", ["{canary}/dir", "../../../../../../../../..{canary}/dir", "/elsewhere"])
def test_dev_that_is_a_link(lab: Lab, canary: Path, target: str) -> None:
    """CVE-2026-41579: nodes and links made on the host."""
    _replace(lab.rootfs / "dev", target.format(canary=canary))
    lab.config["mounts"] = [entry for entry in lab.config["mounts"] if not entry["destination"].startswith("/dev")]
    lab.linux["maskedPaths"] = []
    result = lab.sh("ls /dev/null")
    assert result.out in ("", "/dev/null\n")


@pytest.mark.parametrize("name", ["ptmx", "console", "fd", "null"])
def test_dev_whose_entries_are_links(lab: Lab, canary: Path, name: str) -> None:
    lab.config["mounts"] = [entry for entry in lab.config["mounts"] if not entry["destination"].startswith("/dev")]
    (lab.rootfs / "dev" / name).symlink_to(canary / "file")
    lab.run("true")


@pytest.mark.parametrize("kind", ["link", "file", "other device"])
def test_masks_do_not_use_a_false_null_device(lab: Lab, tmp_path: Path, kind: str) -> None:
    """CVE-2025-31133."""
    dev = tmp_path / "dev"
    dev.mkdir()
    for name, minor in (("zero", 5), ("full", 7)):
        os.mknod(dev / name, 0o20666, os.makedev(1, minor))
    if kind == "link":
        (dev / "null").symlink_to("/proc/sys/kernel/core_pattern")
    elif kind == "file":
        (dev / "null").write_text("")
    else:
        os.mknod(dev / "null", 0o20666, os.makedev(1, 5))
    lab.config["mounts"] = [entry for entry in lab.config["mounts"] if not entry["destination"].startswith("/dev")]
    lab.add_mount("/dev", dev, "bind")
    before = Path("/proc/sys/kernel/core_pattern").read_bytes()
    result = lab.sh("echo x > /proc/timer_list")
    assert result.code == 1
    assert "invalid /dev/null" in result.err
    assert Path("/proc/sys/kernel/core_pattern").read_bytes() == before


@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
@pytest.mark.parametrize(
    "destination", ["/proc", "/proc/self/attr", "/proc/../proc/1", "//proc/", "proc", "/link/self"]
)
def test_mounts_over_proc_are_refused(lab: Lab, tmp_path: Path, kind: str, destination: str) -> None:
    """CVE-2019-16884."""
    (tmp_path / "vol").mkdir()
    (lab.rootfs / "link").symlink_to("proc")
    lab.add_mount(destination, tmp_path / "vol", "bind" if kind == "bind" else "ro", fstype=kind)
    result = lab.run("true")
    assert result.code == 1
    assert "cannot be mounted because" in result.err


def test_what_lxcfs_provides_may_cover_proc(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "uptime").write_text("1.00 1.00\n")
    lab.add_mount("/proc/uptime", tmp_path / "uptime", "bind")
    assert lab.run("cat", "/proc/uptime").out == "1.00 1.00\n"


@pytest.mark.parametrize("destination", ["/", "/.", "/tmp/..", "/up"])
def test_the_root_is_no_mount_point(lab: Lab, tmp_path: Path, destination: str) -> None:
    (tmp_path / "vol").mkdir()
    (lab.rootfs / "up").symlink_to("../../..")
    lab.add_mount(destination, tmp_path / "vol", "bind")
    result = lab.run("true")
    assert result.code == 1
    assert "root file system itself" in result.err


@pytest.mark.parametrize("link", ["{canary}/dir", "../../../../../../../../../..{canary}/dir"])
def test_mount_target_behind_a_link_stays_inside(lab: Lab, canary: Path, tmp_path: Path, link: str) -> None:
    """CVE-2021-30465, CVE-2024-45310: neither a mount nor an empty file lands on the host."""
    (tmp_path / "vol").mkdir()
    (tmp_path / "file").write_text("f")
    (lab.rootfs / "a").symlink_to(link.format(canary=canary))
    lab.add_mount("/a/b", tmp_path / "vol", "bind")
    lab.add_mount("/a/c/d", tmp_path / "file", "bind")
    result = lab.run("cat", "/proc/self/mountinfo")
    assert result.code == 0, result.err
    assert f"{canary}/dir/b" in parse_mountinfo(result.out)
    assert (lab.rootfs / str(canary)[1:] / "dir/c/d").is_file()


def test_mount_target_swapped_at_the_worst_moment(lab: Lab, canary: Path, tmp_path: Path) -> None:
    """The directory that a mount goes to becomes a link out, between the check of the plan and the mount."""
    volume = tmp_path / "vol"
    (volume / "a").mkdir(parents=True)
    (tmp_path / "src").mkdir()
    lab.add_mount("/vol", volume, "bind")
    lab.add_mount("/vol/a", tmp_path / "src", "bind")
    swap = f"rmdir {volume}/a && ln -s {canary}/dir {volume}/a"
    result = lab.run("cat", "/proc/self/mountinfo", env={"WHERRY_FAILPOINT": f"runtime-before-mounts:exec={swap}"})
    assert result.code == 0, result.err
    assert f"{canary}/dir" in parse_mountinfo(result.out)  # inside
    assert str(canary / "dir") not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("number", range(3, 20))
def test_working_directory_cannot_be_a_leaked_descriptor(lab: Lab, number: int) -> None:
    """CVE-2024-21626."""
    lab.process["cwd"] = f"/proc/self/fd/{number}"
    result = lab.sh("ls -d ../../../../../../home")
    assert result.code != 0
    assert "/home" not in result.out


@pytest.mark.parametrize("number", [3, 5, 7, 8, 9])
def test_working_directory_of_exec_cannot_be_one_either(lab: Lab, number: int) -> None:
    lab.start_sleeping()
    (lab.rootfs / "link").symlink_to(f"/proc/self/fd/{number}")
    for cwd in (f"/proc/self/fd/{number}", "/link", f"/proc/1/fd/{number}"):
        result = lab.cli("exec", "--cwd", cwd, lab.id, "sh", "-c", "ls ..")
        assert result.code == 255, (cwd, result)
        assert "chdir to cwd" in result.err


def in_python(code: str, *arguments: str) -> str:
    """What a program prints that makes namespaces and roots of its own."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


OUTSIDE = """
import os, sys
from wherry.runtime.failure import StartError
from wherry.runtime.init import verify_directory
outside = os.open("/", os.O_PATH)
os.chroot(sys.argv[1])
os.chdir("/")
verify_directory()
os.fchdir(outside)
try:
    verify_directory()
except StartError as error:
    print(error.message)
"""


def test_a_working_directory_outside_the_root_is_noticed(tmp_path: Path) -> None:
    """CVE-2024-21626: however it came to be there, were a descriptor ever left open."""
    assert "outside of container mount namespace root" in in_python(OUTSIDE, str(tmp_path))


COVERED = """
import os, sys
from wherry.linux import mounts as m, namespaces as ns
from wherry.runtime.failure import StartError
from wherry.runtime.operations import Context, Sysctls
ns.unshare(ns.CLONE_NEWNS | ns.CLONE_NEWUTS)
m.mount("", "/", "", m.MS_PRIVATE | m.MS_REC)
proc, trap = sys.argv[1:]
m.mount("proc", proc, "proc", 0)
if os.path.isdir(trap):
    m.mount(trap, f"{proc}/sys/kernel", "", m.MS_BIND)
elif trap:
    m.mount(trap, f"{proc}/sys/kernel/domainname", "", m.MS_BIND)
context = Context()
context.proc = os.open(proc, os.O_PATH)
try:
    Sysctls((("kernel/domainname", "written"),)).apply(context)
except StartError as error:
    print(error.message)
"""


@pytest.mark.parametrize("kind", ["file", "directory", "procfs", "none"])
def test_a_sysctl_that_leads_elsewhere_is_not_written(tmp_path: Path, kind: str) -> None:
    """CVE-2025-52881: another container that shares the mounts has covered it, with a file of the host's or with
    another one of the procfs."""
    (tmp_path / "proc").mkdir()
    trap = tmp_path / "trap"
    if kind == "file":
        trap.write_text("untouched")
    elif kind == "directory":
        trap.mkdir()
        (trap / "domainname").write_text("untouched")
    name = {"procfs": "/proc/self/comm", "none": ""}.get(kind, str(trap))
    said = in_python(COVERED, str(tmp_path / "proc"), name)
    assert ("open sysctl kernel.domainname file" in said) == (kind != "none")
    if kind in ("file", "directory"):
        assert (trap if kind == "file" else trap / "domainname").read_text() == "untouched"


def test_created_container_holds_nothing_of_the_host(lab: Lab) -> None:
    assert lab.create("true").code == 0
    pid = lab.info()["pid"]
    held = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    assert all(target in ("/dev/null", "/null") or target.startswith("socket:") for target in held), held
    assert os.readlink(f"/proc/{pid}/root") == "/"
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert Path(f"/proc/{pid}/status").stat().st_uid == 0


@pytest.mark.parametrize(
    "name",
    [
        *("kernel.core_pattern", "kernel/core_pattern", "net/../kernel/core_pattern", "net.//kernel.core_pattern"),
        *("vm.overcommit_memory", "kernel.hostname", "user.max_user_namespaces", "fs.file-max", "", "net.", "net..x"),
        *(
            "net/ipv4/../../kernel/core_pattern",
            "kernel.domainname/../core_pattern",
            "fs.mqueue./../../../kernel/panic",
        ),
    ],
)
def test_sysctls_that_are_not_the_containers(lab: Lab, name: str) -> None:
    before = {path: Path(path).read_bytes() for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/panic")}
    lab.linux["sysctl"] = {name: "7"}
    result = lab.run("true")
    assert result.code == 1
    assert "sysctl" in result.err
    assert {path: Path(path).read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("namespace", "name"), [("network", "net.ipv4.ip_forward"), ("ipc", "kernel.msgmax"), ("ipc", "fs.mqueue.msg_max")]
)
def test_sysctls_of_the_hosts_namespaces(lab: Lab, namespace: str, name: str) -> None:
    lab.drop_namespace(namespace)
    lab.linux["sysctl"] = {name: "1"}
    assert "namespace" in lab.run("true").err


def test_network_namespace_that_is_the_hosts_by_path(lab: Lab) -> None:
    lab.drop_namespace("network")
    lab.linux["namespaces"].append({"type": "network", "path": "/proc/self/ns/net"})
    lab.linux["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "5"}
    assert "namespace" in lab.run("true").err


@pytest.mark.parametrize("kind", ["fifo", "huge", "sparse", "device", "directory"])
def test_user_files_that_are_traps(lab: Lab, kind: str) -> None:
    """CVE-2026-47262: neither hangs nor eats memory."""
    passwd = lab.rootfs / "etc/passwd"
    passwd.unlink()
    if kind == "fifo":
        os.mkfifo(passwd)
    elif kind == "huge":
        passwd.write_bytes(b"a:x:1:1::/:\n" * 1_000_000)
    elif kind == "sparse":
        with open(passwd, "wb") as file:
            file.truncate(4 << 30)
    elif kind == "device":
        os.mknod(passwd, 0o20666, os.makedev(1, 5))
    else:
        passwd.mkdir()
    lab.process["user"] = {"username": "bob"}
    result = lab.run("true")  # which is given 30 s
    assert result.code == 1
    assert "/etc/passwd" in result.err


@pytest.mark.parametrize("link", ["{canary}/passwd", "../../../../../../../..{canary}/passwd", "/loop"])
def test_user_files_that_are_links_out(lab: Lab, canary: Path, link: str) -> None:
    """CVE-2024-9676."""
    (lab.rootfs / "loop").symlink_to("/loop")
    (lab.rootfs / "etc/passwd").unlink()
    (lab.rootfs / "etc/passwd").symlink_to(link.format(canary=canary))
    lab.process["user"] = {"username": "evil"}
    result = lab.run("id")
    assert result.code == 1
    assert "evil" in result.err or "symbolic links" in result.err


def test_console_that_is_a_link(lab: Lab, canary: Path, tmp_path: Path) -> None:
    """CVE-2025-52565."""
    import socket

    lab.config["mounts"] = [entry for entry in lab.config["mounts"] if entry["destination"] != "/dev"]
    (lab.rootfs / "dev/console").symlink_to("/proc/sys/kernel/core_pattern")
    lab.process["terminal"] = True
    lab.write()
    path = str(tmp_path / "console.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        result = lab.cli("create", "-b", str(lab.directory), "--console-socket", path, lab.id)
    assert result.code == 1
    assert "console" in result.err


def test_script_of_proc_self_exe_gets_nothing_to_write_to(lab: Lab) -> None:
    """CVE-2019-5736: the container executes the runtime's own interpreter. It is on a mount that cannot be written, and
    the file of the host keeps its content and its mode."""
    python = Path(os.path.realpath("/usr/bin/python3.11"))
    if not python.exists():
        pytest.skip("needs the system's interpreter")
    before = (python.stat().st_mode, python.stat().st_mtime_ns, python.stat().st_ctime_ns)
    script = lab.rootfs / "script"
    script.write_text(
        "#!/proc/self/exe\n"
        "import os\n"
        "print(os.readlink('/proc/self/exe'), bool(os.statvfs('/proc/self/exe').f_flag & os.ST_RDONLY))\n"
        "for what in (lambda: os.chmod('/proc/self/exe', 0o777), lambda: os.open('/proc/self/exe', os.O_RDWR)):\n"
        "    try:\n        what(); print('WRITTEN')\n"
        "    except OSError as error:\n        print(error.errno)\n"
    )
    script.chmod(0o755)
    for path in ("/usr/lib", "/lib/x86_64-linux-gnu", "/lib64", "/lib"):
        if os.path.isdir(path):
            lab.add_mount(path, os.path.realpath(path), "rbind", "ro")
    lab.process["args"] = ["/script"]
    lab.write()
    command = [str(python), *lab.command("run", "-b", str(lab.directory), lab.id)[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    where, sealed, chmod, opened = done.stdout.split()
    assert where == "/"  # of a mount that is attached nowhere
    assert sealed == "True"
    assert chmod == "30"  # EROFS
    assert opened in ("26", "30")  # ETXTBSY as long as it runs
    assert (python.stat().st_mode, python.stat().st_mtime_ns, python.stat().st_ctime_ns) == before


def test_default_container_may_not_mount_or_unshare_users_privileges(lab: Lab) -> None:
    """Without CAP_SYS_ADMIN nothing of the tree can be changed."""
    result = lab.sh(
        "mount -t tmpfs x /tmp; umount /proc/sys; umount /sys/firmware; mknod /dev/sda b 8 0; head -c1 /dev/sda"
    )
    assert result.err.lower().count("permission denied") + result.err.lower().count("not permitted") >= 4


def test_read_only_mounts_cannot_be_undone_with_privileges_of_the_namespace(lab: Lab) -> None:
    """Even a container with CAP_SYS_ADMIN, which may remount, finds the host's mount table untouched."""
    lab.process["capabilities"] = {k: [*CAPABILITIES, "CAP_SYS_ADMIN"] for k in ("bounding", "effective", "permitted")}
    before = Path("/proc/self/mountinfo").read_text()
    assert lab.sh("mount -t tmpfs x /tmp && umount /proc/sys && echo done").out == "done\n"
    assert Path("/proc/self/mountinfo").read_text() == before


def test_long_texts_are_refused_or_taken_whole(lab: Lab) -> None:
    """CVE-2021-43784: no length wraps."""
    lab.add_mount("/vol", "/" + "x" * 70000, "bind")
    result = lab.run("true")
    assert result.code == 1
    assert "file name too long" in result.err
    lab.config["mounts"].pop()
    lab.process["args"] = ["sh", "-c", "echo ${#0}", "y" * 100000]
    assert lab.run().out == "100000\n"
