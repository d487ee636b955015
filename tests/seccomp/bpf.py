"""A classic BPF machine for filters of system calls: what would the kernel's verdict be?"""

import struct


def decode(program: bytes, order: str = "=") -> list[tuple[int, int, int, int]]:
    return [struct.unpack(f"{order}HBBI", program[at : at + 8]) for at in range(0, len(program), 8)]


def run(
    code: list[tuple[int, int, int, int]], number: int, audit: int, args: tuple[int, ...] = (), order: str = "="
) -> int:
    """The verdict of decoded `code` for one call on a machine of byte `order`."""
    padded = (*args, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack(f"{order}IIQ6Q", number & 0xFFFFFFFF, audit, 0, *(arg & (2**64 - 1) for arg in padded))
    accumulator, at = 0, 0
    while True:
        opcode, yes, no, value = code[at]
        at += 1
        if opcode == 0x20:
            assert value % 4 == 0
            (accumulator,) = struct.unpack_from(f"{order}I", data, value)
        elif opcode == 0x54:
            accumulator &= value
        elif opcode == 0x06:
            return value
        elif opcode == 0x05:
            at += value
        elif opcode in (0x15, 0x25, 0x35, 0x45):
            hit = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value}
            hit[0x45] = bool(accumulator & value)
            at += yes if hit[opcode] else no
        else:
            raise AssertionError(f"opcode {opcode:#x}")
