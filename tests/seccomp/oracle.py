"""libseccomp itself, driven the way runc drives it."""

import ctypes
import tempfile
from typing import Any

import pyseccomp

from wherry.runtime.seccomp.compiler import verdict_of

_OPERATORS = {
    "SCMP_CMP_NE": pyseccomp.NE,
    "SCMP_CMP_LT": pyseccomp.LT,
    "SCMP_CMP_LE": pyseccomp.LE,
    "SCMP_CMP_EQ": pyseccomp.EQ,
    "SCMP_CMP_GE": pyseccomp.GE,
    "SCMP_CMP_GT": pyseccomp.GT,
    "SCMP_CMP_MASKED_EQ": pyseccomp.MASKED_EQ,
}
ARCHES = {
    "x86_64": pyseccomp.Arch.X86_64,
    "x86": pyseccomp.Arch.X86,
    "x32": pyseccomp.Arch.X32,
    "aarch64": pyseccomp.Arch.AARCH64,
    "arm": pyseccomp.Arch.ARM,
    "riscv64": pyseccomp.Arch.RISCV64,
    "s390x": pyseccomp.Arch.S390X,
    "ppc64le": pyseccomp.Arch.PPC64LE,
}
UNKNOWN = -1
"""pyseccomp's answer for a name libseccomp has never heard of"""


def resolve(arch: str, name: str) -> int:
    return pyseccomp.resolve_syscall(ARCHES[arch], name)


def has_number(arch: str, name: str) -> bool:
    """libseccomp has a number for it on `arch`, be it the multiplexer's (-100 to -299); others are below."""
    return resolve(arch, name) > -10000 and resolve(arch, name) != UNKNOWN


def known(name: str) -> bool:
    """libseccomp's own table has it (for some architecture)."""
    return resolve("x86_64", name) != UNKNOWN


def compile_profile(profile: dict[str, Any], arches: list[str]) -> bytes:
    """The OCI profile as a filter for exactly `arches`, exported by libseccomp."""
    default = verdict_of(profile["defaultAction"], profile.get("defaultErrnoRet"))
    engine = pyseccomp.SyscallFilter(default)
    # Byte orders do not mix: the native one goes first.
    if "x86_64" not in arches:
        engine.remove_arch(pyseccomp.Arch.X86_64)
    for arch in arches:
        if not engine.exist_arch(ARCHES[arch]):
            engine.add_arch(ARCHES[arch])
    for rule in profile.get("syscalls") or ():
        action = verdict_of(rule["action"], rule.get("errnoRet"))
        if action == default:
            continue
        for name in rule["names"]:
            if known(name):
                _add(engine, action, name, rule.get("args") or [])
    with tempfile.TemporaryFile() as file:
        engine.export_bpf(file)
        file.seek(0)
        return file.read()


def _add(engine: Any, action: int, name: str, args: list[dict[str, Any]]) -> None:
    conditions = [_condition(arg) for arg in args]
    if len({arg["index"] for arg in args}) < len(args):
        for condition in conditions:
            engine.add_rule(action, name, condition)
    else:
        engine.add_rule(action, name, *conditions)


def _condition(arg: dict[str, Any]) -> pyseccomp.Arg:
    value, second = (ctypes.c_uint64(arg.get(key) or 0).value for key in ("value", "valueTwo"))
    return pyseccomp.Arg(arg["index"], _OPERATORS[arg["op"]], value, second)
