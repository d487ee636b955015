"""`wherry stats`: a line per container, once or again and again."""

from __future__ import annotations

from wherry.cli.command import TABLE_FORMAT, Command
from wherry.cli.errors import StatusError
from wherry.cli.flags import Flag
from wherry.cli.rows import Row, render, short_id
from wherry.cli.units import human_size
from wherry.client.engine import quote
from wherry.client.errors import APIError
from wherry.jsontext import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session

DEFAULT = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
_REFRESH_S = 0.5
_HOME, _END_OF_LINE, _BELOW = "\x1b[H", " \x1b[K", "\x1b[J"


class StatsRow(Row):
    """A reading of GET /containers/{id}/stats; `container` is what the user called it. Without "read" it failed."""

    type_name = "*container.statsContext"

    def __init__(self, data: dict[str, Any], container: str, *, trunc: bool) -> None:
        super().__init__(data, trunc=trunc)
        self.container = container


def _id(row: Row) -> str:
    identifier: str = row.data.get("id", "")
    return short_id(identifier) if row.trunc else identifier


def _cpu_percent(data: dict[str, Any]) -> float:
    now, before = data["cpu_stats"], data["precpu_stats"]
    used = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    passed = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    if used <= 0 or passed <= 0:
        return 0.0
    cpus = now.get("online_cpus") or len(now["cpu_usage"].get("percpu_usage") or ())
    return float(used / passed * cpus * 100)


def _memory(data: dict[str, Any]) -> int:
    """What cannot be taken back: usage without the page cache that is not active."""
    memory = data["memory_stats"]
    used: int = memory.get("usage", 0)
    details = memory.get("stats") or {}
    for key in ("total_inactive_file", "inactive_file"):
        if key in details:
            return used - details[key] if details[key] < used else used
    return used


def _memory_percent(data: dict[str, Any]) -> float:
    limit = data["memory_stats"].get("limit", 0)
    return _memory(data) / limit * 100 if limit else 0.0


def _memory_usage(data: dict[str, Any]) -> str:
    used, limit = _memory(data), data["memory_stats"].get("limit", 0)
    return f"{human_size(used, binary=True)} / {human_size(limit, binary=True)}"


def _network(data: dict[str, Any]) -> str:
    interfaces = (data.get("networks") or {}).values()
    received, sent = (sum(each[key] for each in interfaces) for key in ("rx_bytes", "tx_bytes"))
    return f"{human_size(received, 3)} / {human_size(sent, 3)}"


def _blocks(data: dict[str, Any]) -> str:
    entries = data["blkio_stats"].get("io_service_bytes_recursive") or []
    read, written = (sum(e["value"] for e in entries if e["op"][:1].lower() == letter) for letter in "rw")
    return f"{human_size(read, 3)} / {human_size(written, 3)}"


def _shown(text: Callable[[dict[str, Any]], str], missing: str = "--") -> Callable[[Row], str]:
    return lambda row: text(row.data) if "read" in row.data else missing


StatsRow.COLUMNS = {
    "Container": ("CONTAINER", lambda row: row.container),
    "Name": ("NAME", lambda row: row.data.get("name", "").removeprefix("/") or "--"),
    "ID": ("CONTAINER ID", lambda row: _id(row) or "--"),
    "CPUPerc": ("CPU %", _shown(lambda data: f"{_cpu_percent(data):.2f}%")),
    "MemUsage": ("MEM USAGE / LIMIT", _shown(_memory_usage, "-- / --")),
    "MemPerc": ("MEM %", _shown(lambda data: f"{_memory_percent(data):.2f}%")),
    "NetIO": ("NET I/O", _shown(_network)),
    "BlockIO": ("BLOCK I/O", _shown(_blocks)),
    "PIDs": ("PIDS", _shown(lambda data: str(data["pids_stats"].get("current", 0)))),
}


def _path(name: str) -> str:
    return f"/containers/{quote(name, '/:')}/stats"


def _run(session: Session, parsed: Parsed) -> int:
    form = parsed["format"] or session.config.text("statsFormat")
    if parsed["no-stream"]:
        return _once(session, parsed, form)
    from wherry.cli.watching import Watch

    watch = Watch(session, parsed.arguments, everything=parsed["all"])
    try:
        while True:
            readings = watch.readings()
            if parsed.arguments and not readings:
                return 0
            session.out(_screen(_table(readings, parsed, form)))
            if watch.wait(_REFRESH_S):
                raise StatusError(watch.failure)
    except KeyboardInterrupt:
        return 130


def _once(session: Session, parsed: Parsed, form: str) -> int:
    from wherry.cli.watching import listed

    names = parsed.arguments or listed(session, everything=parsed["all"])
    exchanges = session.engine.request_all(("GET", _path(name), {"stream": "0"}) for name in names)
    readings, failures = [], []
    for name, exchange in zip(names, exchanges, strict=True):
        try:
            readings.append((name, loads(exchange().read())))
        except APIError as error:
            if parsed.arguments or error.status != 404:  # one of all that ended meanwhile is no failure
                failures.append(str(error))
    if failures:
        raise StatusError("\n".join(failures))
    session.out(_table(readings, parsed, form))
    return 0


def _table(readings: list[tuple[str, dict[str, Any]]], parsed: Parsed, form: str) -> str:
    rows = [StatsRow(data, name, trunc=not parsed["no-trunc"]) for name, data in readings]
    return render(StatsRow, rows, form, DEFAULT)


def _screen(text: str) -> str:
    """The text over what was there before: no flicker, nothing of the old left."""
    lines = "".join(f"{line}{_END_OF_LINE}\n" for line in text.splitlines())
    return f"{_HOME}{lines}{_BELOW}"


FLAGS = (
    Flag("all", "bool", "Show all containers (default shows just running)", short="a"),
    TABLE_FORMAT,
    Flag("no-stream", "bool", "Disable streaming stats and only pull the first result"),
    Flag("no-trunc", "bool", "Do not truncate output"),
)
COMMANDS = {"stats": Command("[OPTIONS] [CONTAINER...]", _run, FLAGS)}
