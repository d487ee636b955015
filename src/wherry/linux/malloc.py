"""The C library's allocator: mallopt(3), malloc_trim(3). Both are glibc's; elsewhere nothing happens."""

from wherry.linux.syscalls import libc

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def keep_freed(most: int) -> None:
    """Let the process keep up to `most` bytes that it freed: large buffers made again and again are then not mapped
    and cleared anew by the kernel each time."""
    mallopt = getattr(libc, "mallopt", None)
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, most)
        mallopt(_M_TRIM_THRESHOLD, most)


def trim() -> None:
    """Give what was freed back to the kernel."""
    malloc_trim = getattr(libc, "malloc_trim", None)
    if malloc_trim:
        malloc_trim(0)
