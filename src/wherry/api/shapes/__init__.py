"""Replies in the shapes of the Docker Engine API: pure functions from the engine's records to plain objects."""
