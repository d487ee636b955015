"""sd_notify(3): tell the service manager how we are. Nothing happens outside of one."""

import os
import socket


def notify(*assignments: str) -> None:
    """Send `KEY=VALUE` assignments (`READY=1`, `STOPPING=1`, `STATUS=…`) to NOTIFY_SOCKET; failures are ignored,
    since a manager that went away must not take the engine with it."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto("\n".join(assignments).encode(), address)
        except OSError:
            return
