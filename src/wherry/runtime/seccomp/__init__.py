"""Seccomp filters: from the OCI profile to the BPF program that the kernel runs before every system call."""

import json
import os
from typing import Any

from wherry.linux.seccomp import FILTER_FLAGS, SPEC_ALLOW
from wherry.runtime.seccomp.compiler import compile_filter

_CACHE_SIZE = 64
_compiled: dict[str, bytes] = {}


def compile_profile(profile: dict[str, Any], *, arch: str | None = None) -> bytes:
    """Compile `profile`, an OCI `linux.seccomp` object, for the machine `arch` (as `uname -m` names it, default this
    one). Returns an array of `struct sock_filter` for `wherry.linux.seccomp.load_filter`. Equal profiles are compiled
    once per process. Raises ValueError for an unknown action, operator or architecture and for SCMP_ACT_NOTIFY."""
    machine = arch or os.uname().machine
    key = machine + json.dumps(profile, sort_keys=True)
    if key not in _compiled:
        while len(_compiled) >= _CACHE_SIZE:
            del _compiled[next(iter(_compiled))]
        _compiled[key] = compile_filter(profile, machine)
    return _compiled[key]


def filter_flags(profile: dict[str, Any]) -> int:
    """The SECCOMP_FILTER_FLAG_* for seccomp(2) that `profile` asks for; none asked means SPEC_ALLOW, as in runc. Raises
    ValueError for an unknown flag."""
    if profile.get("flags") is None:
        return SPEC_ALLOW
    flags = 0
    for name in profile["flags"]:
        if name not in FILTER_FLAGS:
            raise ValueError(f"seccomp flag {name!r} is not known")
        flags |= FILTER_FLAGS[name]
    return flags


__all__ = ["compile_profile", "filter_flags"]
