"""Processes by descriptor, which never mean another process: pidfd_open(2), pidfd_send_signal(2)."""

from wherry.linux.syscalls import NR, syscall


def pidfd_open(pid: int) -> int:
    """A close-on-exec descriptor of process `pid`; readable when it has ended. Raises ProcessLookupError."""
    return syscall(NR.pidfd_open, pid, 0)


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """Send a signal. Raises ProcessLookupError when the process has been reaped."""
    syscall(NR.pidfd_send_signal, pidfd, signal, 0, 0)
