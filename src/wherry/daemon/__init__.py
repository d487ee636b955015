"""wherryd: configuration, wiring, listeners, reload, shutdown."""
