"""What the results of health probes make of a state, without any container."""

import pytest

from wherry.engine.health import command, judge
from wherry.engine.model import ContainerConfig, Health, HealthConfig
from wherry.engine.probe import go_duration


@pytest.mark.parametrize(
    ("status", "streak", "exit_code", "retries", "start_period", "after"),
    [
        ("starting", 0, 0, 3, True, ("healthy", 0)),
        ("starting", 0, 1, 1, True, ("starting", 0)),
        ("starting", 0, 1, 2, False, ("starting", 1)),
        ("starting", 2, 1, 0, False, ("unhealthy", 3)),  # 0 retries are Docker's 3
        ("healthy", 0, 1, 2, True, ("healthy", 1)),  # once healthy, the start period is over
        ("healthy", 1, -1, 2, False, ("unhealthy", 2)),
        ("unhealthy", 9, 0, 2, False, ("healthy", 0)),
    ],
)
def test_judgement(status, streak, exit_code, retries, start_period, after) -> None:
    health = Health(status, streak)
    judge(health, exit_code, retries, start_period)
    assert (health.status, health.failing_streak) == after


@pytest.mark.parametrize(
    ("test", "shell", "words"),
    [
        (None, None, None),
        ([], None, None),
        (["NONE"], None, None),
        (["CMD", "a", "b c"], None, ["a", "b c"]),
        (["CMD-SHELL", "a b"], None, ["/bin/sh", "-c", "a b"]),
        (["CMD-SHELL", "a b"], ["/bin/ash", "-ec"], ["/bin/ash", "-ec", "a b"]),
        (["OTHER", "a"], None, None),
    ],
)
def test_commands(test, shell, words) -> None:
    assert command(ContainerConfig(Healthcheck=HealthConfig(Test=test), Shell=shell)) == words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "1s"), (0.2, "200ms"), (0.0015, "1.5ms"), (1.5, "1.5s"), (90, "1m30s"), (3600, "1h0m0s"), (30, "30s")],
)
def test_durations(seconds, text) -> None:
    assert go_duration(seconds) == text
