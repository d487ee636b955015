"""The exit is told before the container's mounts are gone, and the next run waits for them."""

import asyncio
import io
import os
from pathlib import Path

from tests.engine.enginelab import Daemon, Lab, scenario
from wherry.engine.files.copy import copy_in


def arm(lab: Lab, action: str) -> None:
    """For the monitors of this laboratory, which is a process of its own."""
    os.environ["WHERRY_FAILPOINT"] = f"monitor.before_unmount:{action}"


def let_go(gate: Path) -> None:
    gate.write_text("now")


def holders(d: Daemon, ref: str) -> list[str]:
    """The processes that hold a mount namespace in which the container's upper directory is mounted."""
    upper = str(d.engine.paths.upper(d.entry(ref).id))
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if upper in Path(f"/proc/{pid}/mountinfo").read_text():
                found.append(pid)
        except OSError:
            continue
    return found


@scenario
async def test_told_before_and_started_after(lab: Lab) -> None:
    gate = lab.root / "gate"
    os.mkfifo(gate)
    arm(lab, f"exec=read x < {gate}")
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sh", "-c", "echo kept >> /file; cat /file; exit 5")
        assert await d.finish(ref) == 5  # although the monitor has not let go yet
        record = Path(d.engine.paths.exit_record(d.entry(ref).id))
        assert '"exit_code": 5' in record.read_text()
        assert d.entry(ref).unmounting is not None
        again = asyncio.create_task(d.start(ref))
        await asyncio.sleep(0.5)  # twenty times what a start takes
        assert not again.done()
        assert d.entry(ref).record.state.pid == 0
        await asyncio.to_thread(let_go, gate)
        await again
        await asyncio.to_thread(let_go, gate)
        assert await d.finish(ref) == 5
        assert (await d.output(ref)).split() == ["kept", "kept", "kept"]
        await d.clean()


@scenario
async def test_copied_into_after(lab: Lab) -> None:
    gate = lab.root / "gate"
    os.mkfifo(gate)
    arm(lab, f"exec=read x < {gate}")
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("true")
        assert await d.finish(ref) == 0
        copying = asyncio.create_task(copy_in(d.engine, ref, "/", io.BytesIO(bytes(10240))))
        await asyncio.sleep(0.5)
        assert not copying.done()
        await asyncio.to_thread(let_go, gate)
        await copying
        await d.clean()


@scenario
async def test_removed_while_still_mounted(lab: Lab) -> None:
    gate = lab.root / "gate"
    os.mkfifo(gate)
    arm(lab, f"exec=read x < {gate}")
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sh", "-c", "echo data > /file")
        assert await d.finish(ref) == 0
        await d.rm(ref)
        await asyncio.to_thread(let_go, gate)
        await d.clean()


@scenario
async def test_a_monitor_killed_before_takes_the_mounts_along(lab: Lab) -> None:
    arm(lab, "kill")
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sh", "-c", "exit 6")
        assert await d.finish(ref) == 6
        os.environ.pop("WHERRY_FAILPOINT")
        await d.start(ref)
        assert await d.finish(ref) == 6
        await d.until(lambda: not holders(d, ref))
        await d.clean()
