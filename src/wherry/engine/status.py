"""How `docker ps` words a state: "Up 5 minutes (healthy)", "Exited (0) 3 days ago" (moby container/state.go)."""

import time

from wherry.engine.model import State


def status_text(state: State, now_ns: int | None = None) -> str:
    """The sentence for `state` at `now_ns` (default: now)."""
    now = time.time_ns() if now_ns is None else now_ns
    if state.status in ("running", "paused"):
        up = f"Up {human_duration(now - state.started_at)}"
        if state.status == "paused":
            return f"{up} (Paused)"
        health = state.health.status if state.health else "none"
        words = {"none": "", "starting": " (health: starting)"}
        return up + words.get(health, f" ({health})")
    if state.status == "restarting":
        return f"Restarting ({state.exit_code}) {human_duration(now - state.finished_at)} ago"
    if state.status == "removing":
        return "Removal In Progress"
    if state.status == "dead":
        return "Dead"
    if not state.started_at:
        return "Created"
    if not state.finished_at:
        return ""
    return f"Exited ({state.exit_code}) {human_duration(now - state.finished_at)} ago"


def human_duration(ns: int) -> str:
    """A duration in words, as Go's units.HumanDuration."""
    seconds = ns / 1e9
    if int(seconds) < 1:
        return "Less than a second"
    if int(seconds) == 1:
        return "1 second"
    if seconds < 60:
        return f"{int(seconds)} seconds"
    minutes = int(seconds / 60)
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds / 3600 / 24 / 365)} years"
