"""Why containers ended, and what their restart policies make of it."""

import asyncio
import os
import signal
import time

import pytest

from tests.engine.enginelab import Lab, scenario
from wherry.engine import launch, restarts, start, stop
from wherry.errors import NotModified


def reason(d, ref: str) -> str:
    return d.entry(ref).record.state.stop_reason


@scenario
async def test_reasons(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sh", "-c", "exit 3")
        await d.finish(ref)
        assert reason(d, ref) == "exited"
        ref = await d.run("sleep", "1000")
        os.kill(d.entry(ref).record.state.pid, signal.SIGKILL)
        await d.finish(ref)
        assert reason(d, ref) == "signal: SIGKILL"
        ref = await d.run("sleep", "1000")
        await stop.kill(d.engine, ref)
        assert reason(d, ref) == "kill: SIGKILL"
        # A signal by request that did not end it is no reason.
        ref = await d.run("sh", "-c", "trap '' USR1; echo up; sleep 0.5; exit 0", StopSignal="TERM")
        await d.logged(ref, "up")
        await stop.kill(d.engine, ref, "USR1")
        await d.finish(ref)
        assert reason(d, ref) == "exited"
        await d.clean()


@scenario
async def test_an_ignored_stop_signal_is_told(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sleep", "1000", name="deaf")
        hint = await stop.stop(d.engine, ref, timeout=1)
        assert hint.startswith("deaf ignored SIGTERM for 1s, killed")
        assert reason(d, ref) == "stop: ignored SIGTERM for 1s, killed"
        heeds = await d.run("sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done")
        await d.logged(heeds, "up")
        assert await stop.stop(d.engine, heeds, timeout=60) == ""
        assert reason(d, heeds) == "stop"
        # Without grace it had no chance to heed anything.
        await d.start(ref)
        assert reason(d, ref) == "stop: ignored SIGTERM for 1s, killed"  # of the last run that ended
        assert await stop.stop(d.engine, ref, timeout=0) == ""
        assert reason(d, ref) == "stop"
        await d.clean()


@scenario
async def test_a_restart_by_request_counts_from_zero(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sh", "-c", "exit 1", RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 1})
        entry = d.entry(ref)
        await d.until(lambda: entry.status == "exited" and entry.record.restart_count == 1)
        await stop.restart(d.engine, ref, timeout=0)
        await d.until(lambda: entry.status == "exited" and entry.record.restart_count == 1)
        assert reason(d, ref) == "exited"
        await d.clean()


@pytest.mark.parametrize("how", ["start", "restart", "health", "policy"])
@pytest.mark.parametrize("end", ["stop", "kill"])
@scenario
async def test_what_is_being_started_is_ended(lab: Lab, how: str, end: str) -> None:
    """A request to end that comes in the midst of a start is for what comes of it."""
    reached, gate = asyncio.Event(), asyncio.Event()

    async def held_launch(engine, entry) -> None:
        reached.set()
        await gate.wait()
        await launch.launch(engine, entry)

    async def begin(d, ref: str) -> None:
        if how == "start":
            await start.start(d.engine, ref)
        elif how == "restart":
            await stop.restart(d.engine, ref, timeout=0)
        elif how == "health":
            await stop.when_unhealthy(d.engine, d.entry(ref))
        else:
            os.kill(d.entry(ref).record.state.pid, signal.SIGKILL)

    async with lab.daemon() as d:
        await d.image()
        policy = {"Name": "always"} if how == "policy" else {"Name": "no"}
        fields = {"RestartPolicy": policy, "HealthcheckOnFailureAction": "restart", "StopTimeout": 0}
        ref = await d.create("sleep", "1000", **fields)
        if how != "start":
            await d.start(ref)
        start.launch = restarts.launch = held_launch  # in a process of its own
        beginning = asyncio.create_task(begin(d, ref))
        await reached.wait()
        asked = stop.stop(d.engine, ref, timeout=0) if end == "stop" else stop.kill(d.engine, ref)
        ending = asyncio.create_task(asked)
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(beginning, ending)
        await d.engine.settle()
        assert d.entry(ref).status == "exited"
        with pytest.raises(NotModified):
            await stop.stop(d.engine, ref)
        await d.clean()


@scenario
async def test_a_restart_for_health_is_called_off_between_stop_and_start(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sleep", "1000", HealthcheckOnFailureAction="restart", StopTimeout=0)
        entry = d.entry(ref)
        stop_to_restart = stop._stop_to_restart
        asked = []

        async def stopped_meanwhile(*arguments) -> None:
            await stop_to_restart(*arguments)
            asked.append(asyncio.create_task(stop.stop(d.engine, ref)))
            await asyncio.sleep(0)

        stop._stop_to_restart = stopped_meanwhile  # in a process of its own
        await stop.when_unhealthy(d.engine, entry)
        assert await asked[0] == ""
        assert entry.status == "exited"
        await d.clean()


POLICIES = [
    # policy, exit code, whether it is started again
    ({"Name": "no"}, 1, False),
    ({"Name": "always"}, 0, True),
    ({"Name": "unless-stopped"}, 0, True),
    ({"Name": "on-failure"}, 0, False),
    ({"Name": "on-failure"}, 7, True),
]


@pytest.mark.parametrize(("policy", "code", "again"), POLICIES)
@scenario
async def test_an_exit_while_nobody_looks_is_acted_upon_once(lab: Lab, policy: dict, code: int, again: bool) -> None:
    program = f"echo run >> /runs; [ -e /again ] && exec sleep 1000; touch /again; sleep 0.7; exit {code}"
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sh", "-c", program, RestartPolicy=policy)
    exit_record = d.engine.paths.exit_record(ref)
    deadline = time.monotonic() + 60
    while not exit_record.exists():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    async with lab.daemon() as d:
        entry = d.entry(ref)
        runs = d.engine.paths.upper(ref) / "runs"
        if again:
            await d.until(lambda: entry.status == "running" and runs.read_text() == "run\n" * 2)
        else:
            assert (entry.status, entry.record.state.exit_code, runs.read_text()) == ("exited", code, "run\n")
        assert reason(d, ref) == "exited"
    async with lab.daemon() as d:
        assert runs.read_text() == "run\n" * (2 if again else 1)
        assert d.entry(ref).status == ("running" if again else "exited")
        await d.clean()
