"""A storm of requests about a few containers: whatever order they took effect in, there is one that explains every
answer. The history is checked against a model of a container, as etcd checks its own."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from .host import Host
from .wire import Wire

# CREATING: the name is taken, and nothing is there yet. GOING: it is being removed, and may run for a moment still.
GONE, CREATING, CREATED, RUNNING, PAUSED, EXITED, GOING = STATES = (
    "gone", "creating", "created", "running", "paused", "exited", "going",
)  # fmt: skip
CREATE = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}}
REQUESTS = {
    "create": ("POST", "/containers/create?name={}", CREATE),
    "start": ("POST", "/containers/{}/start", None),
    "stop": ("POST", "/containers/{}/stop?t=0", None),
    "kill": ("POST", "/containers/{}/kill", None),
    "pause": ("POST", "/containers/{}/pause", None),
    "unpause": ("POST", "/containers/{}/unpause", None),
    "inspect": ("GET", "/containers/{}/json", None),
    "exec": ("POST", "/containers/{}/exec", {"Cmd": ["true"]}),
    "remove": ("DELETE", "/containers/{}", None),
    "remove by force": ("DELETE", "/containers/{}?force=1", None),
}
# What is asked → what it is → (the answer, what it is then); what is not there stays so, and is told with 404. What
# takes its time has a second step: until then it is taken for what it was, or for what it is on its way to.
MODEL: dict[str, dict[str, tuple[int | str, str]]] = {
    "create": {GONE: (201, CREATING)} | {state: (409, state) for state in STATES[1:]},
    "start": {CREATED: (204, RUNNING), RUNNING: (304, RUNNING), PAUSED: (409, PAUSED), EXITED: (204, RUNNING),
              GOING: (409, GOING)},
    "stop": {CREATED: (304, CREATED), RUNNING: (204, RUNNING), PAUSED: (204, RUNNING), EXITED: (304, EXITED)},
    "kill": {CREATED: (409, CREATED), RUNNING: (204, RUNNING), PAUSED: (204, RUNNING), EXITED: (409, EXITED)},
    "pause": {CREATED: (409, CREATED), RUNNING: (204, PAUSED), PAUSED: (409, PAUSED), EXITED: (409, EXITED)},
    "unpause": {CREATED: (500, CREATED), RUNNING: (500, RUNNING), PAUSED: (204, RUNNING), EXITED: (500, EXITED)},
    "exec": {CREATED: (409, CREATED), RUNNING: (201, RUNNING), PAUSED: (409, PAUSED), EXITED: (409, EXITED)},
    "inspect": {state: (state, state) for state in (CREATED, RUNNING, PAUSED, EXITED)},
    "remove": {CREATED: (204, GOING), RUNNING: (409, RUNNING), PAUSED: (409, PAUSED), EXITED: (204, GOING),
               GOING: (409, GOING)},
    "remove by force": dict.fromkeys((CREATED, RUNNING, PAUSED, EXITED, GOING), (204, GOING)),
}  # fmt: skip


SLOW = ("create", "stop", "kill", "remove", "remove by force")


class Done(NamedTuple):
    """A request and its answer: for an inspection what it showed, else the status."""

    asked: float
    answered: float
    what: str
    answer: int | str


def ask(wire: Wire, name: str, what: str) -> Done:
    method, path, body = REQUESTS[what]
    asked = time.monotonic()
    reply = wire.quietly(method, path.format(name), body)
    answered = time.monotonic()
    assert 0 < reply.status < 500 or what == "unpause", (what, reply)
    shown = reply.json()["State"]["Status"] if what == "inspect" and reply.status == 200 else ""
    return Done(asked, answered, what, shown or reply.status)


def outcome(done: Done, state: str, pending: set[str]) -> str | None:
    """The state that a request leads to in a state, None when its answer would have been another one. `pending` is
    what has a second step yet to come: a process asked to end may have ended, one that is removed by force, too."""
    if state in (GONE, CREATING) and done.what != "create":
        return state if done.answer == 404 else None
    if state == GOING and done.what not in ("create", "start", "remove", "remove by force"):
        return state if done.answer != 404 else None
    if state == GOING and done.what == "remove" and done.answer == 204 and "remove by force" in pending:
        return state
    if pending & {"stop", "kill"} and state == RUNNING and done.what in ("pause", "exec") and done.answer == 409:
        return state
    answer, after = MODEL[done.what][state]
    return after if answer == done.answer else None


def second_step(what: str, state: str) -> str:
    if what in ("stop", "kill"):
        return EXITED if state in (RUNNING, PAUSED) else state
    return {CREATING: CREATED, GOING: GONE}.get(state, state)


def explains(history: list[Done]) -> bool:
    """Whether the requests took effect in some order that agrees with their times and with the model."""
    todo = sorted(history)
    seen: set[tuple[int, int, str]] = set()

    def search(done: int, second: int, state: str) -> bool:
        """`done`: the requests that took effect; `second`: those of them that have a second step yet to come."""
        if done == (1 << len(todo)) - 1 and not second:
            return True
        if (done, second, state) in seen:
            return False
        seen.add((done, second, state))
        open_ = [i for i in range(len(todo)) if not done >> i & 1 or second >> i & 1]
        pending = {todo[i].what for i in open_ if second >> i & 1}
        resumes = pending & {"stop", "kill"} and state == PAUSED  # as each of their signals does
        if resumes and search(done, second, RUNNING):
            return True
        horizon = min(todo[i].answered for i in open_)
        for i in open_:
            if todo[i].asked > horizon:
                break
            if second >> i & 1:
                if search(done, second & ~(1 << i), second_step(todo[i].what, state)):
                    return True
                continue
            after = outcome(todo[i], state, pending)
            more = todo[i].what in SLOW and todo[i].answer in (201, 204)
            if after is not None and search(done | 1 << i, second | more << i, after):
                return True
        return False

    return search(0, 0, GONE)


def work(wire: Wire, seed: int, names: list[str], count: int) -> list[tuple[str, Done]]:
    dice = random.Random(seed)
    found = []
    for _ in range(count):
        name, what = dice.choice(names), dice.choice([*REQUESTS, "create", "start", "start"])
        found.append((name, ask(wire, name, what)))
    return found


def storm(host: Host, seed: int, workers: int, count: int) -> None:
    wire = Wire(host.address)
    names = [f"storm{number}" for number in range(4)]
    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(work, wire, seed * 100 + number, names, count) for number in range(workers)]
        found = [done for job in jobs for done in job.result()]
    for name in names:
        history = [done for about, done in found if about == name]
        assert explains(history), f"seed {seed}: {name}:\n" + "\n".join(map(str, sorted(history)))
        wire.quietly("DELETE", f"/containers/{name}?force=1")
    host.wait_until(lambda: not host.leaks(), "the end of everything")
    assert "Traceback" not in (host.root / "wherryd.log").read_text()


def test_the_checker_finds_what_no_order_explains():
    def done(at: int, what: str, answer: int | str, until: int = 0) -> Done:
        return Done(at, until or at + 0.5, what, answer)

    assert explains(
        [done(1, "create", 201), done(2, "start", 204), done(3, "stop", 204, 9), done(4, "inspect", "exited")]
    )
    assert explains([done(1, "create", 201), done(2, "remove", 204, 9), done(3, "start", 409), done(4, "kill", 409)])
    assert not explains([done(1, "create", 201), done(2, "create", 201)])
    assert not explains([done(1, "create", 201), done(2, "start", 204), done(3, "inspect", "exited")])
    assert not explains([done(1, "create", 201), done(2, "remove by force", 204), done(3, "inspect", "created")])


@pytest.mark.parametrize("seed", range(3))
def test_every_answer_can_be_explained(own_host, seed):
    storm(own_host, seed, workers=5, count=60)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_answer_can_be_explained_for_long(own_host):
    for seed in range(100, 200):
        storm(own_host, seed, workers=8, count=100)
