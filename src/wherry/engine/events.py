"""What happened: the last 256 events, and everybody who listens.

A message is the API's EventMessage: `{"Type", "Action", "Actor": {"ID", "Attributes"}, "scope", "time", "timeNano"}`.
A subscriber that does not read is ended once `QUEUE_LIMIT` messages wait for it: nobody can make the engine grow.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

HISTORY = 256
QUEUE_LIMIT = 8192

Message = dict[str, Any]
Filters = Mapping[str, Sequence[str]]

# Actions with text after a colon: a filter naming the bare action matches them too.
_OPEN_ENDED = ("health_status", "exec_create", "exec_start")


class Subscription:
    """An async iterator over messages; ends at `until`, when closed, or when it fell too far behind."""

    def __init__(self, bus: "EventBus", filters: Filters, until_ns: int | None) -> None:
        self._bus = bus
        self._filters = filters
        self._until_ns = until_ns
        self._queue: deque[Message] = deque()
        self._wake = asyncio.Event()
        self._closed = False

    def offer(self, message: Message) -> None:
        """Queue a message if it passes the filters; called by the bus."""
        if not self._closed and matches(message, self._filters):
            self._queue.append(message)
            self._wake.set()
            if len(self._queue) > QUEUE_LIMIT:
                self.close()

    def close(self) -> None:
        """Leave the bus; what is queued can still be read."""
        self._closed = True
        self._bus.leave(self)
        self._wake.set()

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Message:
        while True:
            if self._queue:
                return self._queue.popleft()
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            try:
                async with asyncio.timeout(self._left_s()):
                    await self._wake.wait()
            except TimeoutError:
                self.close()

    def _left_s(self) -> float | None:
        return None if self._until_ns is None else max(0.0, (self._until_ns - time.time_ns()) / 1e9)


class EventBus:
    """Publishing never waits; each subscriber has a queue of its own."""

    def __init__(self) -> None:
        self._history: deque[Message] = deque(maxlen=HISTORY)
        self._subscribers: set[Subscription] = set()
        self._last_ns = 0

    def publish(self, kind: str, action: str, actor_id: str, attributes: Mapping[str, str]) -> None:
        """Tell everybody. Times never run backwards within the stream, even when the clock does."""
        now = self._last_ns = max(time.time_ns(), self._last_ns + 1)
        message: Message = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": actor_id, "Attributes": dict(attributes)},
            "scope": "local",
            "time": now // 1_000_000_000,
            "timeNano": now,
        }
        self._history.append(message)
        for subscriber in tuple(self._subscribers):
            subscriber.offer(message)

    def subscribe(
        self, since_ns: int | None = None, until_ns: int | None = None, filters: Filters | None = None
    ) -> Subscription:
        """Listen from now on; with `since_ns` the remembered messages from then come first. `until_ns` ends the
        stream, at once after the replay when it has passed. Registered when this returns."""
        subscription = Subscription(self, filters or {}, until_ns)
        self._subscribers.add(subscription)
        if since_ns is not None:
            for message in self._history:
                if since_ns <= message["timeNano"] and (until_ns is None or message["timeNano"] <= until_ns):
                    subscription.offer(message)
        if until_ns is not None and until_ns <= time.time_ns():
            subscription.close()
        return subscription

    @property
    def listeners(self) -> int:
        """How many subscribers there are."""
        return len(self._subscribers)

    def leave(self, subscription: Subscription) -> None:
        """Forget a subscriber; idempotent."""
        self._subscribers.discard(subscription)

    def close(self) -> None:
        """End every stream: the daemon goes."""
        for subscriber in tuple(self._subscribers):
            subscriber.close()


def matches(message: Message, filters: Filters) -> bool:
    """Whether `message` passes Docker's event filters: every key must match, by any of its values; keys nobody knows
    are ignored (GET /events)."""
    kind, action, actor = message["Type"], message["Action"], message["Actor"]
    for key, wanted in filters.items():
        if not wanted:
            continue
        if key == "event":
            ok = any(_event_matches(action, value) for value in wanted)
        elif key == "type":
            ok = kind in wanted
        elif key == "scope":
            ok = message["scope"] in wanted
        elif key == "label":
            ok = all(_label_matches(actor["Attributes"], value) for value in wanted)
        elif key == "image":
            ok = _image_matches(kind, actor, wanted)
        elif key in ("container", "network", "volume", "plugin", "daemon", "node", "service", "secret", "config"):
            ok = _names_match(actor, wanted)
        else:
            ok = True
        if not ok:
            return False
    return True


def _event_matches(action: str, wanted: str) -> bool:
    return action == wanted or (wanted in _OPEN_ENDED and action.startswith(f"{wanted}:"))


def _label_matches(attributes: Mapping[str, str], wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in attributes and (not equals or attributes[name] == value)


def _names_match(actor: Mapping[str, Any], wanted: Sequence[str]) -> bool:
    """`container=x`, `network=x`...: the beginning of the actor's id or name, whatever kind of actor it is."""
    names = (str(actor["ID"]), str(actor["Attributes"].get("name", "")))
    return any(name and name.startswith(value) for name in names for value in wanted)


def _image_matches(kind: str, actor: Mapping[str, Any], wanted: Sequence[str]) -> bool:
    attribute = "name" if kind == "image" else "image"
    name = str(actor["Attributes"].get(attribute, ""))
    return any(value in (str(actor["ID"]), name, _without_tag(name)) for value in wanted)


def _without_tag(name: str) -> str:
    head, colon, tail = name.rpartition(":")
    return head if colon and "/" not in tail else name
