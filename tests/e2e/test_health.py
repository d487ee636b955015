"""Health checks, as the real docker CLI asks for them and shows them; what is expected is what Docker 28.5 does."""

import json
import os
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest


def run(host, name: str, *flags: str, command: tuple[str, ...] = ("sleep", "1000")) -> None:
    host.docker("run", "-d", "--name", name, *flags, "busybox", *command)


def health(host, name: str) -> dict:
    return host.inspect(name)["State"]["Health"]


def until_status(host, name: str, status: str) -> dict:
    return host.wait_until(lambda: (h := health(host, name))["Status"] == status and h, f"{name} {status}")


def probed(host, name: str, times: int = 1) -> list[dict]:
    return host.wait_until(lambda: len(log := health(host, name)["Log"]) >= times and log, f"{times} probes of {name}")


def story(host, name: str) -> list[tuple[str, dict]]:
    """The container's events so far: action and attributes."""
    since = ["--since", "1", "--until", str(time.time())]
    lines = host.out("events", *since, "--filter", f"container={name}", "--format", "{{json .}}").splitlines()
    return [(e["Action"], e["Actor"]["Attributes"]) for e in map(json.loads, lines)]


def processes(host, name: str) -> list[str]:
    return [line.split(None, 7)[7] for line in host.out("top", name).splitlines()[1:]]


def test_a_healthy_container(host, name):
    check = "until [ -e /go ]; do sleep 0.05; done; echo out; echo err >&2"
    run(host, name, "--health-cmd", check, "--health-interval", "100ms")
    assert health(host, name) == {"Status": "starting", "FailingStreak": 0, "Log": []}
    assert host.out("ps", "--filter", f"name={name}", "--format", "{{.Status}}").endswith("(health: starting)")
    host.docker("cp", "/etc/hostname", f"{name}:/go")
    until_status(host, name, "healthy")
    assert host.out("ps", "--filter", f"name={name}", "--format", "{{.Status}}").endswith(" (healthy)")
    result = health(host, name)["Log"][0]
    assert result["ExitCode"] == 0
    assert sorted(result["Output"].split()) == ["err", "out"]
    assert result["Start"] < result["End"]
    assert host.out("ps", "-q", "--filter", "health=healthy", "--filter", f"name={name}")
    assert not host.out("ps", "-q", "--filter", "health=unhealthy", "--filter", f"name={name}")
    line = f"/bin/sh -c {check}"
    events = [event for event in story(host, name) if event[0] != "extract-to-dir"]
    assert [action for action, _ in events[:6]] == [
        *("create", "start", f"exec_create: {line}", f"exec_start: {line}", "exec_die", "health_status: healthy"),
    ]
    ids = {attributes["execID"] for _, attributes in events[2:5]}
    assert len(ids) == 1
    assert events[4][1]["exitCode"] == "0"
    assert sum(action.startswith("health_status") for action, _ in events) == 1


def test_unhealthy_after_so_many_failures_and_back(host, name):
    flags = ("--health-cmd", "[ -e /ok ] || exit 3", "--health-interval", "100ms", "--health-retries", "2")
    run(host, name, *flags)
    found = until_status(host, name, "unhealthy")
    assert found["FailingStreak"] >= 2
    assert {r["ExitCode"] for r in found["Log"]} == {3}
    before = [action for action, _ in story(host, name)]
    assert before[: before.index("health_status: unhealthy")].count("exec_die") == 2
    probed(host, name, 5)
    assert host.wait_until(lambda: health(host, name)["FailingStreak"] > 6, "more failures")
    assert len(health(host, name)["Log"]) == 5
    host.docker("exec", name, "touch", "/ok")
    assert until_status(host, name, "healthy")["FailingStreak"] == 0


def test_start_period_and_interval(host, name):
    """Failures in the start period don't count, and the start interval holds from the start until first healthy."""
    flags = ("--health-interval", "1h", "--health-start-period", "1h", "--health-start-interval", "100ms")
    run(host, name, "--health-cmd", "[ -e /ok ]", "--health-retries", "1", *flags)
    log = probed(host, name, 3)
    assert {r["ExitCode"] for r in log} == {1}
    assert health(host, name)["Status"] == "starting"
    assert health(host, name)["FailingStreak"] == 0
    host.docker("exec", name, "touch", "/ok")
    until_status(host, name, "healthy")
    count = len([a for a, _ in story(host, name) if a == "exec_die"])
    time.sleep(0.5)
    assert len([a for a, _ in story(host, name) if a == "exec_die"]) == count  # the long interval holds now


def test_after_the_start_period_failures_count(host, name):
    flags = ("--health-start-period", "300ms", "--health-start-interval", "100ms", "--health-interval", "100ms")
    run(host, name, "--health-cmd", "false", "--health-retries", "2", *flags)
    until_status(host, name, "unhealthy")
    assert [a for a, _ in story(host, name)].count("exec_die") > 2


DAEMONS = "echo begin; sleep 7771 & (setsid sleep 7772 &) ; setsid sh -c 'sleep 7773 & sleep 7774' & sleep 7775"


def test_a_probe_that_hangs_is_killed_whole(host, name):
    flags = ("--health-interval", "200ms", "--health-timeout", "1s", "--health-retries", "1")
    run(host, name, "--health-cmd", DAEMONS, *flags)
    host.wait_until(lambda: "sleep 7774" in processes(host, name), "the probe's daemons")
    found = until_status(host, name, "unhealthy")
    assert found["Log"][0]["ExitCode"] == -1
    assert found["Log"][0]["Output"].startswith("Health check exceeded timeout (1s)")
    died = [attributes for action, attributes in story(host, name) if action == "exec_die"]
    assert died[0]["exitCode"] == "137"
    log = probed(host, name, 3)
    assert any(each["Output"].endswith(": begin\n") for each in log), "what it wrote before is kept"
    left = processes(host, name)
    # Of those that ended nothing is left, however it hid; of the one that may run now there is one of each.
    assert all(left.count(f"sleep {number}") <= 1 for number in range(7771, 7776)), left


def test_a_silent_probe_that_hangs(host, name):
    run(host, name, "--health-cmd", "exec sleep 9", "--health-interval", "100ms", "--health-timeout", "200ms")
    assert probed(host, name)[0]["Output"] == "Health check exceeded timeout (200ms)"


def test_output_is_capped(host, name):
    run(host, name, "--health-cmd", "yes 0123456789 | head -n 1000000", "--health-interval", "100ms")
    output = probed(host, name)[0]["Output"]
    assert len(output) == 4096 + 3
    assert output.endswith("...")


@pytest.mark.parametrize(
    ("test", "code", "output"),
    [
        (["CMD", "/bin/echo", "a b", "$c"], 0, "a b $c\n"),
        (["CMD-SHELL", "echo $0 $1", "b"], 0, "b\n"),
        (["CMD-SHELL", "/nope"], 127, "/nope: not found\n"),
        (["CMD", "/nope", "a"], -1, 'exec: "/nope": stat /nope: no such file or directory'),
        (["CMD", "/etc/passwd"], -1, 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_commands(host, name, test, code, output):
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "Healthcheck": {"Test": test, "Interval": 100_000_000}}
    host.api("POST", f"/containers/create?name={name}", body)
    host.docker("start", name)
    result = probed(host, name)[0]
    assert result["ExitCode"] == code
    assert result["Output"].endswith(output)
    if code == -1:
        assert result["Output"].startswith("OCI runtime exec failed: exec failed: unable to start container process: ")
        assert "exec_die" not in [action for action, _ in story(host, name)]


def test_the_shell_user_directory_and_environment_are_the_containers(host, name):
    body = {
        "Image": "busybox",
        "Cmd": ["sleep", "1000"],
        "User": "nobody",
        "WorkingDir": "/tmp",
        "Env": ["A=b"],
        "Shell": ["/bin/sh", "-xc"],
        "Tty": True,
        "Healthcheck": {"Test": ["CMD-SHELL", "id -u; pwd; echo $A $TERM"], "Interval": 100_000_000},
    }
    host.api("POST", f"/containers/create?name={name}", body)
    host.docker("start", name)
    output = probed(host, name)[0]["Output"]
    assert "+ id -u\n" in output
    # Two pipes: what the shell says and what its commands say come in no order.
    words = output.split()
    assert all(word in words for word in ("65534", "/tmp", "b")), output


@pytest.mark.parametrize("test", [["NONE"], [], ["FOO", "x"]])
def test_no_check(host, name, test):
    body = {"Image": "busybox", "Cmd": ["sleep", "9"], "Healthcheck": {"Test": test, "Interval": 1_000_000}}
    status, answer = host.api("POST", f"/containers/create?name={name}", body)
    assert status == 201
    assert bool(answer["Warnings"]) == (test == ["FOO", "x"])
    host.docker("start", name)
    assert "Health" not in host.inspect(name)["State"]
    assert host.out("ps", "-q", "--filter", "health=none", "--filter", f"name={name}")


@pytest.mark.parametrize(
    ("check", "text"),
    [
        ({"Interval": 5}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"Timeout": 1}, "Timeout in Healthcheck cannot be less than 1ms"),
        ({"StartPeriod": -1}, "StartPeriod in Healthcheck cannot be less than 1ms"),
        ({"StartInterval": 1}, "StartInterval in Healthcheck cannot be less than 1ms"),
        ({"Retries": -1}, "Retries in Healthcheck cannot be negative"),
    ],
)
def test_refusals(host, check, text):
    body = {"Image": "busybox", "Cmd": ["true"], "Healthcheck": {"Test": ["CMD-SHELL", "true"], **check}}
    assert host.api("POST", "/containers/create", body) == (400, {"message": text})


def test_a_check_without_command_is_refused(host):
    body = {"Image": "busybox", "Cmd": ["true"], "Healthcheck": {"Test": ["CMD"]}}
    status, answer = host.api("POST", "/containers/create", body)
    assert status == 400
    assert "no command" in answer["message"]


def test_the_images_check_is_merged(host, name):
    host.docker("run", "--name", name, "busybox", "true")
    change = "HEALTHCHECK --interval=100ms --retries=7 CMD echo image"
    tar = subprocess.run(["tar", "-C", "/usr/bin", "-c", "busybox"], check=True, capture_output=True).stdout
    host.run("docker", "import", "--change", change, "-", "checked", input=tar, text=False)
    try:
        create = ("create", "--entrypoint", "/busybox", "--name")
        host.docker(*create, f"{name}-a", "--health-timeout", "9s", "checked", "sleep", "9")
        host.docker(*create, f"{name}-b", "--no-healthcheck", "checked", "sleep", "9")
        merged = host.inspect(f"{name}-a")["Config"]["Healthcheck"]
        assert merged == {
            "Test": ["CMD-SHELL", "echo image"],
            "Interval": 100_000_000,
            "Timeout": 9_000_000_000,
            "Retries": 7,
        }
        assert host.inspect(f"{name}-b")["Config"]["Healthcheck"]["Test"] == ["NONE"]
    finally:
        host.docker("rm", f"{name}-a", f"{name}-b", check=False)
        host.docker("rmi", "checked")


def test_what_is_paused_or_ended_is_not_probed(host, name):
    run(host, name, "--health-cmd", "true", "--health-interval", "100ms")
    until_status(host, name, "healthy")
    host.docker("pause", name)
    assert health(host, name)["Status"] == "unhealthy"  # Docker says so, for want of a better word
    assert host.out("ps", "--filter", f"name={name}", "--format", "{{.Status}}").endswith("(Paused)")
    count = len(story(host, name))
    time.sleep(0.5)
    assert len(story(host, name)) == count
    host.docker("unpause", name)
    until_status(host, name, "healthy")
    host.docker("stop", "-t", "0", name)
    assert health(host, name)["Status"] == "unhealthy"
    count = len(story(host, name))
    time.sleep(0.5)
    assert len(story(host, name)) == count


def test_a_restart_begins_anew_and_keeps_the_log(host, name):
    check = "[ ! -e /hold ] || sleep 1000; [ ! -e /bad ]"
    run(host, name, "--health-cmd", check, "--health-interval", "100ms", "--health-retries", "1")
    until_status(host, name, "healthy")
    host.docker("exec", name, "touch", "/bad")
    until_status(host, name, "unhealthy")
    host.docker("exec", name, "touch", "/hold")  # so that the first probe of the new run says nothing yet
    host.docker("restart", "-t", "0", name)
    again = health(host, name)
    assert (again["Status"], again["FailingStreak"]) == ("starting", 0)
    assert again["Log"]


@pytest.mark.parametrize("action", ["kill", "restart", "stop"])
def test_on_failure(host, name, action):
    flags = ("--health-interval", "100ms", "--health-retries", "2", "--stop-signal", "KILL")
    probe = "[ -e /was ] || { touch /was; exit 0; }; [ -e /was2 ] || { touch /was2; exit 1; }; [ -e /ok ] || exit 1"
    host.wherry(
        *("run", "-d", "--name", name, "--health-on-failure", action, "--health-cmd", probe, *flags),
        *("busybox", "sh", "-c", "[ -e /seen ] && touch /ok; touch /seen; sleep 1000"),
    )
    assert host.inspect(name)["HostConfig"]["HealthcheckOnFailureAction"] == action
    reason = host.wait_until(lambda: host.inspect(name)["State"].get("StopReason"), "the action")
    assert reason == f"health: {action}"
    if action == "restart":
        until_status(host, name, "healthy")
        assert host.inspect(name)["RestartCount"] == 0
    else:
        assert host.inspect(name)["State"]["Status"] == "exited"


def test_a_kill_for_health_leaves_the_restart_policy(host, name):
    flags = ("--health-interval", "100ms", "--health-retries", "1", "--restart", "always")
    host.wherry(
        *("run", "-d", "--name", name, "--tmpfs", "/run", "--health-on-failure", "kill", *flags),
        *("--health-cmd", "until [ -e /run/up ]; do sleep 0.01; done; [ -e /ok ]"),
        *("busybox", "sh", "-c", "[ -e /seen ] && touch /ok; touch /seen /run/up; sleep 1000"),
    )
    until_status(host, name, "healthy")
    assert host.inspect(name)["RestartCount"] == 1


def test_an_unknown_action_is_refused(host):
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"HealthcheckOnFailureAction": "explode"}}
    status, answer = host.api("POST", "/containers/create", body)
    assert status == 400
    assert "explode" in answer["message"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_health_goes_on_after_a_restart_of_the_daemon(own_host, how):
    host = own_host
    run(host, "sick", "--health-cmd", "exit 5", "--health-interval", "200ms", "--health-retries", "2")
    run(host, "slow", "--health-cmd", "touch /began; exec sleep 8123", "--health-interval", "100ms")
    before = until_status(host, "sick", "unhealthy")
    host.wait_until(lambda: "sleep 8123" in processes(host, "slow"), "the slow probe")
    host.stop(how)
    host.start()
    after = health(host, "sick")
    assert after["Status"] == "unhealthy"
    assert after["FailingStreak"] >= before["FailingStreak"]
    host.wait_until(lambda: health(host, "sick")["FailingStreak"] > before["FailingStreak"] + 1, "further probes")
    assert "health_status: unhealthy" not in [action for action, _ in story(host, "sick")]
    # What the first daemon left running is not left for ever, and there is one probe at a time.
    host.wait_until(lambda: processes(host, "slow").count("sleep 8123") <= 1, "the end of the first probe")


def test_a_stopped_daemon_catches_nothing_up(own_host):
    host = own_host
    run(host, "web", "--health-cmd", "true", "--health-interval", "200ms")
    until_status(host, "web", "healthy")
    os.kill(host.daemon.pid, signal.SIGSTOP)
    stopped = datetime.now(UTC).isoformat()
    time.sleep(2)  # ten probes are due
    os.kill(host.daemon.pid, signal.SIGCONT)

    def caught_up() -> bool:
        return sum(result["Start"] > stopped for result in health(host, "web")["Log"]) >= 3

    host.wait_until(caught_up, "the next probes")
    log = health(host, "web")["Log"]
    for before, after in pairwise(log):
        pause = datetime.fromisoformat(after["Start"]) - datetime.fromisoformat(before["End"])
        assert pause >= timedelta(milliseconds=190), log
    assert health(host, "web")["Status"] == "healthy"


def test_reads_answer_while_the_monitor_does_not(own_host):
    host = own_host
    run(host, "web", "--health-cmd", "true", "--health-interval", "100ms")
    until_status(host, "web", "healthy")
    pid = host.inspect("web")["State"]["Pid"]
    monitor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(monitor, signal.SIGSTOP)
    try:
        waiting = host.popen("docker", "exec", "web", "true")
        stopping = host.popen("docker", "stop", "-t", "60", "web")
        for words in (("inspect", "web"), ("ps",), ("top", "web"), ("logs", "web"), ("version",)):
            host.docker(*words, timeout=60)
        assert host.out("ps", "-q", "--filter", "name=web", timeout=60)
    finally:
        os.kill(monitor, signal.SIGCONT)
    for client in (waiting, stopping):
        client.kill()
        client.communicate()
    host.docker("kill", "web", check=False)


FLAPPING = (
    *("--health-cmd", "false", "--health-interval", "100ms", "--health-retries", "1"),
    *("--health-on-failure", "restart", "--stop-signal", "KILL"),
)


def flap(host, *names: str) -> None:
    """Containers that are restarted again and again for their health."""

    def restarted() -> bool:
        return all([action for action, _ in story(host, name)].count("start") > 1 for name in names)

    for name in names:
        host.wherry("run", "-d", "--name", name, *FLAPPING, "busybox", "sleep", "1000")
    host.wait_until(restarted, "a restart of each")


@pytest.mark.parametrize("end", [("rm", "-f"), ("stop", "-t", "0"), ("kill",)])
def test_a_request_to_end_wins_over_restarts_for_health(own_host, end):
    names = [f"flapping-{number}" for number in range(3)]
    flap(own_host, *names)

    def ended() -> bool:
        own_host.docker(*end, *names, check=False)  # one that is just being started does not run yet: once more
        return not own_host.out("ps", "-q")

    own_host.wait_until(ended, "the end of all")
    own_host.docker("run", "--rm", "busybox", "sleep", "1")
    assert own_host.out("ps", "-q") == ""


def test_the_daemon_ends_while_containers_are_restarted_for_health(own_host):
    names = [f"flapping-{number}" for number in range(4)]
    flap(own_host, *names)
    assert own_host.stop() == 0
    own_host.start()
    own_host.docker("rm", "-f", *names)
    assert own_host.out("ps", "-aq") == ""


def test_a_forced_removal_wins_over_a_restart(own_host):
    stubborn = "trap '' TERM; while :; do sleep 0.1; done"
    own_host.docker("run", "-d", "--name", "stubborn", "busybox", "sh", "-c", stubborn)
    restart = own_host.popen("docker", "restart", "-t", "2", "stubborn")
    since = str(time.time() - 1)
    watch = ("events", "--since", since, "--filter", "event=kill", "--until")
    own_host.wait_until(lambda: own_host.out(*watch, str(time.time())), "the signal of the restart")
    own_host.docker("rm", "-f", "stubborn")
    _, said = restart.communicate(timeout=60)
    assert own_host.out("ps", "-aq") == ""
    assert restart.returncode == 1
    assert b"marked for removal" in said or b"No such container" in said
