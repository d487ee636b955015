"""The compiler against libseccomp: the same profile must give the same verdict for every call."""

import itertools
import json
import random
from pathlib import Path

import pytest

from wherry.linux import seccomp
from wherry.runtime.seccomp import architectures, compile_profile, docker
from wherry.runtime.seccomp.compiler import compile_filter

from . import bpf, oracle

ENOSYS = 0x50026
KILL = 0
X86_64 = seccomp.AUDIT_ARCHITECTURES["x86_64"]
ORIGIN = json.loads((Path(__file__).parent.parent / "data" / "seccomp-docker-default.json").read_text())
EVERY_CAPABILITY = sorted({cap for rule in ORIGIN["syscalls"] for cap in (rule.get("includes") or {}).get("caps", [])})
DEFAULT_CAPABILITIES = ["CAP_CHOWN", "CAP_SYS_CHROOT", "CAP_KILL"]
CAPABILITY_SETS = [[], DEFAULT_CAPABILITIES, EVERY_CAPABILITY, *([capability] for capability in EVERY_CAPABILITY)]
ARGUMENTS = [
    (),
    *((value,) for value in (1, 8, 37, 38, 39, 40, 41, 0x20000, 0x20008, 0x20009, 0xFFFFFFFF, 0x1FFFFFFFF, 2**64 - 1)),
    *((flag,) for flag in (0x10000000, 0x40000000, 0x02000000, 0x01200011, 0x100000000, 0x110000000)),
    (0, 0x10000000),
]
GROUPS = [["x86_64", "x86", "x32"], ["aarch64", "arm"], ["riscv64"], ["s390x"], ["ppc64le"]]


def architecture(name: str) -> architectures.Architecture:
    found = architectures.by_scmp(architectures.scmp_name(name))
    assert found is not None
    return found


def expected(theirs: int, number: int, highest: int) -> int:
    """libseccomp's verdict with runc's stub in front."""
    return ENOSYS if number > highest else theirs


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group[0])
def test_default_profile_agrees_with_libseccomp(group):
    sets = CAPABILITY_SETS if group[0] == "x86_64" else [DEFAULT_CAPABILITIES, EVERY_CAPABILITY]
    for capabilities in sets:
        profile = docker.resolve(ORIGIN, capabilities, group[0], (6, 1))
        ours = bpf.decode(compile_filter(profile, group[0]))
        order = ">" if group == ["s390x"] else "="
        theirs = bpf.decode(oracle.compile_profile(profile, group), order)
        for name in group:
            arch = architecture(name)
            names = {each for rule in profile["syscalls"] for each in rule["names"]}
            table = architectures.table(arch)
            highest = max(table[each] for each in names if each in table)
            # What only our newer tables know is not for libseccomp to judge.
            newer = {number for each, number in table.items() if not oracle.has_number(name, each)}
            conditional = _conditional(profile, table)
            start = architectures.X32_BIT if name == "x32" else 0
            for number in {*range(start, start + 620), *table.values(), highest + 1, highest + 99}:
                if number in newer:
                    continue
                for args in ARGUMENTS if number in conditional else ARGUMENTS[:1]:
                    want = bpf.run(theirs, number, arch.audit, args, order)
                    if want not in (KILL, 0x7FFF0000, 0x50001, ENOSYS):
                        # Of a foreign byte order libseccomp leaves some of the returned values as they are.
                        want = int.from_bytes(want.to_bytes(4, "big"), "little")
                    want = expected(want, number, highest)
                    got = bpf.run(ours, number, arch.audit, args, order)
                    assert got == want, (capabilities, name, number, args)


def _conditional(profile, table):
    names = {each for rule in profile["syscalls"] if rule.get("args") for each in rule["names"]}
    return {table[each] for each in names | {"socketcall", "ipc"} if each in table}


def test_what_a_filter_says_is_known_before_it_is_loaded():
    profile = docker.profile_for([], arch="x86_64", kernel=(6, 1))
    program = compile_filter(profile, "x86_64")
    code = bpf.decode(program)
    for number, argument in itertools.product(range(470), (0, 0x01200011, 0x7E020000, 2**63)):
        assert seccomp.verdict(program, X86_64, number, (argument,)) == bpf.run(code, number, X86_64, (argument,))
    namespaces = 0x7E020000
    assert seccomp.verdict(program, X86_64, 56, (0x01200011,)) == 0x7FFF0000
    assert seccomp.verdict(program, X86_64, 56, (namespaces,)) == 0x00050001


def test_filter_is_small():
    profile = docker.profile_for(DEFAULT_CAPABILITIES, arch="x86_64", kernel=(6, 1))
    theirs = len(oracle.compile_profile(profile, GROUPS[0]))
    assert len(compile_filter(profile, "x86_64")) < theirs / 2


def test_unknown_architecture_and_x32_are_killed():
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}
    code = bpf.decode(compile_filter(profile, "x86_64"))
    x86_64 = architecture("x86_64").audit
    assert bpf.run(code, 0, x86_64) == 0x7FFF0000
    assert bpf.run(code, 0, architecture("x86").audit) == KILL
    assert bpf.run(code, 0, 0xC00000B7) == KILL
    for number in (0x40000000, 0x40000200, 0xFFFFFFFE):
        assert bpf.run(code, number, x86_64) == KILL
    # A tracer cancelled the call: nobody is to be killed for that.
    assert bpf.run(code, 0xFFFFFFFF, x86_64) == 0x7FFF0000


def test_an_architecture_without_a_table_is_no_error():
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_MIPS"]}
    assert compile_filter(profile, "x86_64")


def test_numbers_above_the_highest_mentioned_are_enosys():
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["read", "lseek"], "action": "SCMP_ACT_ALLOW"}],
    }
    code = bpf.decode(compile_filter(profile, "x86_64"))
    audit = architecture("x86_64").audit
    verdicts = [bpf.run(code, number, audit) for number in (0, 1, 7, 8, 9, 500)]
    assert verdicts == [0x7FFF0000, 0x50001, 0x50001, 0x7FFF0000, ENOSYS, ENOSYS]


@pytest.mark.parametrize("action", ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"])
def test_no_enosys_where_the_default_lets_through(action):
    profile = {"defaultAction": action, "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO"}]}
    code = bpf.decode(compile_filter(profile, "x86_64"))
    assert bpf.run(code, 500, architecture("x86_64").audit) >> 16 >= 0x7FF0


OPERATORS = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]
EDGES = [0, 1, 5, 6, 0x7FFFFFFF, 0xFFFFFFFF, 0x100000000, 0x100000005, 0x500000001, 2**63, 2**64 - 1]


@pytest.mark.parametrize("operator", OPERATORS)
def test_operators_on_64_bits(operator):
    audits = [architecture(name).audit for name in GROUPS[0]]
    for value in EDGES:
        arg = {"index": 2, "op": f"SCMP_CMP_{operator}", "value": value, "valueTwo": 0x100000001}
        rule = {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "args": [arg]}
        arches = [architectures.scmp_name(name) for name in GROUPS[0]]
        profile = {"defaultAction": "SCMP_ACT_ERRNO", "architectures": arches, "syscalls": [rule]}
        ours = bpf.decode(compile_filter(profile, "x86_64"))
        theirs = bpf.decode(oracle.compile_profile(profile, GROUPS[0]))
        for number, audit in ((101, audits[0]), (26, audits[1]), (0x40000000 + 521, audits[2])):
            for tried in EDGES:
                args = (9, 9, tried)
                assert bpf.run(ours, number, audit, args) == bpf.run(theirs, number, audit, args), (value, tried)


def test_random_rules_agree_with_libseccomp():
    """One rule a call: where several with different arguments meet, libseccomp's tree loses some of them."""
    chance = random.Random(7)
    audit, audit32 = architecture("x86_64").audit, architecture("x86").audit
    calls = ((101, audit), (41, audit), (26, audit32), (102, audit32), (359, audit32))
    for _ in range(60):
        rules = [_random_rule(chance, name) for name in ("ptrace", "socket")]
        profile = {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": rules}
        ours = bpf.decode(compile_filter(profile, "x86_64"))
        theirs = bpf.decode(oracle.compile_profile(profile, ["x86_64", "x86"]))
        for args, (number, arch) in itertools.product(VALUES, calls):
            assert bpf.run(ours, number, arch, args) == bpf.run(theirs, number, arch, args), (profile, number, args)


VALUES = list(itertools.product((0, 3, 7, 0x100000003), repeat=3))


def test_random_profiles_mean_any_rule_with_all_conditions():
    chance = random.Random(8)
    for _ in range(100):
        rules = [_random_rule(chance, "ptrace") for _ in range(chance.randint(2, 7))]
        profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}
        code = bpf.decode(compile_filter(profile, "x86_64"))
        for args in VALUES:
            want = any(all(_true(arg, args[arg["index"]]) for arg in rule["args"]) for rule in rules)
            assert bpf.run(code, 101, 0xC000003E, args) == (0x7FFF0000 if want else 0x50001), (profile, args)


def test_one_argument_twice_is_an_alternative():
    """runc's historic behaviour, which profiles rely on (see the socket rules of the default)."""
    args = [_arg("EQ", 1), _arg("EQ", 2), {"index": 1, "op": "SCMP_CMP_EQ", "value": 5}]
    rule = {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "args": args}
    code = bpf.decode(compile_filter({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]}, "x86_64"))
    allowed = [
        args for args in [*VALUES, (1,), (2,), (9, 5), (9, 6)] if bpf.run(code, 101, 0xC000003E, args) != 0x50001
    ]
    assert allowed == [(1,), (2,), (9, 5)]


def _true(arg, tried):
    value = arg["value"]
    return {
        "NE": tried != value,
        "LT": tried < value,
        "LE": tried <= value,
        "EQ": tried == value,
        "GE": tried >= value,
        "GT": tried > value,
        "MASKED_EQ": tried & value == arg["valueTwo"] & value,
    }[arg["op"].removeprefix("SCMP_CMP_")]


def _random_rule(chance, name):
    indexes = chance.sample(range(3), chance.choice((1, 1, 2, 2, 3)))
    args = [
        {
            "index": index,
            "op": f"SCMP_CMP_{chance.choice(OPERATORS)}",
            "value": chance.choice((0, 1, 3, 7, 0x100000003)),
            "valueTwo": chance.choice((0, 1, 3)),
        }
        for index in indexes
    ]
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": args}


def test_equality_beats_comparison_whatever_the_order():
    """The one case of two actions for one call where libseccomp's order is not the profile's."""
    compare = {"names": ["ptrace"], "action": "SCMP_ACT_ERRNO", "errnoRet": 3, "args": [_arg("GT", 3)]}
    equal = {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "args": [_arg("EQ", 5)]}
    for rules in ([compare, equal], [equal, compare]):
        profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}
        ours = bpf.decode(compile_filter(profile, "x86_64"))
        theirs = bpf.decode(oracle.compile_profile(profile, ["x86_64"]))
        for value in (3, 4, 5, 6, 0x100000005):
            got = bpf.run(ours, 101, 0xC000003E, (value,))
            assert got == bpf.run(theirs, 101, 0xC000003E, (value,))
            assert (got == 0x7FFF0000) == (value == 5)


def _arg(operator, value):
    return {"index": 0, "op": f"SCMP_CMP_{operator}", "value": value}


def test_first_rule_without_arguments_wins():
    rules = [
        {"names": ["ptrace"], "action": "SCMP_ACT_LOG", "args": [_arg("EQ", 1)]},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["ptrace"], "action": "SCMP_ACT_TRAP"},
    ]
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}
    code = bpf.decode(compile_filter(profile, "x86_64"))
    assert {bpf.run(code, 101, 0xC000003E, (value,)) for value in (0, 1, 2)} == {0x7FFF0000}


def test_thousand_rules_of_one_call_need_long_jumps():
    rules = [{"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "args": [_arg("EQ", 3 * n)]} for n in range(600)]
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [*rules, {"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}
    code = bpf.decode(compile_filter(profile, "x86_64"))
    for value in (0, 1, 3, 898, 900, 1797, 1798, 1800):
        want = 0x7FFF0000 if value % 3 == 0 and value < 1800 else 0x50001
        assert bpf.run(code, 101, 0xC000003E, (value,)) == want
    assert bpf.run(code, 0, 0xC000003E) == 0x7FFF0000


@pytest.mark.parametrize(
    ("action", "errno_ret", "verdict"),
    [
        ("SCMP_ACT_KILL", None, 0),
        ("SCMP_ACT_KILL_THREAD", None, 0),
        ("SCMP_ACT_KILL_PROCESS", None, 0x80000000),
        ("SCMP_ACT_TRAP", None, 0x00030000),
        ("SCMP_ACT_ERRNO", None, 0x00050001),
        ("SCMP_ACT_ERRNO", 38, 0x00050026),
        ("SCMP_ACT_ERRNO", 0, 0x00050000),
        ("SCMP_ACT_TRACE", 7, 0x7FF00007),
        ("SCMP_ACT_LOG", None, 0x7FFC0000),
        ("SCMP_ACT_ALLOW", None, 0x7FFF0000),
    ],
)
def test_actions(action, errno_ret, verdict):
    rule = {"names": ["ptrace", "vhangup"], "action": action, "errnoRet": errno_ret}
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 9, "syscalls": [rule]}
    assert bpf.run(bpf.decode(compile_filter(profile, "x86_64")), 101, 0xC000003E) == verdict


@pytest.mark.parametrize(
    ("profile", "text"),
    [
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "SCMP_ACT_NOTIFY is not supported"),
        ({"defaultAction": "SCMP_ACT_NOPE"}, "SCMP_ACT_NOPE is not a valid action"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["VAX"]}, "VAX is not a valid arch"),
        (
            {
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [_arg("XX", 1)]}],
            },
            "SCMP_CMP_XX is not a valid operator",
        ),
        (
            {
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [
                    {
                        "names": ["read"],
                        "action": "SCMP_ACT_ALLOW",
                        "args": [{"index": 6, "op": "SCMP_CMP_EQ", "value": 0}],
                    }
                ],
            },
            "index 6",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(profile, text):
    with pytest.raises(ValueError, match=text):
        compile_filter(profile, "x86_64")


def test_equal_profiles_are_compiled_once():
    first = compile_profile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []})
    again = compile_profile({"syscalls": [], "defaultAction": "SCMP_ACT_ALLOW"})
    assert first is again
