"""From an OCI seccomp profile to a BPF program.

The program looks at the architecture first and kills what it does not know. The calls of an architecture become
intervals of numbers with one outcome each, searched by bisection; calls that depend on arguments lead to a chain of
rules. Verdicts are libseccomp's as runc uses it (differential tests hold us to that):

- rules with the default action say nothing; a call's first rule without arguments beats all its other rules;
- of rules with arguments, equality is tried before comparisons, those before masks;
- a rule that names one argument twice is several rules (runc's historic OR);
- numbers above the highest one that the profile mentions give ENOSYS, so that programs fall back (runc's stub).
"""

from typing import Any, NamedTuple

from wherry.runtime.seccomp import architectures
from wherry.runtime.seccomp.architectures import X32_BIT, Architecture
from wherry.runtime.seccomp.assembler import (
    ARCH,
    ARGUMENTS,
    EQUAL,
    GREATER,
    GREATER_EQUAL,
    NUMBER,
    Assembler,
    Position,
)

_EPERM, _ENOSYS = 1, 38
_KILL_THREAD, _ERRNO, _TRACE = 0x00000000, 0x00050000, 0x7FF00000
_ACTIONS = {
    "SCMP_ACT_KILL": _KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": _KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": _ERRNO,
    "SCMP_ACT_TRACE": _TRACE,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_PERMISSIVE = frozenset(("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"))

_NO_CALL = 0xFFFFFFFF
"""The number of a call that a tracer cancelled: it gets the default action even where x32 is unknown."""


class Condition(NamedTuple):
    """(argument & mask) compared with value; `negated` turns the answer round."""

    argument: int
    test: int
    mask: int
    value: int
    negated: bool


class Rule(NamedTuple):
    """All conditions hold -> verdict."""

    conditions: tuple[Condition, ...]
    verdict: int


def compile_filter(profile: dict[str, Any], machine: str) -> bytes:
    """`profile` is `linux.seccomp` of an OCI config, `machine` the host's architecture. Returns an array of
    `struct sock_filter`; raises ValueError for what is malformed or cannot be done."""
    default = verdict_of(profile["defaultAction"], profile.get("defaultErrnoRet"))
    groups: dict[int, list[Architecture]] = {}
    for architecture in _architectures(profile, machine):
        groups.setdefault(architecture.audit, []).append(architecture)
    native = architectures.by_scmp(architectures.scmp_name(machine))
    code = Assembler()
    # The native architecture is emitted last, hence tested first.
    entry = code.stop(_KILL_THREAD)
    for audit, members in sorted(groups.items(), key=lambda item: native is not None and item[0] == native.audit):
        body = code.load(NUMBER, _bisect(code, _intervals(profile, members, default)))
        entry = code.branch(EQUAL, audit, body, entry)
    return code.program(code.load(ARCH, entry))


def verdict_of(action: str, errno_ret: int | None) -> int:
    """The filter's return value for an action; the errno (or tracer's message) defaults to EPERM."""
    if action == "SCMP_ACT_NOTIFY":
        raise ValueError("seccomp action SCMP_ACT_NOTIFY is not supported: there is no agent to ask")
    if action not in _ACTIONS:
        raise ValueError(f"string {action} is not a valid action for seccomp")
    verdict = _ACTIONS[action]
    if verdict in (_ERRNO, _TRACE):
        verdict |= (_EPERM if errno_ret is None else errno_ret) & 0xFFFF
    return verdict


def _architectures(profile: dict[str, Any], machine: str) -> list[Architecture]:
    """The native one, which is always in, and those the profile names."""
    names = [architectures.scmp_name(machine), *(profile.get("architectures") or ())]
    found = (architectures.by_scmp(name) for name in dict.fromkeys(names))
    return [architecture for architecture in found if architecture is not None]


class _Interval(NamedTuple):
    """Calls from `start` up to the next interval's start."""

    start: int
    rules: tuple[Rule, ...]
    verdict: int
    """when no rule matches"""
    bits: int
    big_endian: bool


def _intervals(profile: dict[str, Any], members: list[Architecture], default: int) -> list[_Interval]:
    """What to do with each number for architectures that share an audit number: x86_64 and x32, or a single one."""
    found: list[_Interval] = []
    base = members[0]
    for architecture in sorted(members, key=lambda each: each.name == "x32"):
        start = X32_BIT if architecture.name == "x32" else 0
        found += _intervals_of(profile, architecture, start, default)
    if all(architecture.name != "x32" for architecture in members) and base.name == "x86_64":
        found.append(_Interval(X32_BIT, (), _KILL_THREAD, 64, False))
    if base.audit == 0xC000003E:
        found.append(_Interval(_NO_CALL, (), default, 64, False))
    merged: list[_Interval] = []
    for interval in found:
        if not merged or merged[-1][1:3] != interval[1:3]:
            merged.append(interval)
    return merged


def _intervals_of(profile: dict[str, Any], architecture: Architecture, start: int, default: int) -> list[_Interval]:
    rules, highest = _rules(profile, architecture, default)
    width = (architecture.bits, architecture.big_endian)
    found, position = [], start
    for number in sorted(rules):
        if number > position:
            found.append(_Interval(position, (), default, *width))
        found.append(_leaf(number, rules[number], default, architecture))
        position = number + 1
    if position <= highest:
        found.append(_Interval(position, (), default, *width))
    stub = default if not _wants_stub(profile, default) or highest < start else _ERRNO | _ENOSYS
    found.append(_Interval(max(highest + 1, position), (), stub, *width))
    return found


def _wants_stub(profile: dict[str, Any], default: int) -> bool:
    return profile["defaultAction"] not in _PERMISSIVE and default != _ERRNO | _ENOSYS


def _leaf(number: int, rules: list[Rule], default: int, architecture: Architecture) -> _Interval:
    width = (architecture.bits, architecture.big_endian)
    for rule in rules:
        if not rule.conditions:
            return _Interval(number, (), rule.verdict, *width)
    return _Interval(number, tuple(_ordered(rules)), default, *width)


def _ordered(rules: list[Rule]) -> list[Rule]:
    ranks = {EQUAL: 0, GREATER_EQUAL: 1, GREATER: 2}

    def rank(rule: Rule) -> list[tuple[int, int]]:
        return [
            (each.argument, 3 if each.mask != 2**64 - 1 else ranks[each.test])
            for each in sorted(rule.conditions, key=lambda each: each.argument)
        ]

    return sorted(dict.fromkeys(rules), key=rank)


def _rules(profile: dict[str, Any], architecture: Architecture, default: int) -> tuple[dict[int, list[Rule]], int]:
    """Number -> rules, and the highest number that the profile mentions (-1: none)."""
    table = architectures.table(architecture)
    rules: dict[int, list[Rule]] = {}
    highest = -1
    for syscall in profile.get("syscalls") or ():
        verdict = verdict_of(syscall["action"], syscall.get("errnoRet"))
        variants = _variants(syscall.get("args") or ())
        for name in syscall["names"]:
            number = table.get(name)
            if number is not None:
                highest = max(highest, number)
            if verdict == default:
                continue
            for conditions in variants:
                if number is not None:
                    rules.setdefault(number, []).append(Rule(conditions, verdict))
                if architecture.multiplexed:
                    _add_multiplexed(rules, table, name, Rule(conditions, verdict))
    return rules, highest


def _add_multiplexed(rules: dict[int, list[Rule]], table: dict[str, int], name: str, rule: Rule) -> None:
    """The same call by way of socketcall(2) or ipc(2). The number of the call takes the place of a condition on the
    first argument; other arguments are behind a pointer, or shifted, and compared as they are, as libseccomp does."""
    for carrier, calls in (("socketcall", architectures.SOCKETCALL), ("ipc", architectures.IPC)):
        if name in calls and carrier in table:
            first = Condition(0, EQUAL, 2**64 - 1, calls[name], False)
            rest = tuple(each for each in rule.conditions if each.argument)
            rules.setdefault(table[carrier], []).append(Rule((first, *rest), rule.verdict))


def _variants(args: list[dict[str, Any]] | tuple[()]) -> list[tuple[Condition, ...]]:
    conditions = [_condition(arg) for arg in args]
    indexes = {each.argument for each in conditions}
    if len(indexes) != len(conditions):
        return [(each,) for each in conditions]
    return [tuple(sorted(conditions))]


_OPERATORS = {
    "SCMP_CMP_NE": (EQUAL, True),
    "SCMP_CMP_LT": (GREATER_EQUAL, True),
    "SCMP_CMP_LE": (GREATER, True),
    "SCMP_CMP_EQ": (EQUAL, False),
    "SCMP_CMP_GE": (GREATER_EQUAL, False),
    "SCMP_CMP_GT": (GREATER, False),
    "SCMP_CMP_MASKED_EQ": (EQUAL, False),
}


def _condition(arg: dict[str, Any]) -> Condition:
    index, operator = arg["index"], arg["op"]
    if operator not in _OPERATORS:
        raise ValueError(f"string {operator} is not a valid operator for seccomp")
    if not 0 <= index <= 5:
        raise ValueError(f"seccomp argument index {index} is not between 0 and 5")
    test, negated = _OPERATORS[operator]
    value, mask = arg["value"] & (2**64 - 1), 2**64 - 1
    if operator == "SCMP_CMP_MASKED_EQ":
        mask, value = value, (arg.get("valueTwo") or 0) & value
    return Condition(index, test, mask, value, negated)


def _bisect(code: Assembler, intervals: list[_Interval]) -> Position:
    """Find the interval of the number in the accumulator."""
    if len(intervals) == 1:
        return _outcome(code, intervals[0])
    middle = len(intervals) // 2
    high = _bisect(code, intervals[middle:])
    low = _bisect(code, intervals[:middle])
    return code.branch(GREATER_EQUAL, intervals[middle].start, high, low)


def _outcome(code: Assembler, interval: _Interval) -> Position:
    entry = code.stop(interval.verdict)
    for rule in reversed(interval.rules):
        otherwise, entry = entry, code.stop(rule.verdict)
        for condition in reversed(rule.conditions):
            entry = _compare(code, condition, interval, entry, otherwise)
    return entry


def _compare(code: Assembler, condition: Condition, interval: _Interval, yes: Position, no: Position) -> Position:
    if condition.negated:
        yes, no = no, yes
    offset = ARGUMENTS + 8 * condition.argument
    low_word, high_word = (offset + 4, offset) if interval.big_endian else (offset, offset + 4)
    entry = _word(code, low_word, condition.test, condition.mask & 0xFFFFFFFF, condition.value & 0xFFFFFFFF, yes, no)
    if interval.bits == 32:
        return entry
    mask, value = condition.mask >> 32, condition.value >> 32
    if condition.test != EQUAL:
        # A high word that differs decides alone.
        same = code.branch(EQUAL, value, entry, no)
        return code.load(high_word, code.branch(GREATER, value, yes, same))
    return _word(code, high_word, EQUAL, mask, value, entry, no)


def _word(code: Assembler, offset: int, test: int, mask: int, value: int, yes: Position, no: Position) -> Position:
    if not mask:
        return yes
    entry = code.branch(test, value, yes, no)
    if mask != 0xFFFFFFFF:
        entry = code.mask(mask, entry)
    return code.load(offset, entry)
