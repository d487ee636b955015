"""`docker top`: what ps would show of a container's processes, read from /proc on the outside.

Docker runs the host's ps; here nothing is run. The options understood are those that ps(1) of procps and people use:
`-ef -F -l -j -e -A`, `aux`, `l`, `j`, `-o LIST`, combined as in `-eo pid,comm` or `axo pid,args`.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from wherry.engine import procfs
from wherry.engine.procfs import Host, Process
from wherry.errors import Internal
from wherry.runtime.cgroups import open_cgroup

if TYPE_CHECKING:
    from wherry.engine.engine import Engine


class Column(NamedTuple):
    """A heading, and how to get the cell."""

    title: str
    cell: Callable[[Process, Host], str]


def _percent_cpu(p: Process, host: Host) -> float:
    elapsed = host.now - p.started
    return min(100.0 * p.cpu_s / elapsed, 999.0) if elapsed > 0 else 0.0


def _clock(seconds: float) -> str:
    whole = int(seconds)
    days, whole = divmod(whole, 86400)
    text = f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"
    return f"{days}-{text}" if days else text


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _elapsed(seconds: float) -> str:
    text = _clock(max(0.0, seconds))
    return text.removeprefix("00:") if "-" not in text else text


def _began(p: Process, host: Host) -> str:
    then, now = time.localtime(p.started), time.localtime(host.now)
    if then[:3] == now[:3]:
        return time.strftime("%H:%M", then)
    return time.strftime("%b%d" if then.tm_year == now.tm_year else "%Y", then)


def _stat(p: Process, _: Host) -> str:
    marks = ("<" if p.nice < 0 else "N" if p.nice > 0 else "") + ("L" if p.locked else "")
    marks += "s" if p.session == p.pid else ""
    marks += "l" if p.threads > 1 else ""
    return p.state + marks + ("+" if p.tpgid == p.pgrp and p.tpgid > 0 else "")


_KEYWORDS: dict[str, Column] = {
    "pid": Column("PID", lambda p, _: str(p.pid)),
    "ppid": Column("PPID", lambda p, _: str(p.ppid)),
    "pgid": Column("PGID", lambda p, _: str(p.pgrp)),
    "pgrp": Column("PGRP", lambda p, _: str(p.pgrp)),
    "sid": Column("SID", lambda p, _: str(p.session)),
    "sess": Column("SESS", lambda p, _: str(p.session)),
    "user": Column("USER", lambda p, _: procfs.user_name(p.euid)),
    "euser": Column("EUSER", lambda p, _: procfs.user_name(p.euid)),
    "ruser": Column("RUSER", lambda p, _: procfs.user_name(p.ruid)),
    "uid": Column("UID", lambda p, _: str(p.euid)),
    "euid": Column("EUID", lambda p, _: str(p.euid)),
    "ruid": Column("RUID", lambda p, _: str(p.ruid)),
    "group": Column("GROUP", lambda p, _: procfs.group_name(p.egid)),
    "egroup": Column("EGROUP", lambda p, _: procfs.group_name(p.egid)),
    "rgroup": Column("RGROUP", lambda p, _: procfs.group_name(p.rgid)),
    "gid": Column("GID", lambda p, _: str(p.egid)),
    "egid": Column("EGID", lambda p, _: str(p.egid)),
    "rgid": Column("RGID", lambda p, _: str(p.rgid)),
    "comm": Column("COMMAND", lambda p, _: p.comm),
    "ucmd": Column("CMD", lambda p, _: p.comm),
    "ucomm": Column("COMMAND", lambda p, _: p.comm),
    "args": Column("COMMAND", lambda p, _: p.args),
    "command": Column("COMMAND", lambda p, _: p.args),
    "cmd": Column("CMD", lambda p, _: p.args),
    "pcpu": Column("%CPU", lambda p, h: f"{_percent_cpu(p, h):.1f}"),
    "%cpu": Column("%CPU", lambda p, h: f"{_percent_cpu(p, h):.1f}"),
    "c": Column("C", lambda p, h: str(int(min(_percent_cpu(p, h), 99)))),
    "pmem": Column("%MEM", lambda p, h: f"{p.rss / 1024 * 100 / h.memory_kib:.1f}"),
    "%mem": Column("%MEM", lambda p, h: f"{p.rss / 1024 * 100 / h.memory_kib:.1f}"),
    "vsz": Column("VSZ", lambda p, _: str(p.vsize // 1024)),
    "vsize": Column("VSZ", lambda p, _: str(p.vsize // 1024)),
    "rss": Column("RSS", lambda p, _: str(p.rss // 1024)),
    "rssize": Column("RSS", lambda p, _: str(p.rss // 1024)),
    "rsz": Column("RSZ", lambda p, _: str(p.rss // 1024)),
    "sz": Column("SZ", lambda p, _: str(p.vsize // 4096)),
    "tty": Column("TT", lambda p, _: procfs.tty_name(p.tty)),
    "tt": Column("TT", lambda p, _: procfs.tty_name(p.tty)),
    "tname": Column("TTY", lambda p, _: procfs.tty_name(p.tty)),
    "stat": Column("STAT", _stat),
    "s": Column("S", lambda p, _: p.state),
    "state": Column("S", lambda p, _: p.state),
    "time": Column("TIME", lambda p, _: _clock(p.cpu_s)),
    "cputime": Column("TIME", lambda p, _: _clock(p.cpu_s)),
    "bsdtime": Column("TIME", lambda p, _: _minutes(p.cpu_s)),
    "etime": Column("ELAPSED", lambda p, h: _elapsed(h.now - p.started)),
    "etimes": Column("ELAPSED", lambda p, h: str(max(0, int(h.now - p.started)))),
    "stime": Column("STIME", _began),
    "start": Column("STARTED", lambda p, _: time.strftime("%H:%M:%S", time.localtime(p.started))),
    "start_time": Column("START", _began),
    "lstart": Column("STARTED", lambda p, _: time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(p.started))),
    "ni": Column("NI", lambda p, _: str(p.nice)),
    "nice": Column("NI", lambda p, _: str(p.nice)),
    "pri": Column("PRI", lambda p, _: str(39 - p.priority)),
    "opri": Column("PRI", lambda p, _: str(60 + p.priority)),
    "priority": Column("PRI", lambda p, _: str(p.priority)),
    "nlwp": Column("NLWP", lambda p, _: str(p.threads)),
    "thcount": Column("THCNT", lambda p, _: str(p.threads)),
    "psr": Column("PSR", lambda p, _: str(p.processor)),
    "wchan": Column("WCHAN", lambda p, _: procfs.waiting_in(p.pid)),
    "f": Column("F", lambda p, _: str(p.flags >> 6 & 7)),
    "flags": Column("F", lambda p, _: str(p.flags >> 6 & 7)),
    "addr": Column("ADDR", lambda p, _: "-"),
}
_KEYWORDS["user_as_uid"] = Column("UID", _KEYWORDS["user"].cell)

_FORMATS = {
    "": "pid tname time ucmd",
    "f": "user_as_uid pid ppid c stime tname time cmd",
    "F": "user_as_uid pid ppid c sz rss psr stime tname time cmd",
    "l": "f s uid pid ppid c opri ni addr sz wchan tname time ucmd",
    "j": "pid pgid sid tname time ucmd",
    "bsd": "pid tname stat bsdtime args",
    "bsd u": "user pid %cpu %mem vsz rss tname stat start_time bsdtime args",
    "bsd l": "f uid pid ppid priority ni vsz rss wchan stat tname bsdtime args",
    "bsd j": "ppid pid pgid sid tname tpgid stat uid bsdtime args",
}
_KEYWORDS["tpgid"] = Column("TPGID", lambda p, _: str(p.tpgid))


async def top(engine: "Engine", ref: str, ps_args: str = "-ef") -> tuple[list[str], list[list[str]]]:
    """(titles, one row of cells a process). Raises `Conflict` when the container does not run, `Internal` with ps's
    words for options it does not know. GET /containers/{id}/top."""
    entry = engine.containers.lookup(ref)
    entry.check("top", ref)
    columns = parse_arguments(ps_args or "-ef")
    if not any(column.title == "PID" for column in columns):
        raise Internal("Couldn't find PID field in ps output")
    rows = await engine.run_blocking(_rows, engine.cgroup_path(entry.id, entry.record), columns)
    engine.publish(entry.record, "top")
    return [column.title for column in columns], rows


def _rows(cgroup_path: str, columns: list[Column]) -> list[list[str]]:
    host = procfs.read_host()
    found = (procfs.read_process(pid, host) for pid in sorted(set(open_cgroup(cgroup_path).pids())))
    return [[column.cell(process, host) for column in columns] for process in found if process is not None]


def parse_arguments(text: str) -> list[Column]:
    """The columns that these arguments of ps ask for; raises `Internal` as Docker shows a failing ps."""
    layout, custom, bsd = "", [], False
    words = text.split()
    while words:
        word = words.pop(0)
        dashed = word.startswith("-")
        letters = word.lstrip("-")
        if dashed and "a" in letters and "u" in letters and "x" in letters and "o" not in letters:
            dashed = False  # "-aux": what everybody means is aux
        bsd = bsd or not dashed
        for at, letter in enumerate(letters):
            if letter == "o":
                listed = letters[at + 1 :] or (words.pop(0) if words else "")
                custom += _custom(listed)
                break
            layout = _layout(letter, layout, dashed=dashed)
    if custom:
        return custom
    return [_KEYWORDS[name] for name in _FORMATS[_chosen(layout, bsd=bsd)].split()]


def _layout(letter: str, layout: str, *, dashed: bool) -> str:
    """What one option letter makes of the layout; those that only choose or order processes change nothing."""
    if dashed:
        if letter in "fFlj":
            return letter
        if letter in "eAadwHNycM":
            return layout
        raise Internal("ps: error: unsupported SysV option")
    if letter in "ulj":
        return f"bsd {letter}"
    if letter in "axfweSrgch":
        return layout
    if letter == "p":
        raise Internal("ps: error: process ID list syntax error")
    raise Internal("ps: error: unsupported option (BSD syntax)")


def _chosen(layout: str, *, bsd: bool) -> str:
    return layout or ("bsd" if bsd else "")


def _custom(listed: str) -> list[Column]:
    columns = []
    rest = listed
    while rest:
        name, _, after = rest.partition(",")
        title = None
        if "=" in name:  # the heading is everything to the end, commas too
            (name, _, title), after = rest.partition("="), ""
        keyword = _KEYWORDS.get(name.strip().lower())
        if keyword is None:
            raise Internal(f'ps: error: unknown user-defined format specifier "{name.strip()}"')
        columns.append(keyword if title is None else keyword._replace(title=title))
        rest = after
    if not columns:
        raise Internal("ps: error: improper list")
    return columns
