"""What a container is, seen from inside and outside: real kernel, the command line as a user has it."""

import json
import os
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest

from .lab import CAPABILITIES, Lab

pytestmark = pytest.mark.root


def status_field(text: str, name: str) -> str:
    match = re.search(rf"^{name}:\s*(.*)$", text, re.M)
    assert match, text
    return match.group(1)


# ---------------------------------------------------------------- namespaces and names


def test_new_namespaces_differ_from_ours(lab: Lab) -> None:
    result = lab.sh("for n in pid net ipc uts mnt; do readlink /proc/self/ns/$n; done; echo $$")
    *theirs, pid = result.out.split()
    ours = [os.readlink(f"/proc/self/ns/{name}") for name in ("pid", "net", "ipc", "uts", "mnt")]
    assert all(a != b for a, b in zip(theirs, ours, strict=True))
    assert pid == "1"


def test_namespace_joined_by_path(lab: Lab) -> None:
    with subprocess.Popen(["unshare", "--net", "--uts", "sleep", "60"]) as holder:
        try:
            while os.readlink(f"/proc/{holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
                time.sleep(0.001)
            wanted = [os.readlink(f"/proc/{holder.pid}/ns/{kind}") for kind in ("net", "uts")]
            lab.drop_namespace("network")
            lab.drop_namespace("uts")
            lab.linux["namespaces"] += [
                {"type": "network", "path": f"/proc/{holder.pid}/ns/net"},
                {"type": "uts", "path": f"/proc/{holder.pid}/ns/uts"},
            ]
            result = lab.sh("readlink /proc/self/ns/net; readlink /proc/self/ns/uts")
        finally:
            holder.kill()
    assert result.out.split() == wanted


def test_pid_namespace_joined_by_path(lab: Lab) -> None:
    with subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "sleep", "60"]) as holder:
        try:
            path = f"/proc/{holder.pid}/ns/pid_for_children"
            while not os.path.exists(path) or os.readlink(path) == os.readlink("/proc/self/ns/pid"):
                time.sleep(0.001)
            wanted = os.readlink(path)
            lab.drop_namespace("pid")
            lab.linux["namespaces"].append({"type": "pid", "path": path})
            result = lab.sh("readlink /proc/self/ns/pid; echo $$")
        finally:
            holder.kill()
    assert result.out.split()[0] == wanted.replace("pid_for_children", "pid")
    assert result.out.split()[1] != "1"


def test_hostname_and_domainname(lab: Lab) -> None:
    lab.config["domainname"] = "example.test"
    result = lab.sh("hostname; cat /proc/sys/kernel/domainname")
    assert result.out.split() == ["box", "example.test"]
    assert socket.gethostname() != "box"


def test_hostname_without_uts_namespace_is_refused(lab: Lab) -> None:
    lab.drop_namespace("uts")
    result = lab.run("true")
    assert result.code == 1
    assert "unable to set hostname without a private UTS namespace" in result.err


def test_cgroup_namespace_shows_the_own_cgroup_as_root(lab: Lab) -> None:
    lab.linux["namespaces"].append({"type": "cgroup"})
    result = lab.sh("cat /proc/self/cgroup; cat /sys/fs/cgroup/pids/cgroup.procs")
    assert result.code == 0, result.err
    lines = [line for line in result.out.splitlines() if ":" in line]
    assert all(line.rpartition(":")[2] == "/" for line in lines if not line.startswith("0::")), lines
    assert "1" in result.out.split()


def test_processes_are_in_their_cgroup(lab: Lab) -> None:
    pid = lab.start_sleeping()
    assert f"pids:/wherry-test/{lab.id}\n" in Path(f"/proc/{pid}/cgroup").read_text()
    result = lab.cli("exec", lab.id, "cat", "/proc/self/cgroup")
    assert f"pids:/wherry-test/{lab.id}\n" in result.out


# ---------------------------------------------------------------- mounts


def test_default_mount_table(lab: Lab) -> None:
    mounts = lab.mounts()
    assert mounts["/proc"].options >= {"rw", "nosuid", "nodev", "noexec"}
    assert mounts["/dev"].super_options >= {"mode=755", "size=65536k"}
    assert mounts["/dev"].options == {"rw", "nosuid"}  # strictatime shows as no relatime
    assert mounts["/dev/pts"].super_options >= {"gid=5", "mode=620", "ptmxmode=666"}
    assert mounts["/sys"].options >= {"ro", "nosuid", "nodev", "noexec"}
    assert "ro" in mounts["/sys"].super_options
    assert mounts["/dev/shm"].source == "shm"
    assert mounts["/dev/mqueue"].fstype == "mqueue"
    assert mounts["/sys/fs/cgroup"].options >= {"ro"}
    assert mounts["/sys/fs/cgroup/memory"].root.endswith(f"/wherry-test/{lab.id}")
    assert mounts["/proc/sys"].options >= {"ro", "nosuid", "nodev", "noexec"}
    assert mounts["/"].optional == []
    host = Path("/proc/self/mountinfo").read_text()
    assert str(lab.directory) not in host


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["bind"], {"rw"}),
        (["rbind", "ro"], {"ro"}),
        (["bind", "nosuid", "nodev", "noexec"], {"rw", "nosuid", "nodev", "noexec"}),
        (["bind", "noatime", "nodiratime"], {"rw", "noatime", "nodiratime"}),
        (["bind", "nosymfollow"], {"rw", "nosymfollow"}),
        (["bind", "ro", "rw"], {"rw"}),
    ],
)
def test_bind_options(lab: Lab, tmp_path: Path, options: list[str], wanted: set[str]) -> None:
    (tmp_path / "vol").mkdir()
    lab.add_mount("/vol", tmp_path / "vol", *options)
    assert lab.mounts()["/vol"].options >= wanted


def test_recursive_read_only_covers_submounts(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "vol/sub").mkdir(parents=True)
    mounting = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs t {tmp_path}/vol/sub && exec "$@"', "sh"]
    lab.add_mount("/plain", tmp_path / "vol", "rbind", "ro")
    lab.add_mount("/deep", tmp_path / "vol", "rbind", "rro")
    lab.process["args"] = ["cat", "/proc/self/mountinfo"]
    lab.write()
    done = subprocess.run(
        [*mounting, *lab.command("run", "-b", str(lab.directory), lab.id)], capture_output=True, text=True, check=True
    )
    from .lab import parse_mountinfo

    mounts = parse_mountinfo(done.stdout)
    assert "rw" in mounts["/plain/sub"].options
    assert "ro" in mounts["/deep/sub"].options


def test_bind_source_keeps_its_restrictions(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "vol").mkdir()
    lab.add_mount("/vol", tmp_path / "vol", "bind", "nosuid")
    lab.add_mount("/again", "/proc/self/fd", "bind")
    lab.config["mounts"].pop()
    lab.add_mount("/vol2", tmp_path / "vol", "bind", "ro", "rprivate")
    mounts = lab.mounts()
    assert "nosuid" in mounts["/vol"].options
    assert "ro" in mounts["/vol2"].options


def test_file_bind_makes_its_target(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1 here\n")
    lab.add_mount("/new/dir/hosts", tmp_path / "hosts", "bind")
    assert lab.run("cat", "/new/dir/hosts").out == "127.0.0.1 here\n"
    assert (lab.rootfs / "new/dir/hosts").read_bytes() == b""


def test_directory_on_file_says_so(lab: Lab, tmp_path: Path) -> None:
    lab.add_mount("/etc", "/etc/hostname", "bind")
    result = lab.run("true")
    assert result.code == 1
    assert 'error mounting \\"/etc/hostname\\" to rootfs at \\"/etc\\"' in result.err
    assert "not a directory" in result.err


def test_missing_source_says_so(lab: Lab) -> None:
    lab.add_mount("/vol", "/does/not/exist", "bind")
    result = lab.run("true")
    assert "no such file or directory" in result.err
    assert "/does/not/exist" in result.err


def test_dangling_link_of_the_image_is_followed_inside(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "vol").mkdir()
    (tmp_path / "vol/x").write_text("in")
    (lab.rootfs / "var").mkdir()
    (lab.rootfs / "var/run").symlink_to("/run")
    lab.add_mount("/var/run/app", tmp_path / "vol", "bind")
    assert lab.run("cat", "/run/app/x").out == "in"


@pytest.mark.parametrize(
    ("word", "optional"),
    [("private", r"^$"), ("slave", r"master:\d+"), ("shared", r"shared:\d+"), ("unbindable", "unbindable")],
)
def test_propagation_of_a_mount(lab: Lab, tmp_path: Path, word: str, optional: str) -> None:
    (tmp_path / "vol").mkdir()
    lab.add_mount("/vol", tmp_path / "vol", "rbind", f"r{word}")
    lab.linux["rootfsPropagation"] = "shared"
    setup = f"mount --bind {tmp_path}/vol {tmp_path}/vol && mount --make-shared {tmp_path}/vol"
    lab.process["args"] = ["grep", " /vol ", "/proc/self/mountinfo"]
    lab.write()
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            f'{setup} && exec "$@"',
            "sh",
            *lab.command("run", "-b", str(lab.directory), lab.id),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    fields = done.stdout.split()
    assert re.search(optional, " ".join(fields[6 : fields.index("-")])), done.stdout


def test_volume_propagates_from_the_host_when_asked(lab: Lab, tmp_path: Path) -> None:
    """A mount made on the host's side of an rslave volume appears in the container, and none of the container's
    appears on the host's."""
    (tmp_path / "vol/a").mkdir(parents=True)
    (tmp_path / "vol/b").mkdir()
    lab.add_mount("/vol", tmp_path / "vol", "rbind", "rslave")
    lab.process["args"] = ["sleep", "1000"]
    lab.process["capabilities"] = {k: [*CAPABILITIES, "CAP_SYS_ADMIN"] for k in ("bounding", "effective", "permitted")}
    lab.write()
    inner = "mount -t tmpfs inner /vol/b; cat /proc/self/mountinfo"
    script = f"""
        mount --bind {tmp_path}/vol {tmp_path}/vol && mount --make-shared {tmp_path}/vol
        {" ".join(map(repr, lab.command("run", "-d", "-b", str(lab.directory), lab.id)))} </dev/null >/dev/null 2>&1
        mount -t tmpfs host {tmp_path}/vol/a
        {" ".join(map(repr, lab.command("exec", lab.id, "sh", "-c", inner)))}
        echo ---
        cat /proc/self/mountinfo
    """
    done = subprocess.run(["unshare", "--mount", "bash", "-c", script], capture_output=True, text=True, check=True)
    inside, outside = done.stdout.split("---")
    assert "/vol/a" in inside
    assert "/vol/b" in inside
    assert f"{tmp_path}/vol/b" not in outside


def test_tmpfs_keeps_the_mode_of_its_directory_and_copies_up(lab: Lab) -> None:
    data = lab.rootfs / "data"
    data.mkdir(mode=0o751)
    data.chmod(0o751)
    (data / "sub").mkdir()
    (data / "sub/file").write_text("kept")
    os.chown(data / "sub/file", 7, 8)
    (data / "link").symlink_to("sub/file")
    lab.add_mount("/data", "tmpfs", "tmpcopyup", fstype="tmpfs")
    result = lab.sh("stat -c %a /data; cat /data/link; echo; stat -c %u:%g /data/sub/file; echo new > /data/sub/file")
    assert result.out.split() == ["751", "kept", "7:8"]
    assert (data / "sub/file").read_text() == "kept"


def test_read_only_tmpfs_takes_mount_points_first(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    lab.add_mount("/ro", "tmpfs", "ro", fstype="tmpfs")
    lab.add_mount("/ro/f", tmp_path / "f", "bind")
    result = lab.sh("cat /ro/f; touch /ro/new")
    assert result.out == "x"
    assert "Read-only file system" in result.err


def test_read_only_root(lab: Lab) -> None:
    lab.config["root"]["readonly"] = True
    result = lab.sh("touch /x; touch /dev/shm/y && echo fine")
    assert "Read-only file system" in result.err
    assert result.out == "fine\n"


def test_masked_and_read_only_paths(lab: Lab) -> None:
    (lab.rootfs / "secret").mkdir()
    (lab.rootfs / "secret/key").write_text("s")
    (lab.rootfs / "secret2").mkdir()
    (lab.rootfs / "hidden").write_text("s")
    (lab.rootfs / "fixed").mkdir()
    lab.linux["maskedPaths"] += ["/secret", "/secret2", "/hidden", "/not/there"]
    lab.linux["readonlyPaths"] += ["/fixed", "/nor/this"]
    result = lab.sh(
        "ls -A /secret /secret2; wc -c < /hidden; wc -c < /proc/timer_list; touch /fixed/a; touch /secret/b;"
        "echo 1 > /proc/sys/kernel/panic"
    )
    assert result.out.split() == ["/secret:", "/secret2:", "0", "0"]
    assert result.err.count("Read-only file system") == 3


def test_devices(lab: Lab) -> None:
    lab.linux["devices"] = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6},
        {"path": "/made/pipe", "type": "p", "fileMode": 0o600},
    ]
    lab.linux["resources"] = {"devices": [{"allow": True, "access": "rwm"}]}
    result = lab.sh(
        "stat -c '%F %t:%T %a %u:%g' /dev/null /dev/full /dev/tty /dev/fuse /made/pipe;"
        "for l in fd stdin ptmx; do readlink /dev/$l; done"
    )
    assert result.out.splitlines() == [
        "character special file 1:3 666 0:0",
        "character special file 1:7 666 0:0",
        "character special file 5:0 666 0:0",
        "character special file a:e5 640 5:6",
        "fifo 0:0 600 0:0",
        "/proc/self/fd",
        "/proc/self/fd/0",
        "pts/ptmx",
    ]


# ---------------------------------------------------------------- the process


def test_capabilities(lab: Lab) -> None:
    result = lab.run("cat", "/proc/self/status")
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert status_field(result.out, name) == "00000000a80425fb"
    for name in ("CapInh", "CapAmb"):
        assert int(status_field(result.out, name), 16) == 0


def test_capabilities_of_a_user_are_none(lab: Lab) -> None:
    lab.process["user"] = {"uid": 1000, "gid": 1000}
    result = lab.run("cat", "/proc/self/status")
    assert int(status_field(result.out, "CapEff"), 16) == int(status_field(result.out, "CapPrm"), 16) == 0
    assert status_field(result.out, "CapBnd") == "00000000a80425fb"


def test_ambient_capabilities_when_asked(lab: Lab) -> None:
    names = ["CAP_NET_BIND_SERVICE"]
    lab.process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), names)
    lab.process["user"] = {"uid": 1000, "gid": 1000}
    result = lab.run("cat", "/proc/self/status")
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status_field(result.out, name), 16) == 1 << 10, name


def test_no_capabilities_without_a_list(lab: Lab) -> None:
    del lab.process["capabilities"]
    result = lab.run("cat", "/proc/self/status")
    assert int(status_field(result.out, "CapBnd"), 16) == 0


def test_no_new_privileges(lab: Lab) -> None:
    assert status_field(lab.run("cat", "/proc/self/status").out, "NoNewPrivs") == "0"
    lab.process["noNewPrivileges"] = True
    assert status_field(lab.run("cat", "/proc/self/status").out, "NoNewPrivs") == "1"


@pytest.mark.parametrize("no_new_privileges", [False, True])
def test_seccomp_filter(lab: Lab, no_new_privileges: bool) -> None:
    lab.process["noNewPrivileges"] = no_new_privileges
    lab.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    }
    result = lab.sh("mkdir /x; grep Seccomp: /proc/self/status")
    assert "No space left on device" in result.err
    assert result.out.split() == ["Seccomp:", "2"]


def test_rlimits_within_what_we_have(lab: Lab) -> None:
    lab.process["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    result = lab.sh("ulimit -n; ulimit -H -n; ulimit -c")
    assert result.out.split() == ["100", "200", "0"]


def test_rlimit_that_cannot_be_raised_is_clamped_with_a_warning(lab: Lab) -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lab.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 5000000, "hard": 5000000}]
    script = "ulimit -H -n"
    result = lab.sh(script)
    assert result.code == 0
    if "stays at" in result.err:
        assert result.out.strip() == str(hard)
    else:
        assert result.out.strip() == "5000000"


def test_oom_score_is_set(lab: Lab) -> None:
    lab.process["oomScoreAdj"] = 321
    assert lab.run("cat", "/proc/self/oom_score_adj").out == "321\n"


def test_umask_and_groups(lab: Lab) -> None:
    lab.process["user"] = {"uid": 5, "gid": 6, "additionalGids": [7, 8], "umask": 0o077}
    result = lab.sh("id -u; id -g; id -G; umask")
    assert result.out.split() == ["5", "6", "6", "7", "8", "0077"]
    del lab.process["user"]["umask"]
    assert lab.sh("umask").out.strip() == "0022"


@pytest.mark.parametrize(
    ("user", "add", "identity", "home"),
    [
        ("bob", [], "uid=1000(bob) gid=1000(bob) groups=1000(bob),2000(extra)", "/home/bob"),
        ("bob:wheel", [], "uid=1000(bob) gid=3000(wheel) groups=3000(wheel)", "/home/bob"),
        ("1000", [], "uid=1000(bob) gid=1000(bob) groups=1000(bob),2000(extra)", "/home/bob"),
        ("77", [], "uid=77 gid=0(root) groups=0(root)", "/"),
        ("77:88", ["wheel", "99"], "uid=77 gid=88 groups=88,99,3000(wheel)", "/"),
        ("", [], "uid=0(root) gid=0(root) groups=0(root)", "/root"),
    ],
)
def test_user_by_name(lab: Lab, user: str, add: list[str], identity: str, home: str) -> None:
    lab.process["user"] = {"username": user, "groupAdd": add}
    result = lab.sh("id; echo $HOME")
    assert result.code == 0, result.err
    shown, shown_home = result.out.splitlines()
    assert sorted(re.split("[ ,]", shown.replace("groups=", ""))) == sorted(
        re.split("[ ,]", identity.replace("groups=", ""))
    )
    assert shown_home == home


@pytest.mark.parametrize(
    ("user", "text"),
    [
        ("foo", "unable to find user foo: no matching entries in passwd file"),
        ("1000:foo", "unable to find group foo: no matching entries in group file"),
        ("4294967296", "uids and gids must be in range 0-2147483647"),
        ("2147483648", "uids and gids must be in range 0-2147483647"),
        ("1:4294967296", "uids and gids must be in range 0-2147483647"),
        ("-1", "uids and gids must be in range 0-2147483647"),
        ("0x0", "unable to find user 0x0: no matching entries in passwd file"),
    ],
)
def test_user_that_is_not_there(lab: Lab, user: str, text: str) -> None:
    lab.process["user"] = {"username": user}
    result = lab.run("true")
    assert result.code == 1
    assert text in result.err


def test_home_of_the_environment_stays(lab: Lab) -> None:
    lab.process["env"] = ["PATH=/bin", "HOME=/mine", "A=1", "A=2"]
    assert lab.sh("echo $HOME $A").out == "/mine 2\n"


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("nope", 'exec: "nope": executable file not found in $PATH'),
        ("/x", 'exec: "/x": stat /x: no such file or directory'),
        ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
        ("/etc", 'exec: "/etc": is a directory'),
        ("/etc/passwd/x", 'exec: "/etc/passwd/x": stat /etc/passwd/x: not a directory'),
    ],
)
def test_program_that_is_not_there(lab: Lab, program: str, text: str) -> None:
    result = lab.run(program)
    assert result.code == 1
    assert text in result.err.replace("\\", "")
    assert not os.path.exists(f"/sys/fs/cgroup/pids/wherry-test/{lab.id}")
    assert not (lab.state / lab.id).exists()


def test_program_in_the_wrong_format_is_the_containers_failure(lab: Lab) -> None:
    garbage = lab.rootfs / "bin/garbage"
    garbage.write_text("garbage")
    garbage.chmod(0o755)
    result = lab.run("garbage")
    assert result.code == 255
    assert result.err.endswith("exec /bin/garbage: exec format error\n")


def test_working_directory_is_made(lab: Lab) -> None:
    lab.process["cwd"] = "/made/for/me"
    assert lab.run("sh", "-c", "pwd").out == "/made/for/me\n"
    lab.process["cwd"] = "/etc/passwd"
    assert "mkdir /etc/passwd: not a directory" in lab.run("true").err


def test_working_directory_that_only_the_user_may_enter(lab: Lab) -> None:
    private = lab.rootfs / "private"
    private.mkdir(mode=0o700)
    os.chown(private, 1000, 1000)
    lab.process["user"] = {"uid": 1000, "gid": 1000}
    lab.process["cwd"] = "/private"
    lab.process["capabilities"] = {}
    assert lab.run("sh", "-c", "pwd").out == "/private\n"


def test_sysctls(lab: Lab) -> None:
    lab.linux["sysctl"] = {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net/ipv4/ip_forward": "1",
        "kernel.msgmax": "4096",
    }
    before = Path("/proc/sys/kernel/msgmax").read_text()
    result = lab.sh(
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax"
    )
    assert result.out.split() == ["0", "1", "4096"]
    assert Path("/proc/sys/kernel/msgmax").read_text() == before


def test_sysctl_that_the_kernel_does_not_have(lab: Lab) -> None:
    lab.linux["sysctl"] = {"net.nope": "1"}
    assert "open sysctl net.nope file: no such file or directory" in lab.run("true").err


def test_descriptors_of_the_runtime_do_not_leak(lab: Lab, tmp_path: Path) -> None:
    with open(tmp_path / "secret", "w") as secret:
        os.set_inheritable(secret.fileno(), True)
        lab.process["args"] = ["sh", "-c", "ls -l /proc/self/fd/"]
        lab.write()
        done = subprocess.run(
            lab.command("run", "-b", str(lab.directory), lab.id),
            capture_output=True,
            text=True,
            pass_fds=[secret.fileno()],
        )
    numbers = re.findall(r" (\d+) ->", done.stdout)
    assert numbers == ["0", "1", "2"]
    assert "secret" not in done.stdout


def test_preserved_descriptors(lab: Lab, tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    lab.process["args"] = ["sh", "-c", "echo through >&3"]
    lab.write()
    command = lab.command("run", "--preserve-fds", "1", "-b", str(lab.directory), lab.id)
    subprocess.run(["bash", "-c", f'exec "$@" 3>&{write_end}', "bash", *command], pass_fds=[write_end], check=True)
    assert os.read(read_end, 100) == b"through\n"
    os.close(read_end)
    os.close(write_end)


def test_output_can_be_reopened_by_a_user(lab: Lab) -> None:
    lab.process["user"] = {"uid": 1000, "gid": 1000}
    assert lab.sh("echo again > /dev/stdout").out == "again\n"


def test_signals_are_as_a_fresh_program_expects(lab: Lab) -> None:
    lab.process["args"] = ["cat", "/proc/self/status"]
    lab.write()
    command = lab.command("run", "-b", str(lab.directory), lab.id)
    done = subprocess.run(
        ["sh", "-c", 'trap "" HUP PIPE; exec "$@"', "sh", *command], capture_output=True, text=True, check=True
    )
    for name in ("SigBlk", "SigIgn"):
        assert int(status_field(done.stdout, name), 16) == 0, name


def test_session_is_the_containers_own(lab: Lab) -> None:
    assert lab.sh("cut -d' ' -f6 /proc/self/stat").out.strip() == "1"


def test_scheduler_and_io_priority(lab: Lab) -> None:
    lab.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    lab.process["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE", "priority": 0}
    fields = lab.run("cat", "/proc/self/stat").out.rpartition(")")[2].split()
    assert fields[16] == "7"
    assert fields[38] == "3"  # SCHED_BATCH


def test_apparmor_where_there_is_none_is_an_error(lab: Lab) -> None:
    if os.path.exists("/sys/module/apparmor/parameters/enabled"):
        pytest.skip("the kernel has AppArmor")
    lab.process["apparmorProfile"] = "docker-default"
    result = lab.run("true")
    assert result.code == 1
    assert "apparmor" in result.err


# ---------------------------------------------------------------- hooks


def _hook(directory: Path, name: str, script: str, **more: object) -> dict[str, object]:
    path = directory / f"hook-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"path": str(path), "args": ["hook", name], "env": ["PATH=/usr/bin:/bin"], **more}


def test_hooks_run_in_order_and_are_told_the_state(lab: Lab, tmp_path: Path) -> None:
    log = tmp_path / "hooks.log"
    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    script = f'printf "$1 " >> {log}; cat >> {log}; readlink /proc/self/ns/uts >> {log}'
    lab.config["hooks"] = {kind: [_hook(tmp_path, kind, script)] for kind in kinds}
    lab.config["annotations"] = {"a": "b"}
    assert lab.run("true").code == 0
    lines = log.read_text().splitlines()
    assert [line.split(" ", 1)[0] for line in lines] == list(kinds)
    states = [json.loads(line.split(" ", 1)[1].rpartition("}")[0] + "}") for line in lines]
    assert [state["id"] for state in states] == [lab.id] * 5
    assert [state["status"] for state in states] == ["creating", "creating", "creating", "running", "stopped"]
    assert states[0]["bundle"] == str(lab.directory)
    assert states[0]["annotations"] == {"a": "b"}
    host = os.readlink("/proc/self/ns/uts")
    assert [line.endswith(host) for line in lines] == [True, True, False, True, True]


def test_start_container_hook_runs_inside(lab: Lab) -> None:
    lab.config["hooks"] = {
        "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "cat > /told; echo >> /told; pwd >> /told"]}]
    }
    result = lab.run("cat", "/told")
    assert json.loads(result.out.splitlines()[0])["status"] == "created"


def test_failing_hook_fails_the_container(lab: Lab, tmp_path: Path) -> None:
    lab.config["hooks"] = {"createRuntime": [_hook(tmp_path, "bad", "echo reason >&2; exit 3")]}
    result = lab.run("true")
    assert result.code == 1
    assert "error running createRuntime hook #0: exit status 3, stderr: reason" in result.err
    assert not (lab.state / lab.id).exists()


def test_hook_that_takes_too_long_is_killed(lab: Lab, tmp_path: Path) -> None:
    lab.config["hooks"] = {"createRuntime": [_hook(tmp_path, "slow", "exec sleep 100", timeout=1)]}
    result = lab.run("true")  # which is given 30 s
    assert "did not end within 1 s" in result.err


# ---------------------------------------------------------------- the terminal


def test_terminal(lab: Lab, tmp_path: Path) -> None:
    lab.process["terminal"] = True
    lab.process["consoleSize"] = {"height": 31, "width": 77}
    lab.process["args"] = [
        "sh",
        "-c",
        "tty; stat -c %t:%T /dev/console; test -t 0 && test -t 2 && echo terminal; cat /proc/self/mountinfo",
    ]
    lab.write()
    path = str(tmp_path / "console.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        created = lab.cli("create", "-b", str(lab.directory), "--console-socket", path, lab.id)
        assert created.code == 0, created.err
        connection, _ = listener.accept()
        with connection:
            _, (master,), _, _ = socket.recv_fds(connection, 100, 1)
    assert os.get_terminal_size(master) == (77, 31)
    assert lab.cli("start", lab.id).code == 0
    output = b""
    try:
        while chunk := os.read(master, 4096):
            output += chunk
    except OSError:
        pass  # EIO: nobody holds the terminal any more
    os.close(master)
    lines = output.decode().replace("\r", "").splitlines()
    assert lines[:3] == ["/dev/pts/0", "88:0", "terminal"]
    assert any(" /dev/console " in line and "devpts" in line for line in lines)


def test_terminal_needs_somebody_to_hold_it(lab: Lab) -> None:
    lab.process["terminal"] = True
    assert "console socket" in lab.create("true").err
