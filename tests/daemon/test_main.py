"""The daemon as a process: what it says, refuses and survives."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.e2e.host import Host


def wherryd(*words):
    return subprocess.run([sys.executable, "-m", "wherry.daemon.main", *words], capture_output=True, text=True)


def test_version_help_and_validate():
    assert wherryd("--version").stdout.startswith("wherryd version ")
    assert "--data-root" in wherryd("--help").stdout
    assert wherryd("--validate").stdout == "configuration OK\n"


def test_bad_usage_and_bad_configuration(tmp_path):
    unknown = wherryd("--nope")
    assert (unknown.returncode, unknown.stderr) == (125, "unknown flag: --nope\n")
    (tmp_path / "daemon.json").write_text('{"nope": 1}')
    bad = wherryd("--config-file", str(tmp_path / "daemon.json"))
    assert bad.returncode == 1
    assert "don't match any configuration option: nope" in bad.stderr
    (tmp_path / "file").touch()
    blocked = wherryd("--data-root", str(tmp_path / "file"), "--exec-root", str(tmp_path), "--pidfile", "")
    assert blocked.returncode == 1
    assert blocked.stderr == f"failed to start daemon: {tmp_path}/file: File exists\n"


def test_one_daemon_for_one_data_root_and_clean_ends():
    host = Host().start()
    try:
        flags = ("--data-root", str(host.root / "data"), "--exec-root", str(host.root / "other"), "--pidfile", "")
        second = wherryd("--host", f"unix://{host.root}/other.sock", *flags)
        assert second.returncode == 1
        assert f"held by another daemon (pid {host.daemon.pid})" in second.stderr
        assert not (host.root / "other.sock").exists()
        flags = ("--data-root", str(host.root / "other"), "--exec-root", str(host.root / "run"), "--pidfile", "")
        third = wherryd("--host", f"unix://{host.root}/other.sock", *flags)
        assert third.returncode == 1
        assert f"(pid {host.daemon.pid}); stop it or use another --exec-root" in third.stderr
        flags = ("--data-root", str(host.root / "other"), "--pidfile", str(host.root / "pid"))
        fourth = wherryd("--host", f"unix://{host.root}/other.sock", *flags)
        assert fourth.returncode == 1
        assert f"process with PID {host.daemon.pid} is still running" in fourth.stderr
        assert (host.root / "pid").read_text() == f"{host.daemon.pid}\n"
        assert host.stop(signal.SIGTERM) == 0
        assert not (host.root / "wherry.sock").exists()
        assert not (host.root / "pid").exists()
    finally:
        host.close()


def test_reload_takes_new_defaults_and_keeps_what_needs_a_restart():
    host = Host()
    config = host.root / "daemon.json"
    config.write_text('{"labels": ["stage=one"], "mtu": 1400}')
    host.flags += ("--config-file", str(config))
    host.start()
    try:
        assert host.out("info", "--format", "{{.Labels}}") == "[stage=one]"
        config.write_text('{"labels": ["stage=two"], "mtu": 1300}')
        host.daemon.send_signal(signal.SIGHUP)
        host.wait_until(lambda: "configuration reloaded" in host.log(), "the reload")
        assert host.out("info", "--format", "{{.Labels}}") == "[stage=two]"
        assert "these need a restart to change: mtu" in host.log()
        config.write_text("{")
        host.daemon.send_signal(signal.SIGHUP)
        host.wait_until(lambda: "configuration not reloaded" in host.log(), "the refusal")
        assert host.answers()
    finally:
        host.close()


def test_stacks_on_request_and_descriptor_limits():
    host = Host().start()
    try:
        host.daemon.send_signal(signal.SIGUSR1)
        host.wait_until(lambda: "most recent call first" in host.log(), "the stacks")
        limits = Path(f"/proc/{host.daemon.pid}/limits").read_text()
        soft, hard = next(line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files"))
        assert soft == hard
        host.import_busybox()
        inside = host.out("run", "--rm", "busybox", "sh", "-c", "ulimit -Sn")
        assert inside == subprocess.run(["sh", "-c", "ulimit -Sn"], capture_output=True, text=True).stdout.strip()
    finally:
        host.close()


LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "wherry.daemon.main", *sys.argv[2:]])
"""


def test_socket_activation_and_readiness(tmp_path):
    host = Host()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(host.root / "wherry.sock"))
    listener.listen(8)
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(60)
    roots = ("--data-root", f"{host.root}/data", "--exec-root", f"{host.root}/run", "--pidfile=")
    with open(host.root / "wherryd.log", "ab") as log:
        host.daemon = subprocess.Popen(
            [
                "nsenter",
                f"--net=/run/netns/{host.netns}",
                sys.executable,
                "-c",
                LAUNCH,
                str(listener.fileno()),
                "--host",
                "fd://",
                *roots,
            ],
            env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify"), "LISTEN_FDS": "1"},
            pass_fds=(listener.fileno(),),
            stderr=log,
        )
    try:
        assert manager.recv(1000).startswith(b"READY=1")
        assert host.answers()
        host.stop()
        assert manager.recv(1000) == b"STOPPING=1"
        assert (host.root / "wherry.sock").exists()  # the manager's, not ours to remove
        (host.root / "wherry.sock").unlink()
    finally:
        listener.close()
        manager.close()
        host.close()
