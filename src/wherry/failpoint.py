"""Failpoints: named places between a decision and its effect where a test can stop the world.

`WHERRY_FAILPOINT` is a comma-separated list of `name:action[@n]`: the action happens at the n-th pass (default the
first) of `hit(name)`. Actions:

    kill        the process ends as by SIGKILL, nothing is flushed
    raise       RuntimeError
    errno=N     OSError with that errno
    sleep=S     S seconds pass
    exec=CMD    the shell command CMD runs and is waited for

When the variable is unset, `hit` is a function that does nothing: the cost is one call.
"""

import os
import signal
import time

_ENV = "WHERRY_FAILPOINT"


def _parse(text: str) -> dict[str, tuple[str, int]]:
    points: dict[str, tuple[str, int]] = {}
    for item in filter(None, text.split(",")):
        name, _, action = item.partition(":")
        action, _, count = action.partition("@")
        if not action:
            raise ValueError(f"{_ENV}: {item!r} has no action")
        points[name] = (action, int(count or 1))
    return points


def _act(name: str, action: str) -> None:
    verb, _, argument = action.partition("=")
    if verb == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
        os._exit(128 + signal.SIGKILL)  # the first process of a PID namespace is immune to its own signals
    elif verb == "raise":
        raise RuntimeError(f"failpoint {name}")
    elif verb == "errno":
        raise OSError(int(argument), os.strerror(int(argument)), f"failpoint {name}")
    elif verb == "sleep":
        time.sleep(float(argument))
    elif verb == "exec":
        os.system(argument)
    else:
        raise ValueError(f"{_ENV}: unknown action {action!r} of {name!r}")


def _armed(points: dict[str, tuple[str, int]], name: str) -> None:
    if name not in points:
        return
    action, left = points[name]
    points[name] = (action, left - 1)
    if left == 1:
        _act(name, action)


if os.environ.get(_ENV):
    _points = _parse(os.environ[_ENV])

    def hit(name: str) -> None:
        """Pass the failpoint `name`: act if `WHERRY_FAILPOINT` says so."""
        _armed(_points, name)

else:

    def hit(name: str) -> None:
        """Pass the failpoint `name`: act if `WHERRY_FAILPOINT` says so."""
