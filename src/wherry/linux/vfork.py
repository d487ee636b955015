"""A child in our own memory until it executes its program: clone(2) with CLONE_VM and CLONE_VFORK.

After fork(2) each page that either side writes to is copied, one fault at a time, and counting references writes to
most pages; execve(2) then throws all that away. A child that shares our memory copies nothing, while we wait.

What it runs is Python, in our interpreter and in the place of the thread that waits, on a stack of its own. It must
leave the interpreter as it found it, so it may neither execute nor exit from within: each step returns first, and libc
goes on to the next one (makecontext(3), uc_link):

    clone → setcontext → prepare() → execve → failed() → _exit

Descriptors, working directory, umask, signal dispositions and everything that prctl(2) and namespaces speak of are the
child's own; Python objects are not. A child that is killed on its way may leave the interpreter in disorder: do this
in a process that ends soon, and with nothing the child could wait for us to do.
"""

import ctypes
import mmap
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from wherry.linux.syscalls import check

EXEC_FAILED = 255  # what runc's init exits with when execve(2) fails after the start
_CLONE_VM, _CLONE_VFORK = 0x00000100, 0x00004000
_SLICE = 256 << 10  # of memory, for each step: its context and its stack
_CONTEXT = 8 << 10  # no machine's ucontext_t is larger
_STEPS = 4
_SIGNALS = tuple(n for n in range(1, 32) if n not in (signal.SIGKILL, signal.SIGSTOP))

# Unlike CDLL's, these functions do not let go of the interpreter's lock: nobody could give it back to the child.
_libc = ctypes.PyDLL(None, use_errno=True)
_Step = ctypes.PYFUNCTYPE(None)
_memory: list[mmap.mmap] = []


class Program(NamedTuple):
    """What execve(2) takes."""

    path: bytes
    args: list[bytes]
    env: Mapping[bytes, bytes]


class _Context(ctypes.Structure):
    """The beginning of ucontext_t, which is the same on every machine."""

    _fields_ = (
        ("flags", ctypes.c_ulong),
        ("link", ctypes.c_void_p),
        ("stack", ctypes.c_void_p),
        ("stack_flags", ctypes.c_int),
        ("stack_size", ctypes.c_size_t),
        ("rest", ctypes.c_char * (_CONTEXT - 5 * 8)),
    )


# From 3.14 on the interpreter measures its stack, and ours is none it knows; musl has no contexts.
available = sys.version_info < (3, 14) and hasattr(_libc, "makecontext")


def reserve() -> None:
    """Map the memory that the steps need: in a process whose children will use it."""
    if not _memory:
        _memory.append(mmap.mmap(-1, _STEPS * _SLICE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def spawn(prepare: Callable[[], Program | None], failed: Callable[[bytes, int], object]) -> int:
    """Make a child in which `prepare` returns the program to execute, or None to exit with 1; return its pid when it
    has done either. In a child that could not execute, `failed` is called with the path
    and errno, and it exits with EXEC_FAILED.

    Neither may raise. Raises OSError.
    """
    reserve()
    held: list[Any] = []  # what libc has pointers to

    def first() -> None:
        program = prepare()
        if program is None:
            return
        path, args, env = _block(program)
        held.extend((program.path, path, args, env))
        _chain(1, _libc.execve, path, ctypes.cast(args, ctypes.c_void_p), ctypes.cast(env, ctypes.c_void_p), link=True)
        _chain(2, second, link=True)
        _chain(3, _libc._exit, EXEC_FAILED)

    begin = _Step(first)
    second = _Step(lambda: failed(held[0], _errno()))
    handlers = [(number, signal.getsignal(number)) for number in _SIGNALS]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        _chain(1, _libc._exit, 1)
        _chain(0, begin, link=True)
        return _clone()
    finally:
        for number, handler in handlers:  # the child has its own, but there is one table of the interpreter's
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _address(step: int) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(_memory[0])) + step * _SLICE


def _chain(step: int, function: object, *args: object, link: bool = False) -> None:
    """Have `step` call `function`, which may have pointers or ints as arguments, and then go on to the next step."""
    address = _address(step)
    context = _Context.from_address(address)
    check(_libc.getcontext(ctypes.c_void_p(address)), "getcontext")
    context.stack, context.stack_size = address + _CONTEXT, _SLICE - _CONTEXT
    context.link = address + _SLICE if link else None
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    _libc.makecontext(ctypes.c_void_p(address), function, len(words), *words)


def _clone() -> int:
    enter = ctypes.cast(_libc.setcontext, ctypes.c_void_p)
    stack = ctypes.c_void_p(_address(_STEPS))  # of the last step, whose turn comes long after
    flags = _CLONE_VM | _CLONE_VFORK | signal.SIGCHLD.value
    pid: int = _libc.clone(enter, stack, flags, ctypes.c_void_p(_address(0)))
    return check(pid, "clone")


def _block(program: Program) -> tuple[object, ctypes.Array[ctypes.c_char_p], ctypes.Array[ctypes.c_char_p]]:
    env = [name + b"=" + value for name, value in program.env.items()]
    args = (ctypes.c_char_p * (len(program.args) + 1))(*program.args)
    return ctypes.c_char_p(program.path), args, (ctypes.c_char_p * (len(env) + 1))(*env)


def _errno() -> int:
    location = _libc.__errno_location
    location.restype = ctypes.POINTER(ctypes.c_int)
    return int(location().contents.value)


__all__ = ["EXEC_FAILED", "Program", "available", "reserve", "spawn"]
