"""Health checks: when the probes of a container run, and what their results make of it (moby daemon/health.go).

A container that is watched costs one timer, and a task while it is probed. No probe holds the container's lock. The
state outlives the daemon; what was due while the daemon was stopped is not made up for: the probes of all containers
are spread over an interval instead.
"""

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from wherry.engine.containers import Entry
from wherry.engine.model import ContainerConfig, Health, HealthConfig, HealthResult
from wherry.engine.probe import FAILED, Outcome, Probe

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

log = logging.getLogger("wherry.engine")

INTERVAL_S, START_INTERVAL_S, TIMEOUT_S, RETRIES = 30.0, 5.0, 30.0, 3
LOG_LENGTH = 5
MINIMUM_NS = 1_000_000
_DEFAULT_SHELL = ["/bin/sh", "-c"]
_LATE_S = 1.0
"""A timer that fires so late fires together with all others: the daemon was stopped, or the host."""
_SPREAD_S = 30.0

ACTIONS = ("", "none", "kill", "restart", "stop")
"""What can be done with a container that becomes unhealthy: HostConfig.HealthcheckOnFailureAction."""


def command(config: ContainerConfig) -> list[str] | None:
    """The command that probes a container; None when there is none to run."""
    test = (config.Healthcheck.Test if config.Healthcheck else None) or ["NONE"]
    if test[0] == "CMD":
        return test[1:]
    if test[0] == "CMD-SHELL":
        return [*(config.Shell or _DEFAULT_SHELL), *test[1:]]
    return None


class Watch:
    """The probes of one running container, from `schedule` to `stop`."""

    def __init__(self, engine: "Engine", entry: Entry, words: list[str]) -> None:
        self._engine = engine
        self._entry = entry
        self._words = words
        self._config = entry.record.config.Healthcheck or HealthConfig()
        self._loop = asyncio.get_running_loop()
        elapsed_s = max(0.0, (time.time_ns() - entry.record.state.started_at) / 1e9)
        self._started = self._loop.time() - elapsed_s
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._probe: Probe | None = None
        self._due = 0.0
        self._put_off = False
        self._stopped = False

    def schedule(self, delay_s: float | None = None) -> None:
        """Probe after `delay_s`, by default the interval that holds now."""
        delay_s = self._interval_s() if delay_s is None else delay_s
        self._due = self._loop.time() + delay_s
        self._timer = self._loop.call_at(self._due, self._tick)

    def resume(self) -> None:
        """Go on as if the daemon had not been away: the next probe is an interval after the last one."""
        health = self._entry.record.state.health
        last = health.log[-1].end if health and health.log else 0
        since_s = (time.time_ns() - max(last, self._entry.record.state.started_at)) / 1e9
        left_s = self._interval_s() - max(0.0, since_s)
        self.schedule(left_s if left_s > 0 else self._share_s())

    def stop(self) -> None:
        """No more probes; one that runs is killed, and its result is of no interest."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _interval_s(self) -> float:
        health = self._entry.record.state.health
        in_start_period = self._loop.time() - self._started < self._config.StartPeriod / 1e9
        if in_start_period and health is not None and health.status == "starting":
            return self._config.StartInterval / 1e9 or START_INTERVAL_S
        return self._config.Interval / 1e9 or INTERVAL_S

    def _share_s(self) -> float:
        """This container's place in an interval, the same at all times."""
        return min(self._interval_s(), _SPREAD_S) * int(self._entry.id[:8], 16) / 2**32

    def _tick(self) -> None:
        if self._loop.time() - self._due > _LATE_S and not self._put_off:
            self._put_off = True
            self.schedule(self._share_s())
            return
        self._put_off = False
        self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        began, began_ns = self._loop.time(), time.time_ns()
        try:
            outcome = await self._outcome()
        except Exception as error:
            log.exception("container %s could not be probed, please report it", self._entry.id)
            outcome = Outcome(FAILED, str(error))
        if self._stopped:
            return
        result = HealthResult(began_ns, time.time_ns(), outcome.exit_code, outcome.output)
        self._take(result, began - self._started < self._config.StartPeriod / 1e9)
        self.schedule()

    async def _outcome(self) -> Outcome:
        previous = self._probe
        if previous is not None and previous.starting is not None and not previous.starting.done():
            # The monitor does not answer: another request would only wait behind the first.
            return Outcome(FAILED, f"timed out starting health check for container {self._entry.id}")
        self._probe = Probe(self._engine, self._entry, self._words, self._config.Timeout / 1e9 or TIMEOUT_S)
        return await self._probe.run()

    def _take(self, result: HealthResult, in_start_period: bool) -> None:
        """Note a result and what follows from it."""
        record = self._entry.record
        health = record.state.health = record.state.health or Health("starting")
        before = (health.status, health.failing_streak)
        health.log = [*health.log, result][-LOG_LENGTH:]
        judge(health, result.exit_code, self._config.Retries, in_start_period)
        if (health.status, health.failing_streak) == before:
            self._entry.unsaved = True  # nothing to hurry for: it is written within a minute
            return
        self._engine.save_or_later(self._entry, durable=False)
        if health.status != before[0]:
            self._engine.publish(record, f"health_status: {health.status}")
            if health.status == "unhealthy":
                self._engine.unhealthy(self._entry)


def judge(health: Health, exit_code: int, retries: int, in_start_period: bool) -> None:
    """What an exit code makes of a state. Failures do not count while a container that was never healthy starts."""
    if exit_code == 0:
        health.status, health.failing_streak = "healthy", 0
    elif health.status != "starting" or not in_start_period:
        health.failing_streak += 1
        if health.failing_streak >= (retries if retries > 0 else RETRIES):
            health.status = "unhealthy"


def begin(engine: "Engine", entry: Entry) -> None:
    """The container was started: its health starts anew; the results of the last run stay in the log, as in Docker."""
    end(entry)
    words = command(entry.record.config)
    if not words:
        entry.record.state.health = None
        return
    old = entry.record.state.health
    entry.record.state.health = Health("starting", 0, old.log if old else [])
    if not engine.closing:
        entry.watch = Watch(engine, entry, words)
        entry.watch.schedule()


def resume(engine: "Engine", entry: Entry) -> None:
    """The container was taken back by a new daemon: its health goes on."""
    words = command(entry.record.config)
    if words:
        entry.record.state.health = entry.record.state.health or Health("starting")
        entry.watch = Watch(engine, entry, words)
        entry.watch.resume()


def unpause(engine: "Engine", entry: Entry) -> None:
    """It goes on; the next probe comes after a whole interval."""
    words = command(entry.record.config)
    if words and entry.watch is None:
        entry.watch = Watch(engine, entry, words)
        entry.watch.schedule()


def end(entry: Entry) -> None:
    """The container ended, or is frozen. What is not probed is not healthy (moby Health.CloseMonitorChannel)."""
    health = entry.record.state.health
    if let_go(entry) and health is not None:
        health.status = "unhealthy"


def let_go(entry: Entry) -> bool:
    """Stop probing and leave the state as it is: the daemon ends. False when nothing was watched."""
    watch, entry.watch = entry.watch, None
    if watch is None:
        return False
    watch.stop()
    return True
