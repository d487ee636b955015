"""Signals, and the orphans of a container: each arrives once, and none is left."""

import signal
from pathlib import Path

import pytest

from tests.engine.enginelab import Lab, scenario
from wherry.engine import stop

# Those a program may handle. 32 and 33 are the C libraries' own, and SIGCHLD comes whenever a child ends.
HANDLED = [n for n in range(1, 65) if n not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, 32, 33)]
TRAPS = "; ".join(f"trap 'echo got {number}' {number}" for number in HANDLED)
HANDLER = ("sh", "-c", f"{TRAPS}; echo ready; while :; do sleep 0.02; done")


@pytest.mark.parametrize("init", [False, True])
@scenario
async def test_every_signal_arrives_once(lab: Lab, init: bool) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run(*HANDLER, Init=init)
        await d.logged(ref, "ready")
        for number in HANDLED:
            if init and number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGTSTP):
                continue  # an init keeps these, as it has no terminal
            await stop.kill(d.engine, ref, str(number))
            await d.logged(ref, f"got {number}\\n")
        said = (await d.output(ref)).split("\n")
        assert len(said) == len(set(said))
        await stop.kill(d.engine, ref)
        assert d.entry(ref).record.state.exit_code == 137
        await d.clean()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL, signal.SIGRTMAX])
@scenario
async def test_the_end_by_a_signal_is_128_and_its_number(lab: Lab, number: int) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sh", "-c", f"trap - {int(number)}; echo ready; sleep 1000", Init=True)
        await d.logged(ref, "ready")
        await stop.kill(d.engine, ref, str(int(number)))
        assert await d.finish(ref) == 128 + number
        await d.clean()


@scenario
async def test_orphans_are_reaped_by_an_init(lab: Lab) -> None:
    orphans = "for i in $(busybox seq 300); do (true & true &) ; done; echo done; exec sleep 1000"
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sh", "-c", orphans, Init=True)
        await d.logged(ref, "done")
        inside = Path(f"/proc/{d.entry(ref).record.state.pid}/task/{d.entry(ref).record.state.pid}/children")
        await d.until(lambda: len(inside.read_text().split()) == 1)
        await d.clean()
