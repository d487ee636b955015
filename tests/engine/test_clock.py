"""Time: the host's clock jumps, and many containers that end at once come back with ever longer pauses."""

import asyncio
import itertools
import time
from collections import defaultdict

import pytest

from tests.engine.enginelab import Daemon, Lab, scenario
from wherry.api.shapes import containers as shapes
from wherry.engine import stop
from wherry.engine.restarts import FIRST_PAUSE_S
from wherry.engine.status import status_text

HOUR_S = 3600
YEAR_S = 365 * 24 * HOUR_S
JUMPS = (HOUR_S, -HOUR_S, 20 * YEAR_S, -10 * YEAR_S, -int(time.time()))
CHECK = {"Test": ["CMD", "true"], "Interval": 50_000_000}


def shown(d: Daemon, ref: str) -> str:
    """All that tells times of a container can tell them."""
    record = d.entry(ref).record
    shapes.inspect(record, exec_ids=[], version=(1, 51), data_dir="", rootfs="", sizes=None)
    shapes.summary(record, record.image_id, None, ())
    return status_text(record.state)


async def goes_on(d: Daemon, probed: str, failing: str) -> None:
    """There are further probes, and a further restart."""
    health, record = d.entry(probed).record.state.health, d.entry(failing).record
    restarts = record.restart_count
    for _ in range(3):
        last = health.log[-1:]
        await d.until(lambda last=last: health.log[-1:] != last)
    await d.until(lambda: record.restart_count > restarts)
    assert health.status == "healthy"


@scenario
async def test_a_clock_that_jumps_stops_nothing_and_hurries_nothing(lab: Lab) -> None:
    patch = pytest.MonkeyPatch()
    real_ns, real = time.time_ns, time.time
    async with lab.daemon() as d:
        await d.image()
        probed = await d.run("sleep", "1000", Healthcheck=CHECK)
        failing = await d.run("false", RestartPolicy={"Name": "always"})
        ticking = await d.run("sh", "-c", "while :; do echo tick; sleep 0.05; done")
        for jump in JUMPS:
            patch.setattr(time, "time_ns", lambda jump=jump: real_ns() + jump * 1_000_000_000)
            patch.setattr(time, "time", lambda jump=jump: real() + jump)
            await goes_on(d, probed, failing)
            assert shown(d, probed).startswith("Up ")
            assert shown(d, failing)
            assert await d.exec(ticking, "echo", "in") == (0, "in\n")
        told = [message["timeNano"] for message in d.engine.events._history]
        assert all(before < after for before, after in itertools.pairwise(told))
        for ref in (probed, failing, ticking):
            await stop.stop(d.engine, ref, timeout=0)
        patch.undo()
        await d.clean()


@scenario
async def test_many_that_end_at_once_come_back_with_ever_longer_pauses(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        refs = await asyncio.gather(*(d.create("false", RestartPolicy={"Name": "always"}) for _ in range(8)))
        await asyncio.gather(*(d.start(ref) for ref in refs))
        await d.until(lambda: all(d.entry(ref).record.restart_count >= 3 for ref in refs))
        await asyncio.gather(*(stop.stop(d.engine, ref, timeout=0) for ref in refs))
        counts = [d.entry(ref).record.restart_count for ref in refs]
        await asyncio.sleep(FIRST_PAUSE_S)
        assert [d.entry(ref).record.restart_count for ref in refs] == counts
        assert {d.entry(ref).status for ref in refs} == {"exited"}
        times = defaultdict(lambda: defaultdict(list))
        for message in d.engine.events._history:
            times[message["Actor"]["ID"]][message["Action"]].append(message["timeNano"] / 1e9)
        for ref in refs:
            pauses = [start - die for die, start in zip(times[ref]["die"], times[ref]["start"][1:], strict=False)]
            assert len(pauses) >= 2
            assert all(pause >= FIRST_PAUSE_S * 2**turn * 0.99 for turn, pause in enumerate(pauses)), pauses
        await d.clean()
