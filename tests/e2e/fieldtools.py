"""What the cases of fieldcases.py and limitcases.py are made of: checks of a create, as functions of (host, name)."""

import os
import re
from collections.abc import Callable
from typing import Any

Case = Callable[[Any, str], None]
MB = 1 << 20
V2 = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
BLOCK = "/dev/loop0"


def create(host, name, body, prefix: str = "") -> tuple[int, Any]:
    full = {"Image": "busybox", "Cmd": ["sleep", "1000"]} | body
    return host.api("POST", f"{prefix}/containers/create?name={name}", full)


def made(host, name, body, prefix: str = "") -> list[str]:
    status, answer = create(host, name, body, prefix)
    assert status == 201, answer
    return answer["Warnings"]


def inside(body: dict[str, Any], script: str, expected: str) -> Case:
    """The output of a shell `script` matches the pattern `expected`."""

    def check(host, name):
        made(host, name, {"Cmd": ["sh", "-c", script]} | body)
        result = host.docker("start", "-a", name, check=False)
        assert re.search(expected, result.stdout + result.stderr), result.stdout + result.stderr

    return check


def cgroup(body: dict[str, Any], v1: str, v2: str, *expected: str) -> Case:
    """A cgroup file holds one of the texts `expected`."""

    def check(host, name):
        assert made(host, name, body) == []
        host.docker("start", name)
        assert host.cgroup_files(host.inspect(name)["State"]["Pid"])(v1, v2) in expected

    return check


def refused(body: dict[str, Any], text: str, status: int = 400) -> Case:
    """The create, or the start, says why not."""

    def check(host, name):
        answer = create(host, name, body)
        if answer[0] == 201:
            answer = host.api("POST", f"/containers/{name}/start")
        assert answer[0] == status, answer
        assert re.search(text, answer[1]["message"]), answer

    return check


def warned(body: dict[str, Any], text: str, prefix: str = "") -> Case:
    """The create says that it leaves something out; `prefix` is that of an API version in which the field exists."""

    def check(host, name):
        assert any(re.search(text, warning) for warning in made(host, name, body, prefix))

    return check


def either(*cases: Case) -> Case:
    """What depends on the kernel: an effect or else a refusal or a warning."""

    def check(host, name):
        failures = []
        for case in cases:
            try:
                case(host, name)
            except (AssertionError, FileNotFoundError) as error:  # a file another kernel has
                failures.append(error)
                host.docker("rm", "-f", name, check=False)
            else:
                return
        raise AssertionError(f"none of these: {failures}")

    return check


def shown(body: dict[str, Any], *path: str | int, value: Any) -> Case:
    """What is for clients alone is kept for them: inspect shows it."""

    def check(host, name):
        made(host, name, body)
        found = host.inspect(name)
        for key in path:
            found = found[key]
        assert found == value

    return check


def running(body: dict[str, Any], found: Callable[[Any, dict[str, Any]], Any], expected: Any) -> Case:
    """`found(host, inspect)` of the running container is `expected`."""

    def check(host, name):
        made(host, name, body)
        host.docker("start", name)
        assert found(host, host.inspect(name)) == expected

    return check


def hostly(**fields: Any) -> dict[str, Any]:
    return {"HostConfig": fields}


def mount(**fields: Any) -> dict[str, Any]:
    return hostly(Mounts=[{"Type": "tmpfs", "Target": "/m"} | fields])


def network(**fields: Any) -> dict[str, Any]:
    return {"NetworkingConfig": {"EndpointsConfig": {"bridge": fields}}}
