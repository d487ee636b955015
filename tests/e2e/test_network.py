"""Published ports and network modes, through the real docker command."""

import json
import sys


def serve(host, name, *flags):
    host.docker("run", "-d", "--name", name, *flags, "busybox", "httpd", "-f", "-p", "80", "-h", "/www")


def fetch(host, address, check=True):
    return host.run("curl", "-sS", "--max-time", "30", f"http://{address}/", check=check)


def test_a_published_port_answers_on_loopback_and_gateway(host, name):
    serve(host, name, "-p", "8080:80")
    host.wait_until(lambda: fetch(host, "127.0.0.1:8080", check=False).stdout == "hello from inside\n", "an answer")
    inspected = host.inspect(name)["NetworkSettings"]
    assert inspected["Ports"]["80/tcp"][0]["HostPort"] == "8080"
    gateway = inspected["Networks"]["bridge"]["Gateway"]
    assert fetch(host, f"{gateway}:8080").stdout == "hello from inside\n"
    assert host.out("port", name, "80/tcp").split("\n")[0] == "0.0.0.0:8080"
    assert "0.0.0.0:8080->80/tcp" in host.out("ps", "--filter", f"name={name}", "--format", "{{.Ports}}")
    request = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 30 {gateway} 8080"
    assert "hello from inside" in host.out("exec", name, "sh", "-c", request)


def test_a_random_port_and_publish_all(host, name):
    serve(host, name, "-p", "127.0.0.1::80", "--expose", "81", "-P")
    ports = host.inspect(name)["NetworkSettings"]["Ports"]
    assert set(ports) == {"80/tcp", "81/tcp"}
    binding = ports["80/tcp"][0]
    assert binding["HostIp"] == "127.0.0.1"
    host.wait_until(lambda: fetch(host, f"127.0.0.1:{binding['HostPort']}", False).returncode == 0, "an answer")


def test_udp_and_ranges(host, name):
    host.wherry("image", "from-host", "e2e:python", "python3", "--python")
    echo = (
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 7001));"
        "data, peer = s.recvfrom(100); s.sendto(data, peer); s.recv(1)"
    )
    words = ("-p", "7000-7002:7000-7002/udp", "e2e:python", "python3", "-c", echo)
    host.docker("run", "-d", "--name", name, *words)
    ports = host.inspect(name)["NetworkSettings"]["Ports"]
    assert sorted(ports) == ["7000/udp", "7001/udp", "7002/udp"]
    program = (
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(1); s.connect(('127.0.0.1', 7001));"
        "s.send(b'ping'); print(s.recv(100))"
    )
    command = (sys.executable, "-c", program)  # refused until the server in the container is up
    host.wait_until(lambda: host.run(*command, check=False).stdout == "b'ping'\n", "an answer")


def test_a_port_in_use_is_refused_and_nothing_is_left(host, name):
    serve(host, name, "-p", "8081:80")
    result = host.docker("run", "--name", f"{name}-2", "-p", "8081:80", "busybox", "true", check=False)
    assert result.returncode == 125
    assert "port is already allocated" in result.stderr
    host.docker("rm", f"{name}-2")
    host.docker("rm", "-f", name)
    serve(host, name, "-p", "8081:80")


def test_containers_reach_each_other_by_address(host, name):
    serve(host, name)
    address = host.inspect(name)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    host.wait_until(lambda: fetch(host, f"{address}:80", check=False).returncode == 0, "an answer")
    request = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 30 {address} 80"
    assert "hello from inside" in host.out("run", "--rm", "busybox", "sh", "-c", request)


def test_modes(host, name):
    links = host.out("run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net").split()
    assert links == ["lo"]
    host.docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    shared = host.out("run", "--rm", "--network", f"container:{name}", "busybox", "readlink", "/proc/self/ns/net")
    assert shared == host.out("exec", name, "readlink", "/proc/self/ns/net")
    own = host.run("readlink", "/proc/self/ns/net").stdout.strip()
    assert host.out("run", "--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net") == own


def test_network_inspect_knows_its_containers(host, name):
    host.docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    bridge = json.loads(host.out("network", "inspect", "bridge"))[0]
    assert bridge["Driver"] == "bridge"
    assert [c["Name"] for c in bridge["Containers"].values() if c["Name"] == name] == [name]
    assert {"bridge", "host", "none"} <= set(host.out("network", "ls", "--format", "{{.Name}}").split())
