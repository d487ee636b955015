"""Running our CLI in this process, with a clean environment."""

import os
import sys

import pytest

import wherry as package

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture
def wherry(monkeypatch, capfd, tmp_path):
    """A function: arguments -> (stdout, stderr, exit code). The environment names no engine."""
    for name in list(os.environ):
        if name.startswith("DOCKER") or name == "MISSING_IN_HOST":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(os.path.dirname(package.__file__)))  # children run elsewhere
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        from wherry.cli.main import run as run_command

        code = run_command(arguments)
        captured = capfd.readouterr()
        return captured.out, captured.err, code

    return run
