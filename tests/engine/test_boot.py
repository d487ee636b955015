"""A host that starts again: what restart policies make of every state, in which order, and who waits for whom."""

import asyncio
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.engine.enginelab import Daemon, Lab, ip_json, scenario, until
from tests.engine.test_restore import alive
from tests.mounted import detach_below
from wherry.engine import boot, launch, restore, stop
from wherry.engine.containers import Entry

POLICIES: dict[str, dict[str, Any]] = {
    "always": {"Name": "always"},
    "unless-stopped": {"Name": "unless-stopped"},
    "on-failure": {"Name": "on-failure"},
    "on-failure-1": {"Name": "on-failure", "MaximumRetryCount": 1},
    "no": {"Name": "no"},
}
# What is started again. Those that ran when the host went down have failed, with exit code 255.
FAILED = {"always", "unless-stopped", "on-failure", "on-failure-1"}
AGAIN = {
    "running": FAILED,
    "paused": FAILED,
    "restarting": FAILED,
    "exited-0": {"always", "unless-stopped"},
    "exited-1": FAILED,
    "stopped": {"always"},
    "created": set(),
}
PROGRAM = "echo run >> /s/$NAME.runs; read code < /s/$NAME; exit $code"


class Table:
    """A container for every policy and state; each writes down that it runs, and ends with the code it is told."""

    def __init__(self, shared: Path) -> None:
        self.shared = shared
        self.names = [f"{policy}.{state}" for policy in POLICIES for state in AGAIN]
        shared.mkdir()

    async def make(self, d: Daemon) -> None:
        for name in self.names:
            os.mkfifo(self.shared / name)
            policy, state = name.split(".")
            fields = {"RestartPolicy": POLICIES[policy], "Binds": [f"{self.shared}:/s"], "Env": [f"NAME={name}"]}
            await d.create("sh", "-c", PROGRAM, name=name, **fields)
            if state != "created":
                await d.start(name)
                await d.until(lambda name=name: self.runs(name) == 1)

    def runs(self, name: str) -> int:
        file = self.shared / f"{name}.runs"
        return len(file.read_text().split()) if file.exists() else 0

    def end(self, name: str, code: int) -> None:
        (self.shared / name).write_text(f"{code}\n")

    def of(self, state: str) -> list[str]:
        return [name for name in self.names if name.endswith(f".{state}")]


async def power_off(d: Daemon) -> list[int]:
    """The processes that end with the host."""
    running = [entry for entry in d.engine.containers if entry.monitor is not None]
    pids = [entry.record.state.pid for entry in running]
    return pids + [int((await entry.monitor.status())["monitor_pid"]) for entry in running]


def reboot(lab: Lab, pids: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reset does: processes, namespaces, links, rules and the exec root are gone, and it is another boot."""
    for pid in reversed(pids):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    detach_below(lab.exec_root)
    shutil.rmtree(lab.exec_root)
    for link in ip_json("link"):
        if link["ifname"] != "lo":
            subprocess.run(["ip", "link", "del", link["ifname"]], check=False)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    monkeypatch.setattr(restore, "read_boot_id", lambda: "another boot")


@scenario
async def test_policies_decide_what_starts_again_and_each_starts_once(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(lab.root / "s")
    async with lab.daemon() as d:
        await d.image()
        await table.make(d)
        for name in table.of("stopped"):
            await d.stop(name)
        for name in table.of("paused"):
            await stop.pause(d.engine, name)
        for name in table.of("restarting"):
            d.entry(name).backoff_s = 3600
            table.end(name, 1)
            await d.until(lambda name=name: d.entry(name).status in ("restarting", "exited"))
        pids, paths = await power_off(d), d.engine.paths
        ending = {name: d.entry(name).record for name in (*table.of("exited-0"), *table.of("exited-1"))}
    for name in ending:
        table.end(name, int(name[-1]))
    for record in ending.values():
        await until(lambda record=record: not alive(record.state.pid) and paths.exit_record(record.id).exists())
    reboot(lab, pids, monkeypatch)
    before = {name: table.runs(name) for name in table.names}
    async with lab.daemon() as d:
        again = [name for name in table.names if name.split(".")[0] in AGAIN[name.split(".")[1]]]
        await d.until(lambda: all(d.entry(name).status == "running" for name in again))
        await d.engine.settle()
        await d.until(lambda: all(table.runs(name) > before[name] for name in again))
        for name in table.names:
            assert table.runs(name) - before[name] == (name in again), name
            assert (d.entry(name).status == "running") == (name in again), name
        assert await d.leaks() == []
        await d.clean()


@scenario
async def test_donors_start_first_and_the_network_is_made_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that are not taken yet make it possible to create those who join before those whom they join."""
    always = {"RestartPolicy": {"Name": "always"}}
    async with lab.daemon() as d:
        await d.image()
        await d.create("sleep", "1000", name="guest", NetworkMode="container:host", **always)
        ports = {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}, "NetworkMode": "bridge"}
        await d.create("sleep", "1000", name="host", IpcMode="shareable", **ports, **always)
        await d.create("sleep", "1000", name="more", PidMode="container:host", IpcMode="container:host", **always)
        for name in ("host", "guest", "more"):
            await d.start(name)
        made = d.entry("host").record
        pids = await power_off(d)
    reboot(lab, pids, monkeypatch)
    async with lab.daemon() as d:
        await d.until(lambda: all(entry.status == "running" for entry in d.engine.containers))
        record = d.entry("host").record
        assert record.ports == made.ports
        assert record.networks["bridge"].IPAddress == made.networks["bridge"].IPAddress
        assert record.networks["bridge"].MacAddress
        assert record.state.pid not in pids
        for name, kind in (("guest", "net"), ("more", "pid"), ("more", "ipc")):
            assert namespace(d, name, kind) == namespace(d, "host", kind)
        assert await d.leaks() == []
        await d.clean()


def namespace(d: Daemon, name: str, kind: str) -> str:
    return os.readlink(f"/proc/{d.entry(name).record.state.pid}/ns/{kind}")


@scenario
async def test_nobody_is_held_up(lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Not by circles, by donors that are gone, by failures, nor by a start that hangs."""
    always = {"RestartPolicy": {"Name": "always"}}
    async with lab.daemon() as d:
        await d.image()
        await d.create("sleep", "1000", name="one", NetworkMode="container:two", **always)
        await d.create("sleep", "1000", name="two", NetworkMode="container:one", **always)
        await d.create("sleep", "1000", name="lost", NetworkMode="container:nobody", **always)
        await d.create("sleep", "1000", name="stuck", **always)
        await d.create("sleep", "1000", name="waits", NetworkMode="container:stuck", **always)
        refs = [await d.create("sleep", "1000", name=f"fine{n}", **always) for n in range(boot.PARALLEL + 2)]
        for entry in d.engine.containers:  # as if they had run when the host went down
            state, record = entry.record.state, entry.record
            state.status, record.started_before, record.boot_id = "running", True, "one boot"
            d.engine.save(record)
    released = asyncio.Event()
    starting: list[int] = []
    peak: list[int] = []
    real = launch.launch

    async def counted(engine: Any, entry: Entry) -> None:
        starting.append(1)
        peak.append(len(starting))
        try:
            if entry.record.name == "stuck":
                await released.wait()
            await real(engine, entry)
        finally:
            starting.pop()

    monkeypatch.setattr("wherry.engine.restarts.launch", counted)
    monkeypatch.setattr(boot, "PARALLEL", 2)
    monkeypatch.setattr(boot, "PATIENCE_S", 1.0)
    async with lab.daemon() as d:
        await d.until(lambda: all(d.entry(ref).status == "running" for ref in refs))
        others = ("one", "two", "lost", "waits")
        await d.until(lambda: all(d.entry(name).status == "exited" for name in others))
        assert max(peak) <= 3, "two places, and the one that the hanging start gave away"
        for name, text in (
            ("one", "cannot join network namespace of "),
            ("lost", "No such container: nobody"),
            ("waits", "cannot join network namespace of container: container stuck is restarting"),
        ):
            assert text in d.entry(name).record.state.error
        circle = sorted(d.entry(name).id for name in ("one", "two"))
        assert f"containers {', '.join(circle)} need each other: none can be started first" in caplog.text
        assert f"container {d.entry('waits').id} is started without waiting any longer" in caplog.text
        assert f"container {d.entry('stuck').id} takes long to start" in caplog.text
        released.set()
        await d.until(lambda: d.entry("stuck").status == "running")
        await d.clean()


def test_the_order_of_starts() -> None:
    assert boot.in_order({"c": {"b"}, "b": {"a"}, "a": set()}) == ["a", "b", "c"]
    needs = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}
    order = boot.in_order(needs)
    assert sorted(order) == ["a", "b", "c", "d", "e"]
    assert order.index("d") > order.index("a")
    assert needs["a"] == set()
