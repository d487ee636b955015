"""Tags of logs: what Docker 28.5 made of each template, for a container "NAME" of image busybox, echo hi there."""

import json
import urllib.parse

import pytest

EXPANDED = {
    "{{.ID}}": "{id12}",
    "{{.ExtraAttributes nil}}": "map[A:b x:y]",
    '{{with .ContainerLabels}}{{index . "x"}}{{end}}': "y",
    "{{upper .Name}}-{{lower .ImageName}}-{{title .Name}}": "{NAME}-busybox-{Name}",
    '{{index .ContainerLabels "nope"}}|{{.ContainerLabels.x}}|{{.ContainerLabels.nope}}': "|y|<no value>",
    "{{truncate .Name 4}}{{pad .Name 1 2}}": "test {name}  ",
    '{{join (split .Command " ") "-"}}': "echo-hi-there",
    "{{.Config}}": "map[env:A labels:x tag:{{.Config}}]",
    "{{.ContainerArgs}}{{.ContainerEntrypoint}}{{.ContainerName}}{{.DaemonName}}": "[hi there]echo/{name}docker",
    '{{printf "%s/%d" .Name 3}}': "{name}/3",
    "{{range .ContainerArgs}}<{{.}}>{{end}}": "<hi><there>",
    '{{if eq .DaemonName "docker"}}yes{{else}}no{{end}}': "yes",
    "{{.ImageID}}|{{.ImageFullID}}|{{.ContainerImageID}}": "{image12}|{image}|{image}",
    "   ": "   ",
    "{{slice .Name 0 1}}": "t",
    '{{html "<"}}{{println 1}}': "&lt;1\n",
}
REFUSED = {
    "{{.Nope}}": ':1:2: executing "log-tag" at <.Nope>: can\'t evaluate field Nope in type *logger.Info',
    "{{.Name": ":1: unclosed action",
    "{{nope .Name}}": ':1: function "nope" not defined',
    "{{.Name.x}}": ':1:7: executing "log-tag" at <.Name.x>: can\'t evaluate field x in type string',
    "{{index .ContainerArgs 9}}": ':1:2: executing "log-tag" at <index .ContainerArgs 9>: '
    "error calling index: index out of range: 9",
}
OPTIONS = ("-l", "x=y", "-e", "A=b", "--log-opt", "labels=x", "--log-opt", "env=A")
SLOW = "a" * 200


def details(host, name):
    """The attributes of the only line."""
    pairs = host.docker("logs", "--details", name).stdout.partition(" ")[0]
    return dict(urllib.parse.parse_qsl(pairs.replace(",", "&")))


@pytest.mark.parametrize("template", EXPANDED)
def test_expanded_as_docker_does(host, template):
    host.docker("run", "--name", "test-tag", *OPTIONS, "--log-opt", f"tag={template}", "busybox", "echo", "hi", "there")
    try:
        found = host.inspect("test-tag")
        values = {"name": "test-tag", "NAME": "TEST-TAG", "Name": "Test-Tag", "id12": found["Id"][:12]}
        values |= {"image": found["Image"], "image12": found["Image"][:12]}
        wanted = EXPANDED[template]
        for name, value in values.items():
            wanted = wanted.replace("{" + name + "}", value)
        assert details(host, "test-tag") == {"A": "b", "x": "y", "tag": wanted}
    finally:
        host.docker("rm", "-f", "test-tag")


def run_tagged(host, name, template):
    """(what the tag became, the container's description)"""
    host.docker("rm", "-f", name, check=False)
    host.docker("run", "--name", name, *OPTIONS, "--log-opt", f"tag={template}", "busybox", "echo", "hi", "there")
    return details(host, name)["tag"], host.inspect(name)


def test_the_time(host, name):
    tag, found = run_tagged(host, name, "{{.ContainerCreated}}#{{json .ContainerCreated}}#{{.ContainerCreated.Year}}")
    created = found["Created"]
    assert tag.split("#") == [created.replace("T", " ").replace("Z", " +0000 UTC"), f'"{created}"', created[:4]]


def test_the_whole(host, name):
    tag, found = run_tagged(host, name, "{{.}}")
    when = found["Created"].replace("T", " ").replace("Z", " +0000 UTC")
    head = (
        f"{{map[env:A labels:x tag:{{{{.}}}}] {found['Id']} /{name} echo [hi there] {found['Image']} busybox {when} ["
    )
    assert tag.startswith(head)
    assert tag.endswith(f"A=b] map[x:y] {found['LogPath']} docker}}")


def test_the_whole_as_json(host, name):
    tag, found = run_tagged(host, name, "{{json .}}")
    assert json.loads(tag) == {
        "Config": {"env": "A", "labels": "x", "tag": "{{json .}}"},
        "ContainerID": found["Id"],
        "ContainerName": f"/{name}",
        "ContainerEntrypoint": "echo",
        "ContainerArgs": ["hi", "there"],
        "ContainerImageID": found["Image"],
        "ContainerImageName": "busybox",
        "ContainerCreated": found["Created"],
        "ContainerEnv": found["Config"]["Env"],
        "ContainerLabels": {"x": "y"},
        "LogPath": found["LogPath"],
        "DaemonName": "docker",
    }


@pytest.mark.parametrize("template", REFUSED)
def test_refused_as_docker_does(host, name, template):
    refused = host.docker(
        "run", "--name", name, "--log-opt", f"tag={template}", "busybox", "echo", "hi", "there", check=False
    )
    prefix = "failed to create task for container: failed to initialize logging driver: template: log-tag"
    assert refused.returncode == 125
    assert prefix + REFUSED[template] + "\n" in refused.stderr


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        ("^x", {"xa": "1", "xb": "2"}),
        ("(?i)^XB$", {"xb": "2"}),
        (r"\Qx\E[[:lower:]]\z", {"xa": "1", "xb": "2"}),
        ("(a+)+$", {"xa": "1", SLOW: "3"}),  # exponential for who backtracks, when a name ends otherwise
        ("(.*)*(.*)*(.*)*(.*)*!$", {}),
    ],
)
def test_expressions(host, name, pattern, chosen):
    labels = ("-l", "xa=1", "-l", "xb=2", "-l", f"{SLOW}=3", "-l", f"{SLOW}b=4")
    host.docker("run", "--name", name, *labels, "--log-opt", f"labels-regex={pattern}", "busybox", "echo", "hi")
    assert details(host, name) == chosen


REFUSED_EXPRESSIONS = {
    "(a": "missing closing ): `(a`",
    "[a": "missing closing ]: `[a`",
    "*": "missing argument to repetition operator: `*`",
    "a**": "invalid nested repetition operator: `**`",
    "a{1001}": "invalid repeat count: `{1001}`",
    "(?=a)": "invalid or unsupported Perl syntax: `(?=`",
    r"\8": r"invalid escape sequence: `\8`",
    "[b-a]": "invalid character class range: `b-a`",
    "a)": "unexpected ): `a)`",
}


@pytest.mark.parametrize("pattern", REFUSED_EXPRESSIONS)
def test_expressions_nobody_can_read(host, name, pattern):
    options = ("--log-opt", f"env-regex={pattern}", "-e", "a=b")
    result = host.docker("run", "--name", name, *options, "busybox", "true", check=False)
    assert result.returncode == 125
    assert f"error parsing regexp: {REFUSED_EXPRESSIONS[pattern]}\n" in result.stderr + "\n"
