"""Following the usage of several containers at once: a thread reads each one's stream, and one the events."""

from __future__ import annotations

import threading

from wherry.client.engine import Engine, quote
from wherry.client.errors import APIError, ClientError
from wherry.client.progress import messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.cli.session import Session


def listed(session: Session, *, everything: bool) -> list[str]:
    """The ids of the containers that run, or of all."""
    found = session.engine.json("GET", "/containers/json", {"all": "1"} if everything else None)
    return [container["Id"] for container in found]


class Watch:
    """The newest reading of each of `names`, or, when there are none, of whatever runs (with `everything`: exists)."""

    def __init__(self, session: Session, names: list[str], *, everything: bool) -> None:
        self.failure = ""
        self._endpoint, self._version = session.endpoint, session.engine.version
        self._everything = everything
        self._readings: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._failed = threading.Event()
        first = [self._follow(name) for name in names or self._begin_with(session)]
        self._complain = bool(names)
        for ready in first:
            ready.wait(5)

    def readings(self) -> list[tuple[str, dict[str, Any]]]:
        """(what the user called it, reading) in the order they came."""
        with self._lock:
            return list(self._readings.items())

    def wait(self, seconds: float) -> bool:
        """Wait a while; true when something failed, which `failure` says."""
        return self._failed.wait(seconds)

    def _begin_with(self, session: Session) -> list[str]:
        threading.Thread(target=self._watch_events, daemon=True).start()
        return listed(session, everything=self._everything)

    def _engine(self) -> Engine:
        return Engine(self._endpoint, self._version, "wherry (linux)")

    def _follow(self, name: str) -> threading.Event:
        """Start to read one container's stream; the event is set once there is a reading or none will come."""
        ready = threading.Event()
        with self._lock:
            if name in self._readings:
                ready.set()
                return ready
            self._readings[name] = {}
        threading.Thread(target=self._read, args=(name, ready), daemon=True).start()
        return ready

    def _read(self, name: str, ready: threading.Event) -> None:
        try:
            response = self._engine().request("GET", f"/containers/{quote(name, '/:')}/stats", {"stream": "1"})
            for reading in messages(response.pieces()):
                with self._lock:
                    if name not in self._readings:
                        return
                    self._readings[name] = reading
                ready.set()
        except (ClientError, OSError) as error:
            if self._complain or not (isinstance(error, APIError) and error.status == 404):
                self._fail(str(error))
        finally:
            self._drop(name)
            ready.set()

    def _watch_events(self) -> None:
        """Take up what starts, drop what ends (or, when all are shown, what is created and removed)."""
        begin, end = ("create", "destroy") if self._everything else ("start", "die")
        query = {"filters": '{"type":{"container":true}}'}
        try:
            for event in messages(self._engine().request("GET", "/events", query).pieces()):
                if event["Action"] == begin:
                    self._follow(event["Actor"]["ID"])
                elif event["Action"] == end:
                    self._drop(event["Actor"]["ID"])
        except (ClientError, OSError) as error:
            self._fail(str(error))

    def _drop(self, name: str) -> None:
        with self._lock:
            self._readings.pop(name, None)

    def _fail(self, text: str) -> None:
        self.failure = text
        self._failed.set()
