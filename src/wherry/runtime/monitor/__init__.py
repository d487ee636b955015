"""The supervisor of one container."""
