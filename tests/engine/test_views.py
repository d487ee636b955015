"""What a view of a container's files is taken from."""

import os

from tests.engine.enginelab import Lab, scenario
from wherry.engine.files.view import open_view


@scenario
async def test_never_from_a_process_that_is_not_the_containers(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sleep", "1000")
        entry = d.entry(ref)
        for pid, borrowed in ((entry.record.state.pid, True), (os.getpid(), False), (1, False)):
            entry.record.state.pid = pid
            with await d.engine.run_blocking(open_view, d.engine, entry) as view:
                assert sorted(os.listdir(f"/proc/self/fd/{view.root}"))[:2] == [".dockerenv", "bin"]
                assert (os.path.samestat(os.fstat(view.root), os.stat(f"/proc/{pid}/root"))) == borrowed
        await d.clean()
