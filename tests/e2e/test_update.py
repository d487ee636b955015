"""`update` changes the kernel's limits while a container runs, is refused whole or done whole, and is remembered."""

import json

import pytest

from tests.e2e.conftest import AGAINST

MB = 1 << 20


@pytest.fixture
def sleeper(host, name):
    host.docker("run", "-d", "--name", name, "--memory", "32m", "busybox", "sleep", "1000")
    return name


def files(host, name):
    return host.cgroup_files(host.inspect(name)["State"]["Pid"])


@pytest.mark.parametrize(
    ("flags", "v1", "v2", "expected"),
    [
        (("--cpu-shares", "512"), "cpu/cpu.shares", "cpu.weight", ("512", "59")),
        (("--cpus", "0.5"), "cpu/cpu.cfs_quota_us", "cpu.max", ("50000", "50000 100000")),
        (
            ("--cpu-period", "50000", "--cpu-quota", "10000"),
            "cpu/cpu.cfs_period_us",
            "cpu.max",
            ("50000", "10000 50000"),
        ),
        (("--cpuset-cpus", "0"), "cpuset/cpuset.cpus", "cpuset.cpus", ("0", "0")),
        (("--cpuset-mems", "0"), "cpuset/cpuset.mems", "cpuset.mems", ("0", "0")),
        (("--memory", "48m"), "memory/memory.limit_in_bytes", "memory.max", (str(48 * MB),) * 2),
        (
            ("--memory", "80m", "--memory-swap", "96m"),
            "memory/memory.memsw.limit_in_bytes",
            "memory.swap.max",
            (str(96 * MB), str(16 * MB)),
        ),
        (
            ("--memory-reservation", "8m"),
            "memory/memory.soft_limit_in_bytes",
            "memory.low",
            (str(8 * MB),) * 2,
        ),
        (("--pids-limit", "17"), "pids/pids.max", "pids.max", ("17", "17")),
    ],
)
@pytest.mark.parametrize("state", ["running", "paused", "stopped"])
def test_a_limit_reaches_the_kernel(host, sleeper, flags, v1, v2, expected, state):
    if state == "stopped":
        host.docker("kill", sleeper)
    elif state == "paused":
        host.docker("pause", sleeper)
    assert host.out("update", *flags, sleeper) == sleeper
    if state == "stopped":
        host.docker("start", sleeper)
    assert files(host, sleeper)(v1, v2) in expected


def test_no_limit_of_swap_is_in_nobodys_way(host, name):
    host.docker("run", "-d", "--name", name, "--memory", "32m", "--memory-swap", "-1", "busybox", "sleep", "1000")
    assert host.out("update", "--cpu-shares", "512", name) == name
    assert host.inspect(name)["HostConfig"]["MemorySwap"] == -1


def test_no_pids_limit(host, sleeper):
    host.docker("update", "--pids-limit", "9", sleeper)
    host.docker("update", "--pids-limit", "-1", sleeper)
    assert files(host, sleeper)("pids/pids.max", "pids.max") == "max"
    assert host.inspect(sleeper)["HostConfig"]["PidsLimit"] in (None, 0, -1)


REFUSED = [
    ({"Memory": 1}, 400, "Minimum memory limit allowed is 6MB"),
    (
        {"Memory": 128 * MB},
        409,
        "Cannot update container {id}: Memory limit should be smaller than already set memoryswap limit, "
        "update the memoryswap at the same time",
    ),
    ({"NanoCpus": 1, "CpuQuota": 5000}, 400, "Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
    ({"CpusetCpus": "x"}, 400, "Invalid value x for cpuset cpus: invalid format: x"),
    ({"CpuShares": -1}, 400, "invalid CPU shares (-1): value must be a positive integer"),
    (
        {"RestartPolicy": {"Name": "x"}},
        400,
        "invalid restart policy: unknown policy 'x'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
    ),
    (
        {"Memory": "x"},
        400,
        "invalid JSON: json: cannot unmarshal string into Go struct field UpdateConfig.Memory of type int64",
    ),
]


@pytest.mark.parametrize(("body", "status", "text"), REFUSED, ids=[json.dumps(case[0]) for case in REFUSED])
def test_what_makes_no_sense_changes_nothing(host, sleeper, body, status, text):
    before = host.inspect(sleeper)
    answer = host.api("POST", f"/containers/{sleeper}/update", body)
    assert answer == (status, {"message": text.format(id=before["Id"])})
    assert host.inspect(sleeper)["HostConfig"] == before["HostConfig"]


@pytest.mark.parametrize(
    ("first", "then", "text"),
    [
        ({"NanoCpus": 10**9}, {"CpuQuota": 5000}, "CPU Quota cannot be updated as NanoCPUs has already been set"),
        ({"NanoCpus": 10**9}, {"CpuPeriod": 5000}, "CPU Period cannot be updated as NanoCPUs has already been set"),
        ({"CpuQuota": 5000}, {"NanoCpus": 10**9}, "Nano CPUs cannot be updated as CPU Quota has already been set"),
        ({"CpuPeriod": 5000}, {"NanoCpus": 10**9}, "Nano CPUs cannot be updated as CPU Period has already been set"),
    ],
)
def test_two_ways_to_say_it(host, sleeper, first, then, text):
    assert host.api("POST", f"/containers/{sleeper}/update", first) == (200, {"Warnings": None})
    status, answer = host.api("POST", f"/containers/{sleeper}/update", then)
    assert status == 409
    assert answer["message"].endswith(f": Conflicting options: {text}")


def test_what_the_kernel_refuses_changes_nothing(host, sleeper):
    before = host.inspect(sleeper)["HostConfig"]
    kernel = files(host, sleeper)
    period = kernel("cpu/cpu.cfs_period_us", "cpu.max")
    # The kernel takes 2 for 1, which is no success.
    flags = ("--cpu-period", "50000", "--cpu-shares", "1", "--pids-limit", "5")
    answer = host.docker("update", *flags, sleeper, check=False)
    if answer.returncode == 0:
        pytest.skip("cgroup v2 takes every weight")
    assert "the minimum allowed cpu-shares is 2" in answer.stderr
    assert host.inspect(sleeper)["HostConfig"] == before
    assert kernel("cpu/cpu.cfs_period_us", "cpu.max") == period
    assert kernel("cpu/cpu.shares", "cpu.weight") == "1024"


def test_the_restart_policy_is_the_new_one(host, name):
    script = "trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done"
    host.docker("run", "-d", "--name", name, "busybox", "sh", "-c", script)
    host.wait_until(lambda: host.out("logs", name) == "up", "the trap")
    host.docker("update", "--restart", "on-failure:5", name)
    host.docker("exec", name, "kill", "-TERM", "1")
    host.wait_until(
        lambda: (shown := host.inspect(name))["RestartCount"] == 1 and shown["State"]["Status"] == "running",
        "a restart",
    )
    host.wait_until(lambda: host.out("logs", name) == "up\nup", "the trap")
    host.docker("update", "--restart", "no", name)
    host.docker("exec", name, "kill", "-TERM", "1")
    assert host.out("wait", name) == "3"
    assert host.inspect(name)["RestartCount"] == 1


def test_a_container_that_removes_itself_is_not_restarted(host, name):
    host.docker("run", "-d", "--rm", "--name", name, "busybox", "sleep", "1000")
    result = host.docker("update", "--restart", "always", name, check=False)
    assert "Restart policy cannot be updated because AutoRemove is enabled for the container" in result.stderr


def test_there_is_an_event(host, sleeper):
    host.docker("update", "--pids-limit", "9", sleeper)
    seen = ("events", "--since", "5m", "--until", "0s", "--filter", f"container={sleeper}", "--filter", "event=update")
    expected = f"container update {sleeper}"
    # The command asks up to the full second.
    host.wait_until(
        lambda: host.out(*seen, "--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}") == expected, "the event"
    )


@pytest.mark.skipif(bool(AGAINST), reason="Docker drops these without a word")
def test_what_stays_as_it_is_is_told(host, sleeper):
    body = {"Ulimits": [{"Name": "nofile", "Soft": 5, "Hard": 5}], "CgroupParent": "/x"}
    status, answer = host.api("POST", f"/containers/{sleeper}/update", body)
    assert (status, answer["Warnings"]) == (
        200,
        [
            "CgroupParent cannot be changed by an update: discarded.",
            "Ulimits cannot be changed by an update: discarded.",
        ],
    )


def test_several_containers_and_one_that_is_not_there(host, sleeper):
    result = host.wherry("update", "--pids-limit", "9", "not-there", sleeper, check=False)
    assert (result.returncode, result.stdout) == (1, f"{sleeper}\n")
    assert result.stderr == "Error response from daemon: No such container: not-there\n"
    assert host.inspect(sleeper)["HostConfig"]["PidsLimit"] == 9


def test_it_survives_the_daemon_and_its_death_midway(own_host):
    own_host.docker("run", "-d", "--name", "one", "busybox", "sleep", "1000")
    own_host.docker("update", "--pids-limit", "21", "one")
    own_host.stop()
    own_host.start(failpoint="engine.update.after_row:kill")
    own_host.docker("update", "--pids-limit", "22", "one", check=False)
    assert own_host.daemon.wait(60)
    own_host.start()
    shown = own_host.inspect("one")
    assert shown["HostConfig"]["PidsLimit"] == 22
    assert own_host.cgroup_files(shown["State"]["Pid"])("pids/pids.max", "pids.max") == "22"
