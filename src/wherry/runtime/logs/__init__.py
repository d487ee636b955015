"""Log files of containers: writers for the monitor, readers for the daemon."""
