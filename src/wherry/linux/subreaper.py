"""Adopting orphans: PR_SET_CHILD_SUBREAPER of prctl(2).

Every idle monitor has called this once, so it is libc's function itself, bound before any fork: the way through
`syscalls.syscall` touches, and so copies, a dozen pages more.
"""

from wherry.linux.syscalls import libc

_PR_SET_CHILD_SUBREAPER = 36

_prctl = libc.prctl


def become_subreaper() -> None:
    """From now on, descendants whose parent ends become our children, not init's."""
    if _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError("prctl(PR_SET_CHILD_SUBREAPER) failed")
