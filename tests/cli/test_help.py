"""--help is Docker's, word for word, but for what is listed here."""

import re

import pytest

from tests.cli.output_cases import load
from wherry.cli.registry import BY_NAME, GROUPS

# Without Docker's warning of experiments.
DOCKERS = {name: re.sub(r"\n\nEXPERIMENTAL:\n(  .*\n)+", "\n", text) for name, text in load("help.json").items()}

# Flags that only we have, that only Docker has, and those whose words differ, by the command's canonical name.
ONLY_OURS = {
    "container create": {"--health-on-failure"},
    "container run": {"--health-on-failure"},
    "container logs": {"--clear"},
    "builder prune": {"--dry-run"},
    "container prune": {"--dry-run"},
    "image prune": {"--dry-run"},
    "network prune": {"--dry-run"},
    "system prune": {"--dry-run"},
    "volume prune": {"--dry-run"},
}
CLUSTER_VOLUMES = {
    "--availability", "--group", "--limit-bytes", "--required-bytes", "--scope", "--secret", "--sharing",
    "--topology-preferred", "--topology-required", "--type",
}  # fmt: skip
ONLY_DOCKERS = {
    "image ls": {"--tree"},  # experimental, of the containerd image store
    "builder prune": {"--keep-storage"},
    "volume create": CLUSTER_VOLUMES,
    "volume ls": {"--cluster"},
}
OTHER_WORDS = {
    "container create": {"--pull"},  # Docker's has a stray "|"
}
# Lines other than those of flags.
OTHER_LINES = {
    "builder prune": {"Usage:  docker builder prune", "Usage:  wherry builder prune [OPTIONS]"},
    "system": {"Manage Docker", "Manage the engine"},
}
# What groups lack and have beyond Docker's.
OTHER_COMMANDS = {
    "image": {"bootstrap", "diff", "flatten", "from-host", "tree"},
}


def parts(text):
    """A help text as (lines that are no flags, {flag: its words})."""
    head, _, options = text.partition("\nOptions:\n")
    flags = {}
    for line in options.splitlines():
        if found := re.match(r" +(?:-\w, )?(--[a-z0-9-]+)", line):
            flags[found[1]] = [line]
        elif flags:
            flags[list(flags)[-1]].append(line)
    return head.splitlines(), {name: " ".join(" ".join(lines).split()) for name, lines in flags.items()}


@pytest.mark.parametrize("name", sorted(set(BY_NAME) & set(DOCKERS)))
def test_of_a_command(name, wherry):
    out, err, code = wherry(*name.split(), "--help")
    assert (err, code) == ("", 0)
    path = BY_NAME[name].path
    (lines, ours), (dockers_lines, dockers) = parts(out), parts(DOCKERS[name])
    other = OTHER_LINES.get(path, set())
    renamed = [line.replace("wherry", "docker") for line in lines if line not in other]
    assert renamed == [line for line in dockers_lines if line not in other]
    assert set(ours) - set(dockers) == ONLY_OURS.get(path, set())
    assert set(dockers) - set(ours) == ONLY_DOCKERS.get(path, set())
    for flag in set(ours) & set(dockers) - OTHER_WORDS.get(path, set()):
        assert ours[flag] == dockers[flag]
    if not any(table.get(path) for table in (ONLY_OURS, ONLY_DOCKERS, OTHER_WORDS, OTHER_LINES)):
        assert out.replace("wherry", "docker") == DOCKERS[name]


@pytest.mark.parametrize("name", sorted(set(GROUPS) & set(DOCKERS)))
def test_of_a_group(name, wherry):
    out, err, code = wherry(name, "--help")
    assert (err, code) == ("", 0)
    other = OTHER_LINES.get(name, set())
    rows = set(out.replace("wherry", "docker").splitlines()) - other
    dockers = set(DOCKERS[name].splitlines()) - other
    commands = {line.split()[0] for line in rows - dockers}
    assert commands == OTHER_COMMANDS.get(name, set())
    missing = {f"{name} {line.split()[0]}" for line in dockers - rows}
    assert not missing & set(BY_NAME)


def test_the_program_lists_every_command(wherry, monkeypatch):
    out, _, code = wherry("--help")
    assert code == 0
    listed = {line.split()[0] for line in out.splitlines() if line.startswith("  ") and line[2] != " "}
    assert listed >= {name for name in {*BY_NAME, *GROUPS} if " " not in name}
    monkeypatch.setenv("DOCKER_HIDE_LEGACY_COMMANDS", "1")
    shorter = wherry("--help")[0]
    assert "\nCommands:\n" in out
    assert "\nCommands:\n" not in shorter
    assert wherry("help")[0] == shorter
    assert wherry() == ("", shorter, 0)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["help", "nope"], "unknown help topic: nope"),
        (["help", "ps", "x"], "unknown help topic: x"),
        (["help", "container", "nope"], "unknown help topic: nope"),
        (["help", "container", "ls", "x", "y"], "unknown help topic: x y"),
    ],
)
def test_topics_that_are_none(words, reason, wherry):
    assert wherry(*words) == ("", f"{reason}\n", 1)


def test_help_by_other_ways(wherry):
    text = wherry("container", "ls", "--help")[0]
    for words in (
        ["help", "container", "ls"],
        ["container", "list", "--help"],
        ["container", "ps", "-a", "--help", "x"],
    ):
        assert wherry(*words)[0] == text
    assert wherry("nonesuch", "--help")[0] == wherry("--help")[0]
    assert wherry("container", "nonesuch", "--help")[0] == wherry("container", "--help")[0]
    assert wherry("container") == ("", wherry("container", "--help")[0], 0)
