"""A restart keeps a container that removes itself when it ends."""

import asyncio

from tests.engine.enginelab import Lab, scenario
from wherry.engine import stop


@scenario
async def test_restarts_at_once_leave_it_to_remove_itself(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sleep", "1000", AutoRemove=True)
        await asyncio.gather(*(stop.restart(d.engine, ref, timeout=0) for _ in range(3)))
        assert d.entry(ref).status == "running"
        assert d.entry(ref).record.host_config.AutoRemove
        await d.stop(ref)
        await d.until(lambda: d.engine.containers.get(ref) is None)
        await d.clean()
