"""Sending a container's log elsewhere: syslog, gelf, fluentd, journald.

    monitor ── pipe ──▶ forwarder, one process per container that has written something ──▶ log server

A server that is slow or gone is the forwarder's trouble: the monitor only ever finds the pipe full. It then stops
reading the container's output (mode blocking) or drops it (non-blocking).
"""
