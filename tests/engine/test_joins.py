"""Joining another container's namespaces: of exactly that run of it, or not at all."""

import os
import signal
from typing import Any

import pytest

from tests.engine.enginelab import Daemon, Lab, scenario
from tests.engine.test_restore import alive, monitor_pid
from wherry.engine import joins, launch
from wherry.errors import WherryError

FOREVER = ("sleep", "1000")
MODES = {
    "NetworkMode": ("net", "cannot join network namespace of a non running container: container donor is exited"),
    "PidMode": ("pid", "failed to join PID namespace: container {} is not running"),
    "IpcMode": ("ipc", "failed to join IPC namespace: container {} is not running"),
}


async def donor(d: Daemon, network: str) -> str:
    await d.image()
    return await d.run(*FOREVER, name="donor", IpcMode="shareable", NetworkMode=network)


def held_now() -> list[str]:
    """The processes and namespaces this process has descriptors of; others may hold network namespaces."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue
    return sorted(name for name in found if "pidfd" in name or name.startswith(("pid:", "ipc:", "mnt:")))


def end(d: Daemon, ref: str) -> None:
    """End the container's process; the engine hears of it later, as it is busy here."""
    pid = d.entry(ref).record.state.pid
    os.kill(pid, signal.SIGKILL)
    while alive(pid):
        os.sched_yield()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("network", ["bridge", "none"])
@scenario
async def test_what_is_joined_is_held_by_descriptors(lab: Lab, mode: str, network: str) -> None:
    async with lab.daemon() as d:
        ref = await donor(d, network)
        before = held_now()
        guest = await d.run(*FOREVER, **{mode: f"container:{ref}"})
        theirs, ours = (d.entry(name).record.state.pid for name in (ref, guest))
        kind = MODES[mode][0]
        assert os.readlink(f"/proc/{ours}/ns/{kind}") == os.readlink(f"/proc/{theirs}/ns/{kind}")
        assert held_now() == before
        if mode == "IpcMode":
            assert (await d.exec(ref, "sh", "-c", "echo shared >/dev/shm/x"))[0] == 0
            assert await d.exec(guest, "cat", "/dev/shm/x") == (0, "shared\n")
        await d.rm(guest, force=True)
        await d.clean()


@pytest.mark.parametrize("moment", ["looked up", "held"])
@pytest.mark.parametrize("mode", MODES)
@scenario
async def test_a_donor_that_ends_meanwhile(lab: Lab, monkeypatch: pytest.MonkeyPatch, mode: str, moment: str) -> None:
    """Docker's refusal, whether it is gone before it is held or between that and the start; nothing is left."""
    async with lab.daemon() as d:
        ref = await donor(d, "none")
        guest = await d.create(*FOREVER, **{mode: f"container:{ref}"})
        before = held_now()

        def held(found: Any) -> Any:
            if moment == "looked up":
                end(d, ref)
            result = joins.hold(found)
            assert len(held_now()) > len(before)
            end(d, ref)
            return result

        monkeypatch.setattr(launch, "hold", held)
        with pytest.raises(WherryError) as caught:
            await d.start(guest)
        assert str(caught.value) == MODES[mode][1].replace("{}", ref)
        assert d.entry(guest).status == "created"
        await d.until(lambda: d.entry(ref).status == "exited")
        assert await d.leaks() == []
        assert held_now() == before
        monkeypatch.undo()
        await d.start(ref)
        await d.start(guest)
        await d.clean()


@scenario
async def test_a_number_that_is_another_processs_is_refused(lab: Lab) -> None:
    async with lab.daemon() as d:
        ref = await donor(d, "none")
        guest = await d.create(*FOREVER, PidMode=f"container:{ref}")
        state = d.entry(ref).record.state
        for wrong in (os.getpid(), await monitor_pid(d, ref), 1):
            right, state.pid = state.pid, wrong
            with pytest.raises(WherryError, match=f"failed to join PID namespace: container {ref} is not running"):
                await d.start(guest)
            state.pid = right
        await d.start(guest)
        await d.clean()
