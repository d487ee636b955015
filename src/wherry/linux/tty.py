"""Pseudo terminals by descriptor: the peer is asked of the kernel (TIOCGPTPEER, Linux 4.13), never opened by a path
that a container could have replaced. ioctl_tty(2)."""

import fcntl
import os
import struct
import termios

_TIOCSPTLCK = 0x40045431
_TIOCGPTN = 0x80045430
_TIOCGPTPEER = 0x5441


def open_peer(master: int) -> int:
    """Unlock the terminal of a master and open its peer, not as the controlling terminal; return the descriptor."""
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    return fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def number(master: int) -> int:
    """N of the terminal's /dev/pts/N in its own devpts."""
    (n,) = struct.unpack("i", fcntl.ioctl(master, _TIOCGPTN, struct.pack("i", 0)))
    return int(n)


def set_controlling(fd: int) -> None:
    """Make the terminal the controlling one of our session, whose leader we are."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


def set_size(fd: int, height: int, width: int) -> None:
    """Set the window size in characters."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def get_size(fd: int) -> tuple[int, int]:
    """(height, width) in characters."""
    height, width, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return height, width
