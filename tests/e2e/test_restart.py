"""The daemon stops, dies and comes back while containers run: nothing of theirs is lost."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from .host import connected

COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_containers_go_on_with_logs_and_ports(own_host, how):
    host = own_host
    host.docker("run", "-d", "--name", "counter", "busybox", "sh", "-c", COUNT)
    host.docker("run", "-d", "--name", "web", "-p", "8080:80", "busybox", "httpd", "-f", "-p", "80", "-h", "/www")
    pids = [host.inspect(n)["State"]["Pid"] for n in ("counter", "web")]
    host.wait_until(lambda: host.run("curl", "-s", "http://127.0.0.1:8080/", check=False).stdout, "an answer")
    host.stop(how)
    assert host.run("curl", "-sS", "http://127.0.0.1:8080/").stdout == "hello from inside\n"
    host.start()
    assert [host.inspect(n)["State"]["Pid"] for n in ("counter", "web")] == pids
    assert host.run("curl", "-sS", "http://127.0.0.1:8080/").stdout == "hello from inside\n"
    assert host.out("exec", "counter", "echo", "in") == "in"
    host.wait_until(lambda: len(host.out("logs", "counter").split()) > 20, "some more lines")
    host.docker("kill", "counter")
    numbers = [int(line) for line in host.out("logs", "counter").split()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_an_exit_while_the_daemon_is_away_is_kept(own_host):
    host = own_host
    script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"
    host.docker("run", "-d", "--name", "seven", "busybox", "sh", "-c", script)
    host.docker("run", "-d", "--rm", "--name", "gone", "busybox", "sleep", "1000")
    host.wait_until(lambda: host.out("logs", "seven") == "up", "the trap")
    pids = {name: host.inspect(name)["State"]["Pid"] for name in ("seven", "gone")}
    host.stop(signal.SIGKILL)
    os.kill(pids["seven"], signal.SIGTERM)
    os.kill(pids["gone"], signal.SIGKILL)
    host.wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.values()), "the end of both")
    host.start()
    host.wait_until(lambda: host.inspect("seven")["State"]["Status"] == "exited", "the notice")
    state = host.inspect("seven")["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (7, False)
    host.wait_until(lambda: "gone" not in host.out("ps", "-a", "--format", "{{.Names}}"), "the removal of --rm")


def test_an_attached_client_outlives_the_daemon(own_host):
    host = own_host
    # `docker run` gives up on its own when its wait request breaks; `docker attach` looks at the wait afterwards
    host.docker("run", "-di", "--name", "talk", "busybox", "cat")
    client = host.popen("docker", "attach", "talk", stdin=-1)
    client.stdin.write(b"one\n")
    client.stdin.flush()
    assert client.stdout.readline() == b"one\n"
    host.stop(signal.SIGKILL)
    client.stdin.write(b"two\n")
    client.stdin.flush()
    assert client.stdout.readline() == b"two\n"
    host.start()
    client.kill()
    client.communicate()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_our_client_gets_the_exit_code_of_a_container_that_outlives_the_daemon(own_host, how):
    """Docker's asks but once. One container ends after the restart, the other while the daemon is away."""
    host = own_host
    wherry = (sys.executable, "-m", "wherry.cli.main")
    late = ("sh", "-c", "echo up; read line; echo $line; exit 7")
    early = ("sh", "-c", "sleep 1000 & trap 'kill $!; exit 8' TERM; echo up; wait")
    host.docker("create", "-i", "--name", "again", "busybox", *late)
    run = host.popen(*wherry, "run", "-i", "--name", "late", "busybox", *late, stdin=-1)
    start = host.popen(*wherry, "start", "-ai", "again", stdin=-1)
    assert [client.stdout.readline() for client in (run, start)] == [b"up\n"] * 2
    host.docker("run", "-d", "--name", "early", "busybox", *early)
    wait = host.popen(*wherry, "wait", "late", "early")
    host.wait_until(lambda: "up" in host.out("logs", "early") and connected(wait), "the client")
    ending = host.inspect("early")["State"]["Pid"]
    host.stop(how)
    os.kill(ending, signal.SIGTERM)
    host.start()
    for client in (run, start):
        out, _ = client.communicate(b"done\n", timeout=60)
        assert (client.returncode, out) == (7, b"done\n")
    assert wait.communicate(timeout=60) == (b"7\n8\n", b"")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_our_clients_get_exit_codes_of_what_ends_while_the_daemon_is_away(own_host, how):
    host = own_host
    wherry = (sys.executable, "-m", "wherry.cli.main")
    program = ("sh", "-c", "echo up; read line; echo $line; exit 9")
    run = host.popen(*wherry, "run", "-i", "--rm", "--name", "gone", "busybox", *program, stdin=-1)
    assert run.stdout.readline() == b"up\n"
    host.docker("run", "-d", "--name", "stays", "busybox", "sleep", "1000")
    execs = [host.popen(*wherry, "exec", "-i", "stays", *program, stdin=-1) for _ in range(2)]
    assert [client.stdout.readline() for client in execs] == [b"up\n"] * 2
    wait = host.popen(*wherry, "wait", "gone")
    host.wait_until(lambda: connected(wait), "the client")
    identifiers = json.loads(host.out("inspect", "--format", "{{json .ExecIDs}}", "stays"))
    host.stop(how)
    for client in (run, execs[0]):
        client.stdin.write(b"done\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"done\n"
    host.start()
    for client, rest in ((run, b""), (execs[0], b""), (execs[1], b"done\n")):
        out, _ = client.communicate(rest, timeout=30)
        assert (client.returncode, out) == (9, rest)
    assert wait.communicate(timeout=30) == (b"9\n", b"")
    for identifier in identifiers:
        status, told = host.api("GET", f"/exec/{identifier}/json")
        assert (status, told["Running"], told["ExitCode"]) == (200, False, 9)
        assert told["ProcessConfig"]["entrypoint"] == "sh"


def test_a_monitor_that_dies_takes_its_container_with_it_and_is_noticed(own_host):
    host = own_host
    host.docker("run", "-d", "--name", "orphan", "busybox", "sleep", "1000")
    pid = host.inspect("orphan")["State"]["Pid"]
    monitor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(monitor, signal.SIGKILL)
    host.wait_until(lambda: host.inspect("orphan")["State"]["Status"] == "exited", "the notice")
    assert host.inspect("orphan")["State"]["ExitCode"] == 137
    host.docker("start", "orphan")
    assert host.inspect("orphan")["State"]["Running"] is True


LINES = 20_000


def test_what_is_written_while_the_daemon_is_away_is_all_there(own_host):
    """Much more than a pipe holds, of several at once: nobody waits, and nothing is lost."""
    host = own_host
    names = [f"writer{number}" for number in range(2)]
    script = f"until [ -e /go ]; do sleep 0.02; done; seq {LINES}; exec sleep 1000"
    for name in names:
        host.docker("run", "-d", "--name", name, "busybox", "sh", "-c", script)
    logs = [Path(host.inspect(name)["LogPath"]) for name in names]
    pids = [host.inspect(name)["State"]["Pid"] for name in names]
    host.stop(signal.SIGKILL)
    for pid in pids:
        Path(f"/proc/{pid}/root/go").touch()
    host.wait_until(lambda: all(f'"{LINES}\\n"' in log.read_text() for log in logs), "the last line of each")
    host.start()
    assert [host.inspect(name)["State"]["Pid"] for name in names] == pids
    for name in names:
        assert host.out("logs", name).split() == [str(number + 1) for number in range(LINES)]


def test_a_container_whose_every_guardian_is_killed_can_be_started_again(own_host):
    """Daemon, monitor and the program itself, one after the other, as by `kill -9` of everything."""
    host = own_host
    host.docker("run", "-d", "--name", "struck", "-p", "8080:80", "-v", "/data", "busybox", "sleep", "1000")
    before = host.inspect("struck")
    pid = before["State"]["Pid"]
    monitor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    host.stop(signal.SIGKILL)
    for victim in (monitor, pid):
        os.kill(victim, signal.SIGKILL)
    host.wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the program")
    host.start()
    host.wait_until(lambda: host.inspect("struck")["State"]["Status"] == "exited", "the notice")
    assert host.inspect("struck")["State"]["ExitCode"] == 137
    host.docker("start", "struck")
    assert host.inspect("struck")["Mounts"] == before["Mounts"]
    host.docker("rm", "-f", "-v", "struck")
    host.wait_until(lambda: not host.leaks(), f"the end of {host.leaks()}")


def test_a_daemon_that_stood_still_acts_once_on_what_happened(own_host):
    host = own_host
    script = "echo run; until [ -e /go ]; do sleep 0.02; done; rm /go; exit 3"
    for name, policy in (("once", "no"), ("again", "on-failure"), ("gone", "")):
        options = ["--restart", policy] if policy else ["--rm"]
        host.docker("run", "-d", "--name", name, *options, "busybox", "sh", "-c", script)
    pids = {name: host.inspect(name)["State"]["Pid"] for name in ("once", "again", "gone")}
    os.kill(host.daemon.pid, signal.SIGSTOP)
    for pid in pids.values():
        Path(f"/proc/{pid}/root/go").touch()
    host.wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.values()), "the end of all three")
    os.kill(host.daemon.pid, signal.SIGCONT)
    host.wait_until(lambda: host.out("logs", "again") == "run\nrun", "the second run")
    host.wait_until(lambda: "gone" not in host.out("ps", "-a", "--format", "{{.Names}}"), "the removal of --rm")
    assert host.inspect("once")["State"]["ExitCode"] == 3
    again = host.inspect("again")
    assert (again["RestartCount"], again["State"]["Running"]) == (1, True)
