"""The device controller of cgroup v2: an eBPF program per cgroup, made and attached with bpf(2).

A program is a list of 8-byte instructions (Documentation/bpf/standardization/instruction-set.rst) that gets a
`struct bpf_cgroup_dev_ctx {u32 access_type, major, minor}` and returns 1 to allow, 0 to deny.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from typing import NamedTuple

from wherry.linux.syscalls import NR, syscall

_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 9, 13, 16
_PROG_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE = 15, 6
_ALLOW_MULTI, _REPLACE = 1 << 1, 1 << 2
_BLOCK, _CHAR = 1, 2
_BITS = {"m": 1, "r": 2, "w": 4}

# Opcodes: class | operation | source.
_LOAD_WORD, _MOVE, _MOVE_REGISTER, _AND, _SHIFT_RIGHT = 0x61, 0xB7, 0xBF, 0x57, 0x77
_JUMP_EQUAL, _JUMP_UNEQUAL, _JUMP_UNEQUAL_REGISTER, _EXIT = 0x15, 0x55, 0x5D, 0x95
_RESULT, _CONTEXT, _TYPE, _ACCESS, _MAJOR, _MINOR, _SCRATCH = 0, 1, 2, 3, 4, 5, 6


class DeviceException(NamedTuple):
    """Nodes for which the default is turned around."""

    kind: str
    """ "b" or "c" """
    major: int
    """-1: any"""
    minor: int
    access: str
    """letters of "rwm" """


def device_program(default_allow: bool, exceptions: Iterable[DeviceException]) -> bytes:
    """Instructions that answer `not default_allow` for an access that an exception matches, else `default_allow`.

    An allowing exception must cover all of an access (opening read-write asks for r and w at once), a denying one
    only a part of it."""
    code = [
        _instruction(_LOAD_WORD, _TYPE, _CONTEXT, 0),
        _instruction(_MOVE_REGISTER, _ACCESS, _TYPE),
        _instruction(_AND, _TYPE, value=0xFFFF),
        _instruction(_SHIFT_RIGHT, _ACCESS, value=16),
        _instruction(_LOAD_WORD, _MAJOR, _CONTEXT, 4),
        _instruction(_LOAD_WORD, _MINOR, _CONTEXT, 8),
    ]
    for exception in exceptions:
        code += _exception(exception, allowing=not default_allow)
    code += [_instruction(_MOVE, _RESULT, value=int(default_allow)), _instruction(_EXIT)]
    return b"".join(code)


def _exception(exception: DeviceException, allowing: bool) -> list[bytes]:
    # Tests are (opcode, register, source register, value); each jumps over the rest of this exception.
    tests = [(_JUMP_UNEQUAL, _TYPE, 0, _BLOCK if exception.kind == "b" else _CHAR)]
    mask = sum(_BITS[letter] for letter in set(exception.access))
    if mask != 7:
        tests.append((_MOVE_REGISTER, _SCRATCH, _ACCESS, 0))
        tests.append((_AND, _SCRATCH, 0, mask))
        tests.append((_JUMP_UNEQUAL_REGISTER, _SCRATCH, _ACCESS, 0) if allowing else (_JUMP_EQUAL, _SCRATCH, 0, 0))
    if exception.major >= 0:
        tests.append((_JUMP_UNEQUAL, _MAJOR, 0, exception.major))
    if exception.minor >= 0:
        tests.append((_JUMP_UNEQUAL, _MINOR, 0, exception.minor))
    length = len(tests) + 2
    code = []
    for index, (opcode, register, source, value) in enumerate(tests):
        jumps = opcode in (_JUMP_EQUAL, _JUMP_UNEQUAL, _JUMP_UNEQUAL_REGISTER)
        code.append(_instruction(opcode, register, source, length - index - 1 if jumps else 0, value))
    return [*code, _instruction(_MOVE, _RESULT, value=int(allowing)), _instruction(_EXIT)]


def _instruction(opcode: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", opcode, source << 4 | target, offset, value)


def load_device_program(code: bytes) -> int:
    """Load `code`; returns the program's descriptor. Raises OSError, with the verifier's last words when it refused."""
    instructions, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"Apache-2.0")
    log = ctypes.create_string_buffer(4096)

    def attributes(verbose: bool) -> bytes:
        return struct.pack(
            "=IIQQIIQII16s",
            *(_PROG_TYPE_CGROUP_DEVICE, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence)),
            *((1, len(log), ctypes.addressof(log)) if verbose else (0, 0, 0)),
            *(0, 0, b"wherry_devices"),
        )

    try:
        return _bpf(_PROG_LOAD, attributes(False))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES):
            raise
    try:
        return _bpf(_PROG_LOAD, attributes(True))
    except OSError as error:
        words = log.value.decode("ascii", "replace").strip().replace("\n", "; ")
        raise OSError(error.errno, f"bpf(PROG_LOAD): {error.strerror}: {words[-300:]}") from None


def attached_device_programs(directory: str) -> list[int]:
    """Ids of the device programs attached to the cgroup `directory` itself."""
    target = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _query(target)
    finally:
        os.close(target)


def _query(target: int) -> list[int]:
    ids = (ctypes.c_uint32 * 64)()
    request = bytearray(struct.pack("=IIIIQI", target, _ATTACH_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), 64))
    request += bytes(64 - len(request))
    answer = _bpf_in_place(_PROG_QUERY, request)
    return list(ids[: struct.unpack_from("=I", answer, 24)[0]])


def replace_device_program(directory: str, code: bytes) -> None:
    """Make `code` the one device program of the cgroup `directory`.

    There is no moment without a program: a single old one is replaced in place (Linux 5.6), otherwise the new one is
    attached beside the old before those are detached (all attached programs must allow). Raises OSError."""
    target = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    opened = [target]
    try:
        old = []
        for identity in _query(target):
            old.append(_bpf(_PROG_GET_FD_BY_ID, struct.pack("=III", identity, 0, 0)))
            opened.append(old[-1])
        program = load_device_program(code)
        opened.append(program)
        if len(old) == 1 and _attach(target, program, _ALLOW_MULTI | _REPLACE, old[0]):
            return
        _attach(target, program, _ALLOW_MULTI, 0)
        for each in old:
            _bpf(_PROG_DETACH, struct.pack("=IIII", target, each, _ATTACH_CGROUP_DEVICE, 0))
    finally:
        for fd in opened:
            os.close(fd)


def _attach(target: int, program: int, flags: int, replaced: int) -> bool:
    """False: this kernel knows no replacing, or the old program was attached otherwise than ours."""
    try:
        _bpf(_PROG_ATTACH, struct.pack("=IIIII", target, program, _ATTACH_CGROUP_DEVICE, flags, replaced))
    except OSError as error:
        if flags & _REPLACE and error.errno in (errno.EINVAL, errno.ENOENT, errno.EPERM):
            return False
        raise
    return True


def _bpf(command: int, attributes: bytes) -> int:
    return syscall(NR.bpf, command, attributes, len(attributes))


def _bpf_in_place(command: int, attributes: bytearray) -> bytes:
    buffer = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    syscall(NR.bpf, command, buffer, len(attributes))
    return bytes(attributes)
