"""Legacy links: what the linking container knows of the linked one, in Docker's form."""

import pytest


@pytest.fixture
def db(host, name):
    child = f"{name}-db"
    host.docker(
        *("run", "-d", "--name", child, "-e", "FOO=bar", "-e", "PATH=/bin", "--expose", "53/udp", "--expose", "5432"),
        *("busybox", "sleep", "1000"),
    )
    yield child
    host.docker("rm", "-f", child, check=False)


def test_variables_and_names(host, name, db):
    host.docker("create", "--name", name, "--link", f"{db}:my-db", "busybox", "sh", "-c", "env; cat /etc/hosts")
    shown = host.inspect(db)
    address = shown["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    lines = host.out("start", "-a", name).splitlines()
    expected = {
        f"MY_DB_PORT=tcp://{address}:5432",
        f"MY_DB_PORT_5432_TCP=tcp://{address}:5432",
        f"MY_DB_PORT_5432_TCP_ADDR={address}",
        "MY_DB_PORT_5432_TCP_PORT=5432",
        "MY_DB_PORT_5432_TCP_PROTO=tcp",
        f"MY_DB_PORT_53_UDP=udp://{address}:53",
        f"MY_DB_PORT_53_UDP_ADDR={address}",
        "MY_DB_PORT_53_UDP_PORT=53",
        "MY_DB_PORT_53_UDP_PROTO=udp",
        f"MY_DB_NAME=/{name}/my-db",
        "MY_DB_ENV_FOO=bar",
    }
    assert {line for line in lines if line.startswith("MY_DB")} == expected
    assert f"{address}\tmy-db {shown['Config']['Hostname']} {db}" in lines
    assert host.inspect(name)["HostConfig"]["Links"] == [f"/{db}:/{name}/my-db"]


def test_the_linked_container_must_run(host, name, db):
    host.docker("create", "--name", name, "--link", db, "busybox", "true")
    host.docker("kill", db)
    result = host.docker("start", name, check=False)
    assert f"Cannot link to a non running container: /{db} AS /{name}/{db}" in result.stderr


@pytest.mark.parametrize(
    ("link", "text"),
    [
        ("", "empty string specified for links"),
        ("a:b:c", "bad format for links: a:b:c"),
        ("gone", "could not get container for gone: No such container: gone"),
    ],
)
def test_what_is_no_link(host, link, text):
    status, answer = host.api(
        "POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"]} | {"HostConfig": {"Links": [link]}}
    )
    assert status in (400, 500)
    assert answer["message"] == text
