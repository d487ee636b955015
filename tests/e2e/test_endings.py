"""How the end of a container is shown to those who use the clients."""

import time

EATS = "dd if=/dev/zero of=/dev/null bs=64M count=1"
SMALL = ("--memory", "16m", "--memory-swap", "16m")


def ooms(host, name: str) -> list[str]:
    since = ["--since", "1", "--until", str(time.time()), "--filter", "event=oom"]
    return host.out("events", *since, "--filter", f"container={name}", "--format", "{{.Action}}").splitlines()


def test_a_child_that_the_oom_killer_took_is_told_while_the_container_goes_on(host, name):
    host.docker("run", "-d", "--name", name, *SMALL, "busybox", "sh", "-c", f"sh -c '{EATS}'; sleep 1000")
    host.wait_until(lambda: host.inspect(name)["State"]["OOMKilled"], "OOMKilled")
    assert host.inspect(name)["State"]["Running"]
    assert ooms(host, name)
    host.docker("kill", name)
    assert host.inspect(name)["State"]["StopReason"] == "kill: SIGKILL"


def test_the_oom_killer_is_the_reason(host, name):
    host.docker("run", "--name", name, *SMALL, "busybox", *EATS.split(), check=False)
    state = host.inspect(name)["State"]
    assert (state["ExitCode"], state["OOMKilled"], state["StopReason"]) == (137, True, "oom")
    assert ooms(host, name)
    host.docker("run", "--rm", *SMALL, "busybox", "true")


def test_an_exit_is_not_out_of_memory(host, name):
    host.docker("run", "--name", name, *SMALL, "busybox", "sh", "-c", "exit 137", check=False)
    state = host.inspect(name)["State"]
    assert (state["ExitCode"], state["OOMKilled"], state["StopReason"]) == (137, False, "exited")


def test_stop_says_when_the_signal_was_ignored(host, name):
    host.docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    told = host.wherry("stop", "-t", "1", name)
    assert told.stdout == f"{name}\n"
    assert told.stderr.startswith(f"{name} ignored SIGTERM for 1s, killed: ")
    assert host.inspect(name)["State"]["StopReason"] == "stop: ignored SIGTERM for 1s, killed"
    host.docker("start", name)
    assert host.wherry("stop", "-t", "0", name).stderr == ""
