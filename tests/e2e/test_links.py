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


@pytest.fixture
def web(host, name, db):
    host.docker("run", "-d", "--name", name, "--link", f"{db}:db", "busybox", "sleep", "1000")
    return name


def test_ports_in_a_row_have_a_first_and_a_last(host, name):
    child = f"{name}-db"
    ports = ("--expose", "5000-5003", "--expose", "6000-6001", "--expose", "5004/udp")
    host.docker("run", "-d", "--name", child, *ports, "busybox", "sleep", "1000")
    try:
        address = host.inspect(child)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        lines = host.out("run", "--rm", "--link", f"{child}:db", "busybox", "env").splitlines()
    finally:
        host.docker("rm", "-f", child)
    assert {line for line in lines if "_START=" in line or "_END=" in line} == {
        f"DB_PORT_5000_TCP_START=tcp://{address}:5000",
        "DB_PORT_5000_TCP_PORT_START=5000",
        f"DB_PORT_5000_TCP_END=tcp://{address}:5003",
        "DB_PORT_5000_TCP_PORT_END=5003",
    }


def test_the_owner_follows_to_a_new_address(host, name, db, web):
    old = host.inspect(db)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    host.docker("kill", db)
    taker = f"{name}-taker"
    host.docker("run", "-d", "--name", taker, "busybox", "sleep", "1000")
    try:
        host.docker("start", db)
        shown = host.inspect(db)
        new = shown["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        assert new != old
        hosts = host.out("exec", web, "cat", "/etc/hosts").splitlines()
        assert [line for line in hosts if db in line] == [f"{new}\tdb {shown['Config']['Hostname']} {db}"]
        assert f"DB_PORT_5432_TCP_ADDR={new}" in host.out("exec", web, "env").splitlines()
    finally:
        host.docker("rm", "-f", taker)


def test_names_of_links(host, name, db, web):
    shown = host.out("ps", "--no-trunc", "--format", "{{.Names}}").splitlines()
    assert f"{db},{web}/db" in shown
    assert host.out("ps", "--format", "{{.Names}}", "--filter", f"name={db}") == db
    assert host.out("inspect", "-f", "{{.Name}}", f"{web}/db") == f"/{db}"
    host.docker("rename", db, f"{db}2")
    try:
        assert host.inspect(web)["HostConfig"]["Links"] == [f"/{db}2:/{web}/db"]
    finally:
        host.docker("rename", f"{db}2", db)


def test_a_link_is_removed(host, db, web):
    refused = "Conflict, cannot remove the default link name of the container"
    assert refused in host.docker("rm", "--link", web, check=False).stderr
    assert f"No such container: {web}/nope" in host.docker("rm", "--link", f"{web}/nope", check=False).stderr
    assert host.out("rm", "--link", f"{web}/db") == f"{web}/db"
    assert host.inspect(web)["HostConfig"]["Links"] is None
    assert db not in host.out("exec", web, "cat", "/etc/hosts")
    assert "DB_" not in host.out("exec", web, "env")
    assert host.inspect(db)["State"]["Running"] is True
