"""Classic BPF, assembled back to front.

Every jump of a filter goes forward, so code is emitted in reverse: what is jumped to already exists and has a position,
and a jump that spans more than its 8-bit offset gets a stepping stone at once. See Documentation/networking/filter.rst
and linux/seccomp.h (`struct seccomp_data` is nr at 0, arch at 4, args of 64 bits from 16).
"""

import struct
from typing import NewType

Position = NewType("Position", int)
"""an instruction, counted from the end of the program"""

NUMBER, ARCH, ARGUMENTS = 0, 4, 16

_LOAD, _AND, _RETURN, _ALWAYS = 0x20, 0x54, 0x06, 0x05
EQUAL, GREATER, GREATER_EQUAL = 0x15, 0x25, 0x35

MAX_INSTRUCTIONS = 4096
"""BPF_MAXINSNS"""


class Assembler:
    """Holds the program that exists so far; each method puts an instruction before it and returns its position."""

    def __init__(self) -> None:
        self._reversed: list[tuple[int, int, int, int]] = []
        self._returns: dict[int, Position] = {}

    def _emit(self, code: int, yes: int, no: int, value: int) -> Position:
        self._reversed.append((code, yes, no, value))
        return Position(len(self._reversed) - 1)

    def _distance(self, target: Position) -> int:
        """Instructions between the next one emitted and `target`."""
        return len(self._reversed) - target - 1

    def stop(self, verdict: int) -> Position:
        """Return `verdict`; one that is near enough is used again."""
        known = self._returns.get(verdict)
        if known is not None and self._distance(known) < 200:
            return known
        self._returns[verdict] = self._emit(_RETURN, 0, 0, verdict)
        return self._returns[verdict]

    def load(self, offset: int, then: Position) -> Position:
        """Load the word at `offset` of the data into the accumulator, go on at `then`."""
        self._go(then)
        return self._emit(_LOAD, 0, 0, offset)

    def mask(self, value: int, then: Position) -> Position:
        """And the accumulator with `value`, go on at `then`."""
        self._go(then)
        return self._emit(_AND, 0, 0, value)

    def _go(self, target: Position) -> None:
        if distance := self._distance(target):
            self._emit(_ALWAYS, 0, 0, distance)

    def branch(self, test: int, value: int, yes: Position, no: Position) -> Position:
        """Compare the accumulator with `value` by `test` (EQUAL, GREATER, GREATER_EQUAL; unsigned)."""
        # Two for the stepping stones that may still come between.
        if self._distance(no) > 253:
            self._go(no)
            no = Position(len(self._reversed) - 1)
        if self._distance(yes) > 254:
            self._go(yes)
            yes = Position(len(self._reversed) - 1)
        return self._emit(test, self._distance(yes), self._distance(no), value)

    def program(self, start: Position) -> bytes:
        """The whole as an array of `struct sock_filter`, entered at `start`. Raises ValueError when it is longer than
        the kernel takes."""
        self._go(start)
        if len(self._reversed) > MAX_INSTRUCTIONS:
            raise ValueError(f"seccomp filter of {len(self._reversed)} instructions is above {MAX_INSTRUCTIONS}")
        return b"".join(struct.pack("=HBBI", *each) for each in reversed(self._reversed))
