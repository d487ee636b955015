"""`docker run` and what surrounds it, through the real docker command."""

import hashlib
import json
import signal
import time

import pytest


def test_output_and_exit_code(host):
    result = host.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3", check=False)
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 3)


def test_a_signal_is_128_plus_n(host):
    killed = host.docker("run", "--rm", "--init", "busybox", "sh", "-c", "kill -TERM $$; sleep 5", check=False)
    assert killed.returncode == 143
    result = host.docker("run", "--rm", "--init", "busybox", "sh", "-c", "kill -KILL $$", check=False)
    assert result.returncode == 137


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["busybox", "nope"], 127, 'exec: "nope": executable file not found in $PATH'),
        (["busybox", "/nope"], 127, "no such file or directory"),
        (["busybox", "/etc/passwd"], 126, "permission denied"),
        (["--user", "ghost", "busybox", "true"], 125, "unable to find user ghost: no matching entries in passwd file"),
        (["nosuchimage:1", "true"], 125, "nosuchimage:1"),
        (["--memory", "1m", "busybox", "true"], 125, "Minimum memory limit allowed is 6MB"),
        (["--nope", "busybox"], 125, "unknown flag: --nope"),
        (["-w", "/etc/passwd", "busybox", "true"], 125, "not a directory"),
        (["--cap-add", "NOPE", "busybox", "true"], 125, "NOPE"),
        (["--network", "nope", "busybox", "true"], 125, "network nope not found"),
    ],
)
def test_what_can_not_run(host, words, code, text):
    before = host.out("ps", "-aq")
    result = host.docker("run", "--rm", *words, check=False)
    assert text in result.stderr
    assert result.returncode == code
    host.wait_until(lambda: host.out("ps", "-aq") == before, "the removal of what could not run")


def test_start_failure_is_recorded(host, name):
    assert host.docker("run", "--name", name, "busybox", "nope", check=False).returncode == 127
    state = host.inspect(name)["State"]
    assert state["Status"] == "created"
    assert state["ExitCode"] == 127
    assert "executable file not found" in state["Error"]


def test_stdin_arrives_whole_and_ends(host):
    payload = b"0123456789abcdef" * 65536 * 8
    result = host.docker("run", "--rm", "-i", "busybox", "sha256sum", input=payload, text=False)
    assert result.stdout.split()[0].decode() == hashlib.sha256(payload).hexdigest()


def test_a_large_output_arrives_whole(host):
    result = host.docker("run", "--rm", "busybox", "sh", "-c", "yes 0123456789 | head -c 20000000", text=False)
    assert len(result.stdout) == 20_000_000
    assert result.stdout[:11] == b"0123456789\n"


def test_detached_then_seen_logged_and_removed(host, name):
    identity = host.out(
        "run", "-d", "--name", name, "--label", "a=b", "busybox", "sh", "-c", "echo started; sleep 1000"
    )
    assert len(identity) == 64
    row = host.out(
        "ps", "--filter", f"name={name}", "--format", "{{.Image}}|{{.Names}}|{{.State}}|{{.Command}}|{{.Labels}}"
    )
    assert row == f'busybox|{name}|running|"sh -c \'echo started…"|a=b'
    host.wait_until(lambda: host.out("logs", name) == "started", "the log line")
    assert host.inspect(identity[:12])["Id"] == identity
    assert host.docker("rm", name, check=False).returncode == 1
    host.docker("rm", "-f", name)
    assert "No such" in host.docker("inspect", name, check=False).stderr


def test_rm_flag_removes_and_frees_the_name(host):
    for _ in range(2):
        host.docker("run", "--rm", "--name", "again", "busybox", "true")
    assert "again" not in host.out("ps", "-a", "--format", "{{.Names}}")


def test_a_name_is_taken_once(host, name):
    first = host.out("create", "--name", name, "busybox", "true")
    result = host.docker("create", "--name", name, "busybox", "true", check=False)
    assert f'The container name "/{name}" is already in use by container "{first}"' in result.stderr


def test_tty_has_a_size_and_one_stream(host):
    # script(1) gives the client a terminal of its own
    # An older client tells the size after the start.
    script = "tty; until stty size; do sleep 0.05; done; echo err >&2"
    command = f"stty rows 33 cols 99; docker run --rm -it busybox sh -c '{script}'"
    client = host.popen("script", "-qec", command, "/dev/null", stdin=-1)
    lines = client.stdout.read().decode().replace("\r", "").split("\n")
    client.communicate()
    assert any(line.endswith("/dev/pts/0") for line in lines)
    assert "33 99" in lines
    assert "err" in lines


def test_environment_user_directory_hostname(host):
    script = "env | sort; id -u; id -g; pwd; hostname; cat /etc/hosts"
    words = ("--rm", "-e", "A=1", "-u", "65534:65534", "-w", "/tmp/new", "-h", "boat", "--add-host", "db:10.9.8.7")
    lines = host.out("run", *words, "busybox", "sh", "-c", script).split("\n")
    assert {"A=1", "HOME=/", "HOSTNAME=boat", "65534", "/tmp/new", "boat"} <= set(lines)
    assert "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in lines
    assert "10.9.8.7\tdb" in lines


def test_limits_are_in_the_kernel(host, name):
    host.docker(
        *("run", "-d", "--name", name, "--memory", "64m", "--pids-limit", "50", "--cpus", "0.5"),
        *("--ulimit", "nofile=100:200", "--shm-size", "1m", "busybox", "sleep", "1000"),
    )
    limits = host.cgroup_files(host.inspect(name)["State"]["Pid"])
    assert limits("memory/memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert limits("pids/pids.max", "pids.max") == "50"
    assert limits("cpu/cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    assert host.out("exec", name, "sh", "-c", "ulimit -Sn; ulimit -Hn").split() == ["100", "200"]


def test_out_of_memory_is_told(host, name):
    words = ("run", "--name", name, "--memory", "16m", "--memory-swap", "16m", "busybox")
    result = host.docker(*words, "sh", "-c", "head -c 64000000 /dev/zero | tail", check=False)
    state = host.inspect(name)["State"]
    assert state["OOMKilled"] is True
    assert result.returncode == state["ExitCode"]


def test_read_only_tmpfs_and_binds(host, tmp_path):
    (tmp_path / "file").write_text("from the host")
    script = "cat /data/file; touch /x; touch /scratch/y && echo scratch; touch /data/z"
    words = ("--rm", "--read-only", "--tmpfs", "/scratch", "-v", f"{tmp_path}:/data:ro", "busybox", "sh", "-c", script)
    result = host.docker("run", *words, check=False)
    assert result.stdout == "from the hostscratch\n"
    assert result.stderr.count("Read-only file system") == 2


def test_cidfile_and_ctrl_c(host, tmp_path):
    client = host.popen(
        "docker", "run", "--rm", "--cidfile", str(tmp_path / "id"), "--init", "busybox", "sleep", "1000"
    )
    identity = host.wait_until(lambda: (tmp_path / "id").exists() and (tmp_path / "id").read_text(), "the cidfile")
    host.wait_until(lambda: host.out("ps", "-q", "--no-trunc", "-f", f"id={identity}"), "the start")
    client.send_signal(signal.SIGINT)
    assert client.wait(60) == 130
    client.communicate()


def test_stop_asks_then_kills(host, name):
    host.docker(
        *("run", "-d", "--name", name, "busybox", "sh", "-c"),
        "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done",
    )
    host.wait_until(lambda: host.out("logs", name) == "up", "the trap")
    host.docker("stop", "-t", "60", name)
    assert host.inspect(name)["State"]["ExitCode"] == 7
    assert host.out("logs", name) == "up\nbye"
    host.docker("start", name)
    host.docker("kill", name)
    assert host.inspect(name)["State"]["ExitCode"] == 137
    assert host.docker("kill", name, check=False).returncode == 1


def test_restart_pause_rename_wait_top(host, name):
    host.docker("run", "-d", "--name", name, "--init", "busybox", "sleep", "1000")
    first = host.inspect(name)["State"]["Pid"]
    host.docker("restart", "-t", "1", name)
    assert host.inspect(name)["State"]["Pid"] != first
    host.docker("pause", name)
    assert host.out("ps", "--filter", f"name={name}", "--format", "{{.Status}}").endswith("(Paused)")
    host.docker("unpause", name)
    titles, *rows = host.out("top", name).split("\n")
    assert titles.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert any(row.endswith("sleep 1000") for row in rows)
    host.docker("rename", name, f"{name}-new")
    waiter = host.popen("docker", "wait", f"{name}-new")
    time.sleep(0.2)
    host.docker("kill", "-s", "TERM", f"{name}-new")
    assert waiter.communicate(timeout=60)[0] == b"143\n"
    host.docker("rename", f"{name}-new", name)


def test_exec(host, name):
    host.docker("run", "-d", "--name", name, "-e", "A=1", "busybox", "sleep", "1000")
    result = host.docker("exec", "-i", name, "sh", "-c", "cat; echo $A $B; exit 5", input="in\n", check=False)
    assert (result.stdout, result.returncode) == ("in\n1\n", 5)
    assert (
        host.out("exec", "-e", "B=2", "-w", "/tmp", "-u", "nobody", name, "sh", "-c", "echo $B; pwd; id -u")
        == "2\n/tmp\n65534"
    )
    failing = host.docker("exec", name, "nope", check=False)
    assert failing.returncode == 127
    assert "executable file not found" in failing.stdout + failing.stderr
    host.docker("stop", "-t", "0", name)
    stopped = host.docker("exec", name, "true", check=False)
    assert "is not running" in stopped.stderr
    assert stopped.returncode == 1


def test_attach_sees_new_output_and_detaches_without_harm(host, name):
    host.docker("run", "-dit", "--name", name, "busybox", "sh")
    client = host.popen("script", "-qec", f"docker attach {name}", "/dev/null", stdin=-1)
    client.stdin.write(b"echo $((40+2))\n")
    client.stdin.flush()
    output = b""
    while b"42\r\n" not in output:
        output += client.stdout.read1()
    client.stdin.write(b"\x10\x11")
    client.stdin.flush()
    client.communicate(timeout=60)
    assert host.inspect(name)["State"]["Running"] is True


def test_logs_options(host, name):
    host.docker("run", "--name", name, "busybox", "sh", "-c", "for i in $(seq 20); do echo $i; done; echo err >&2")
    assert host.out("logs", "--tail", "3", name) in ("19\n20", "18\n19\n20")
    stamped = (
        host.out("logs", "--timestamps", "--tail", "1", name) or host.docker("logs", "-t", "--tail", "2", name).stdout
    )
    stamp = stamped.split()[0]
    assert len(stamp) == 30
    assert stamp.endswith("Z")
    assert host.out("logs", "--since", "2099-01-01T00:00:00Z", name) == ""
    assert host.docker("logs", name).stderr == "err\n"


def test_follow_ends_with_the_container(host, name):
    host.docker("run", "-d", "--name", name, "busybox", "sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done")
    assert host.out("logs", "-f", name).split() == ["1", "2", "3", "4", "5"]


def test_events_tell_the_story(host, name):
    since = f"{time.time():.3f}"
    host.docker("run", "--name", name, "busybox", "sh", "-c", "exit 4", check=False)
    host.docker("rm", name)
    text = host.out("events", "--since", since, "--until", f"{time.time() + 0.2:.3f}", "--format", "{{json .}}")
    events = [json.loads(line) for line in text.split("\n")]
    mine = [e for e in events if e["Actor"]["Attributes"].get("name") == name]
    actions = [e["Action"] for e in mine if e["Type"] == "container"]
    assert [a for a in actions if a != "attach"] == ["create", "start", "die", "destroy"]
    assert next(e for e in mine if e["Action"] == "die")["Actor"]["Attributes"]["exitCode"] == "4"


def test_a_shared_ipc_namespace_shares_dev_shm(host, name):
    other = f"{name}-x"
    host.docker("run", "-d", "--name", name, "--ipc", "shareable", "--shm-size", "1m", "busybox", "sleep", "1000")
    try:
        host.docker("exec", name, "sh", "-c", "echo hello > /dev/shm/note")
        host.docker("run", "-d", "--name", other, "--ipc", f"container:{name}", "busybox", "sleep", "1000")
        assert host.out("exec", other, "cat", "/dev/shm/note") == "hello"
        host.docker("exec", other, "sh", "-c", "echo back > /dev/shm/note")
        assert host.out("exec", name, "cat", "/dev/shm/note") == "back"
        links = [host.out("exec", one, "readlink", "/proc/1/ns/ipc") for one in (name, other)]
        assert links[0] == links[1]
        full = host.docker("exec", other, "dd", "if=/dev/zero", "of=/dev/shm/big", "bs=1M", "count=3", check=False)
        assert "No space left on device" in full.stderr
        host.docker("rm", "-f", name)  # what is shared lives as long as anybody has it
        assert host.out("exec", other, "cat", "/dev/shm/note") == "back"
    finally:
        host.docker("rm", "-f", other)
