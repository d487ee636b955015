"""Tar archives and compression: reading hostile ones, writing reproducible ones, unpacking layers."""
