"""Connections that the kernel tracks and that must not outlive the port they came by.

Only for protocols whose flows do not notice a new peer: a TCP segment at the wrong place is answered by a reset, but a
UDP client that keeps sending keeps its flow, and with it the container of last week, or the host itself from before the
port was published.
"""

from wherry.linux.conntrack import ConntrackSocket
from wherry.network.firewall import ANY, PROTOCOLS
from wherry.network.model import PublishedPort


def _wanted(ports: list[PublishedPort]) -> dict[tuple[int, int], PublishedPort]:
    return {(PROTOCOLS[port.protocol], port.host_port): port for port in ports if port.protocol != "tcp"}


def forget_others(ports: list[PublishedPort]) -> None:
    """Forget flows to these newly published ports that somebody else than their containers answers."""
    wanted = _wanted(ports)
    if not wanted:
        return
    with ConntrackSocket() as kernel:
        for flow in kernel.flows():
            port = wanted.get((flow.protocol, flow.port))
            if port and flow.answerer != port.ip and port.host_ip in (ANY, flow.destination):
                kernel.forget(flow)


def forget(ports: list[PublishedPort]) -> None:
    """Forget the flows that came to containers by these ports, which are no longer published."""
    wanted = _wanted(ports)
    if not wanted:
        return
    with ConntrackSocket() as kernel:
        for flow in kernel.flows():
            port = wanted.get((flow.protocol, flow.port))
            if port and flow.answerer == port.ip:
                kernel.forget(flow)
