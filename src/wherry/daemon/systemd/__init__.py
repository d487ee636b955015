"""Units for systemd, to be copied: see docs/operating.md."""
