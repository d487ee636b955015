"""wherry: a container engine. Kept empty: every process of the engine pays for what is imported here."""

__version__ = "0.1.0"
