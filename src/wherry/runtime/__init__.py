"""The OCI runtime: a bundle becomes a process. Standard library only; forked per container, so it stays small."""
