"""What is said to an engine to see whether it answers as Docker does. Each function is one conversation; the names of
its containers begin with its own name, so that nothing else on the engine is in its lists."""

import json
import time
from urllib.parse import quote

from .wire import Wire, filters

IMAGE = "wirebusybox"
VERSIONS = ("1.40", "1.41", "1.43", "1.44", "1.47", "1.51")
LABEL = "wire.test"


def container(w: Wire, name: str, v: str = "", *, quiet: bool = True, start: bool = False, **config) -> str:
    """Create one; its id."""
    labels = {LABEL: name} | config.pop("Labels", {})
    body = {"Image": IMAGE, "Cmd": ["sleep", "1000"], "StopTimeout": 1, "Labels": labels} | config
    say = w.quietly if quiet else w.call
    reply = say("POST", f"{v}/containers/create?name={name}", body)
    assert reply.status == 201, reply
    made = reply.json()["Id"]
    if start:
        reply = say("POST", f"{v}/containers/{made}/start")
        assert reply.status == 204, reply
    return made


def until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def remove(w: Wire, *names: str) -> None:
    for name in names:
        w.quietly("DELETE", f"/containers/{name}?force=1&v=1")


def versions(w: Wire) -> None:
    """Prefixes good and bad."""
    for prefix in ("", "/v1.40", "/v1.51", "/v1.39", "/v1.52", "/v1.99", "/v2.0", "/v0.1", "/v1", "/v1.24", "/v1.23", "/v1.5",
                   "/v", "/vx", "/v1.x", "/v1.040", "/v1.51.1", "/v01.51", "/v1.", "/v.1", "/V1.51", "/v1.51/v1.51"):  # fmt: skip
        w.call("GET", f"{prefix}/_ping")
        w.call("GET", f"{prefix}/containers/none/json")
        w.call("GET", f"{prefix}/nowhere")


def routes(w: Wire) -> None:
    """Methods and paths that are not there."""
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO", "get"):
        for path in ("/_ping", "/version", "/containers/json", "/containers/create", "/containers/none/json",
                     "/containers/none", "/containers/none/start", "/nowhere", "/", "/exec/none/json", "/events?until=1",
                     "/v1.51/containers/none/json", "/containers/none/archive"):  # fmt: skip
            w.call(method, path, {} if path == "/containers/create" else None)
    for path in ("/containers/json/", "//containers/json", "/containers//json", "/containers///json", "/v1.51//_ping",
                 "/v1.51", "/v1.51/", "/_ping/", "/./_ping", "/../_ping", "/containers/../_ping", "/containers/./json",
                 "/containers/a%2Fb/json", "/containers/%2Fa/json", "/containers/a%20b/json", "/containers/%ff/json",
                 "/containers/a%00b/json", "/containers/%zz/json", "/containers/..%2f..%2fx/json", "/%5fping", "/_ping?%",
                 "/containers/json?limit=%zz", "/containers/json?a;b", "/_ping#x", "/networks/", "/volumes/", "/images/json/",
                 "/containers/none/json/", "/containers/%E2%82%AC/json", "/swarm/", "/exec//json", "/containers/a/b/json",
                 "/exec/a/b/json", "/containers/a/b", "/containers/none/attach/", "/info/", "/plugins/", "/plugins",
                 "http://docker/_ping", "/containers/none/nosuch", "/exec/none", "/exec/none/start", "/images/none/nosuch",
                 "/containers/a+b/json", "/containers/-/json", "/containers/*/json", "/containers/json?all=1&all=0&limit=1&filters=%7B%22name%22%3A%5B%22nothing-at-all%22%5D%7D"):  # fmt: skip
        w.call("GET", path)
    for path in ("/containers/none//start", "//containers/none/start", "/containers/none/start/", "/containers//start"):
        w.call("POST", path)
    w.call("DELETE", "/containers/")
    w.call("DELETE", "/containers")


def swarm(w: Wire) -> None:
    for path in ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs", "/nodes/x", "/services/x", "/tasks/x",
                 "/secrets/x", "/configs/x", "/swarm/unlockkey", "/services/x/logs?stdout=1", "/tasks/x/logs?stdout=1",
                 "/services/x/logs", "/nodes?filters=x"):  # fmt: skip
        w.call("GET", path)
    for path, body in (("/swarm/leave", None), ("/swarm/update?version=1", {}), ("/swarm/unlock", {}), ("/nodes/x/update?version=1", {}),
                 ("/services/create", {}), ("/services/x/update?version=1", {}), ("/secrets/create", {}), ("/secrets/x/update?version=1", {}),
                 ("/configs/create", {}), ("/configs/x/update?version=1", {}), ("/nodes/x/update", {}), ("/swarm/unlock", {"UnlockKey": "x"}),
                 ("/swarm/join", {"RemoteAddrs": []}), ("/services/create", None)):  # fmt: skip
        w.call("POST", path, body)
    for path in ("/nodes/x", "/services/x", "/secrets/x", "/configs/x"):
        w.call("DELETE", path)
    w.call("PUT", "/volumes/x?version=1", {})
    w.call("PUT", "/volumes/x", {})


def plugins(w: Wire) -> None:
    w.call("GET", "/plugins")
    w.call("GET", "/plugins?filters=" + filters(enabled="true"))
    w.call("GET", "/plugins?filters=" + filters(enable="true"))
    w.call("GET", "/plugins?filters=" + filters(capability="volumedriver"))
    w.call("GET", "/plugins?filters=" + filters(enabled="maybe"))
    w.call("GET", "/plugins/none/json")
    w.call("DELETE", "/plugins/none")
    w.call("POST", "/plugins/none/enable")
    w.call("POST", "/plugins/none/enable?timeout=0")
    w.call("POST", "/plugins/none/disable")
    w.call("POST", "/plugins/none/set", [])
    w.call("POST", "/plugins/none/push")


def bodies(w: Wire) -> None:
    """Bodies of POST /containers/create that are none, or say nothing."""
    json_ = {"Content-Type": "application/json"}
    for headers in (json_, {"Content-Type": "application/json; charset=utf-8"}, {"Content-Type": "APPLICATION/JSON"},
                    {"Content-Type": "text/plain"}, {"Content-Type": ""}, {"Content-Type": "application/jsonx"},
                    {"Content-Type": "application/json, text/plain"}, {"Content-Type": "application"}, {"Content-Type": ";"},
                    {"Content-Type": "application/json;"}, {"Content-Type": "application/json;x"}, {"Content-Type": None},
                    {"Content-Type": "application/json; a=b; a=c"}, {"Content-Type": "application/octet-stream"}):  # fmt: skip
        w.call("POST", "/containers/create", b'{"Image": "wirenone", "Cmd": ["x"]}', headers)
        w.call("POST", "/containers/create", b"", headers)
        w.call("POST", "/containers/none/exec", b'{"Cmd": ["x"]}', headers)
        w.call("POST", "/exec/none/start", b"{}", headers)
        w.call("POST", "/containers/none/update", b"{}", headers)
        w.call("POST", "/volumes/create", b"[]", headers)
    for body in (b" ", b"{", b"}", b"[]", b"null", b"1", b'"x"', b"{}", b"{}{}", b"{} x", b"{}\n", b'{"a"}', b"{'a': 1}", b"{,}",
                 b'{"Image": "wirenone"', b'{"Image": 1}', b'{"Image": "wirenone"} {"x": 1}', b"\xef\xbb\xbf{}", b"nul", b"tru",
                 b'{"Cmd": "x"}', b'{"Cmd": {"a": 1}}', b'{"Cmd": [1]}', b'{"HostConfig": []}', b'{"HostConfig": null}',
                 b'{"HostConfig": {"Memory": "1"}}', b'{"HostConfig": {"Memory": 1.5}}', b'{"HostConfig": {"Binds": "x"}}',
                 b'{"Image": "wirenone", "Cmd": ["\xff\xfe"]}', b'{"Image": "\xff"}', b'{"Image": "a\tb"}', b'{"Image": "\\x"}',
                 b'{"Image": "\\ud800"}', b'{"Image": "wirenone", "Image": "wirenonetwo"}', b'{"image": "wirenone"}', b'{"IMAGE": "wirenone", "image": "x"}',
                 b'{"Labels": []}', b'{"Labels": {"a": 1}}', b'{"ExposedPorts": {"x": {}}}', b'{"ExposedPorts": ["80"]}', b'{"Healthcheck": 1}',
                 b'{"Healthcheck": {"Interval": "1s"}}', b'{"NetworkingConfig": 1}', b'{"NetworkingConfig": {"EndpointsConfig": {"x": 1}}}',
                 b'{"StopTimeout": "x"}', b'{"AttachStdin": 1}', b'{"Env": null, "Image": "wirenone"}', b'{"Image": 01}', b'{"Image": NaN}',
                 b'{"HostConfig": {"PortBindings": {"80": [{"HostPort": 80}]}}}', b"[" * 20000, b'{"a":' * 20000, b"\x00", b"{}\x00", b'{"a": "\x00"}'):  # fmt: skip
        for path in ("/containers/create", "/containers/none/exec", "/exec/none/start", "/containers/none/update"):
            w.call("POST", path, body)
    for body in (b"{", b"[]", b"null", b"{}{}", b'{"Name": 1}', b'{"Labels": []}'):
        w.call("POST", "/volumes/create", body)
    w.call("POST", "/containers/create", {"Image": IMAGE, "Cmd": []})
    w.call("POST", "/containers/create?name=%20", {"Image": IMAGE, "Cmd": ["x"]})
    w.call("POST", "/containers/create?name=a", {"Image": IMAGE, "Cmd": ["x"]})
    w.call("POST", "/containers/create?name=a/b", {"Image": IMAGE, "Cmd": ["x"]})
    w.call("POST", "/containers/create?name=/", {"Image": IMAGE, "Cmd": ["x"]})
    w.call("POST", "/containers/create?name=%2f%2fab", {"Image": IMAGE, "Cmd": ["x"]})
    w.call("POST", "/containers/create?platform=plan9", {"Image": IMAGE, "Cmd": ["x"]})
    w.call("POST", "/containers/create?platform=linux/arm64", {"Image": IMAGE, "Cmd": ["x"]})
    w.call("POST", "/containers/create?platform=a/b/c/d", {"Image": IMAGE, "Cmd": ["x"]})


def life(w: Wire, v: str) -> None:
    """One container from create to remove, looked at after every step."""
    v = f"/v{v}"
    name = "wirelife"
    made = container(w, name, v, quiet=False, Env=["A=b"], ExposedPorts={"80/tcp": {}}, HostConfig={"Memory": 64 << 20})
    show = f"{v}/containers/json?all=1&filters={filters(label=f'{LABEL}={name}')}"
    w.call("GET", f"{v}/containers/{made}/json")
    w.call("GET", show)
    for verb in ("stop", "kill", "pause", "unpause", "top", "resize?h=1&w=1", "exec", "restart?t=x", "stop?t=x", "stop?signal=x",
                 "kill?signal=x", "kill?signal=0", "kill?signal=65", "kill?signal=-1", "rename", "rename?name=", "rename?name=wirelife",
                 "rename?name=/wirelife", "rename?name=x", "rename?name=a b".replace(" ", "%20"), "attach", "wait?condition=x", "start?detachKeys=x-y"):  # fmt: skip
        w.call(
            "GET" if verb == "top" else "POST",
            f"{v}/containers/{name}/{verb}",
            {"Cmd": ["true"]} if verb == "exec" else None,
        )
    w.call("POST", f"{v}/containers/{name}/start", {})
    w.call("GET", f"{v}/containers/{name}/json")
    w.call("GET", show)
    w.call("GET", show + "&size=1")
    w.call("POST", f"{v}/containers/{name}/start")
    w.call("POST", f"{v}/containers/{name}/start", {"Binds": []})
    w.call("POST", f"{v}/containers/{name}/unpause")
    w.call("POST", f"{v}/containers/{name}/pause")
    w.call("POST", f"{v}/containers/{name}/pause")
    w.call("POST", f"{v}/containers/{name}/exec", {"Cmd": ["true"]})
    w.call("POST", f"{v}/containers/{name}/start")
    w.call("GET", f"{v}/containers/{name}/json")
    w.call("GET", show)
    w.call("DELETE", f"{v}/containers/{name}")
    w.call("POST", f"{v}/containers/{name}/unpause")
    for args in ("", "aux", "-eo%20pid", "-eo%20user,args", "-o%20nothing", "x%20y", "-ef%20--forest", "-C%20sleep"):
        reply = w.quietly("GET", f"{v}/containers/{name}/top?ps_args={args}")
        w.log.append([f"top {args}", reply.status, {}, reply.json().get("Titles") or reply.json()])
    w.call("DELETE", f"{v}/containers/{name}")
    w.call("DELETE", f"{v}/containers/{name}?link=1")
    w.call("DELETE", f"{v}/containers/{name}?v=1")
    w.call("POST", f"{v}/containers/{name}/resize?h=10")
    w.call("POST", f"{v}/containers/{name}/resize?h=10&w=x")
    w.call("POST", f"{v}/containers/{name}/resize?h=10&w=20")
    w.call("POST", f"{v}/containers/{name}/kill?signal=WINCH")
    w.call("POST", f"{v}/containers/{name}/rename?name=wirelife2")
    w.call("POST", f"{v}/containers/wirelife2/rename?name={name}")
    w.call("POST", f"{v}/containers/{name}/update", {"Memory": 128 << 20, "MemorySwap": -1})
    w.call("POST", f"{v}/containers/{name}/stop?t=0")
    w.call("POST", f"{v}/containers/{name}/stop")
    w.call("POST", f"{v}/containers/{name}/kill")
    w.call("GET", f"{v}/containers/{name}/json?size=1")
    w.call("GET", show)
    w.call("POST", f"{v}/containers/{name}/wait")
    w.call("POST", f"{v}/containers/{name}/restart?t=0")
    w.call("DELETE", f"{v}/containers/{name}?force=1&link=1")
    w.call("DELETE", f"{v}/containers/{name}?force=1")
    w.call("GET", f"{v}/containers/{name}/json")
    w.call("DELETE", f"{v}/containers/{name}?force=1")
    w.call("POST", f"{v}/containers/{name}/wait")


def config(w: Wire, v: str) -> None:
    """How an API version reads and shows what it is told."""
    v = f"/v{v}"
    cases = {
        "mac": {"MacAddress": "02:42:ac:11:00:42"},
        "macnet": {"MacAddress": "02:42:ac:11:00:42", "NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": "02:42:ac:11:00:43"}}}},
        "machost": {"MacAddress": "02:42:ac:11:00:42", "HostConfig": {"NetworkMode": "host"}},
        "macbad": {"MacAddress": "xyz"},
        "two": {"NetworkingConfig": {"EndpointsConfig": {"bridge": {}, "none": {}}}},
        "kernel": {"HostConfig": {"KernelMemory": 1 << 26, "KernelMemoryTCP": 1 << 26}},
        "cgroupns": {"HostConfig": {"CgroupnsMode": "private"}},
        "ipc": {"HostConfig": {"IpcMode": ""}},
        "pids0": {"HostConfig": {"PidsLimit": 0}},
        "pids1": {"HostConfig": {"PidsLimit": -1}},
        "console": {"HostConfig": {"ConsoleSize": [10, 20]}},
        "annotations": {"HostConfig": {"Annotations": {"a": "b"}}},
        "bindcreate": {"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/nowhere/wire", "Target": "/x", "BindOptions": {"CreateMountpoint": True}}]}},
        "bindro": {"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/usr", "Target": "/x", "ReadOnly": True, "BindOptions": {"ReadOnlyNonRecursive": True}}]}},
        "bindforce": {"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/usr", "Target": "/x", "ReadOnly": True, "BindOptions": {"ReadOnlyForceRecursive": True}}]}},
        "bindforcep": {"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/usr", "Target": "/x", "ReadOnly": True, "BindOptions": {"ReadOnlyForceRecursive": True, "Propagation": "rprivate"}}]}},
        "bindnonrec": {"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/usr", "Target": "/x", "BindOptions": {"NonRecursive": True}}]}},
        "subpath": {"HostConfig": {"Mounts": [{"Type": "volume", "Source": "wirevolume", "Target": "/x", "VolumeOptions": {"Subpath": "../x"}}]}},
        "tmpfsopt": {"HostConfig": {"Mounts": [{"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"Options": [["noexec"]]}}]}},
        "image": {"HostConfig": {"Mounts": [{"Type": "image", "Source": "wirenone", "Target": "/x"}]}},
        "cluster": {"HostConfig": {"Mounts": [{"Type": "cluster", "Source": "wirenone", "Target": "/x"}]}},
        "interval": {"Healthcheck": {"Test": ["CMD", "true"], "StartInterval": 10**9, "Interval": 10**10}},
        "intervalbad": {"Healthcheck": {"Test": ["CMD", "true"], "Interval": 10}},
        "ulimits": {"HostConfig": {"Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}], "BlkioWeight": 0}},
        "ports": {"ExposedPorts": {"80": {}, "81/udp": {}}, "HostConfig": {"PortBindings": {"80/tcp": [], "82/tcp": None}}},
        "portsbad": {"HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "x", "HostPort": "1"}]}}},
        "restart": {"HostConfig": {"RestartPolicy": {"Name": "no", "MaximumRetryCount": 3}}},
        "restartneg": {"HostConfig": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": -1}}},
        "restartrm": {"HostConfig": {"AutoRemove": True, "RestartPolicy": {"Name": "always"}}},
        "volumes": {"Volumes": {"/a": {}, "/b:ro": {}}},
        "null": {"HostConfig": None, "NetworkingConfig": None, "Labels": None, "Volumes": None},
        "oomadj": {"HostConfig": {"OomScoreAdj": 2000}},
        "shm": {"HostConfig": {"ShmSize": -1}},
        "cpu": {"HostConfig": {"NanoCpus": 10**15}},
        "memory": {"HostConfig": {"Memory": 1}},
        "swap": {"HostConfig": {"Memory": 1 << 26, "MemorySwap": 1}},
        "runtime": {"HostConfig": {"Runtime": "nosuch"}},
        "logopt": {"HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"nosuch": "1"}}}},
        "sysctl": {"HostConfig": {"Sysctls": {"kernel.hostname": "x"}}},
        "sysctlhost": {"HostConfig": {"NetworkMode": "host", "Sysctls": {"net.core.somaxconn": "128"}}},
        "dns": {"HostConfig": {"Dns": ["x"]}},
        "hosts": {"HostConfig": {"ExtraHosts": ["x"]}},
        "device": {"HostConfig": {"Devices": [{"PathOnHost": "/nowhere"}]}},
        "caps": {"HostConfig": {"CapAdd": ["nosuch"]}},
        "network": {"HostConfig": {"NetworkMode": "nosuch"}},
        "usernone": {"User": "nosuch"},
        "signal": {"StopSignal": "nosuch"},
        "workdir": {"WorkingDir": "relative"},
        "env": {"Env": ["=x", "A", ""]},
        "hostname": {"Hostname": "a" * 70},
        "isolation": {"HostConfig": {"Isolation": "hyperv"}},
        "security": {"HostConfig": {"SecurityOpt": ["nosuch"]}},
        "storage": {"HostConfig": {"StorageOpt": {"nosuch": "1"}}},
    }  # fmt: skip
    for name, asked in cases.items():
        body = {"Image": IMAGE, "Cmd": ["sleep", "1000"]} | asked
        reply = w.call("POST", f"{v}/containers/create?name=wireconfig{name}", body)
        if reply.status == 201:
            w.call("GET", f"{v}/containers/wireconfig{name}/json")
        remove(w, f"wireconfig{name}")
    w.quietly("DELETE", "/volumes/wirevolume")


def lists(w: Wire) -> None:
    """Every filter of GET /containers/json."""
    mark = f"{LABEL}=wirelist"
    one = container(w, "wirelistone", start=True, Labels={LABEL: "wirelist", "color": "red"}, ExposedPorts={"80/tcp": {}, "53/udp": {}},
                    HostConfig={"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "28391"}]}, "Binds": ["/usr:/mnt", "wirelistvol:/vol"]})  # fmt: skip
    two = container(w, "wirelisttwo", Labels={LABEL: "wirelist", "color": "blue"}, Cmd=["sh", "-c", "exit 3"])
    three = container(
        w,
        "wirelistthree",
        Labels={LABEL: "wirelist"},
        Cmd=["sh", "-c", "exit 3"],
        start=True,
        HostConfig={"NetworkMode": "none"},
    )
    w.quietly("POST", f"/containers/{three}/wait")
    for made, name in ((one, "ONE"), (two, "TWO"), (three, "THREE")):
        w.remember(made, name)

    def show(number: int = 0, **wanted) -> None:
        reply = w.quietly("GET", f"/containers/json?filters={filters(**({'label': mark} | wanted))}&all=1")
        found = [entry["Names"] for entry in reply.json()] if reply.status == 200 else reply.json()
        said = f"{list(wanted)} {number}" if "id" in wanted else w.plain(str(wanted))
        w.log.append([said, reply.status, {}, w.normal(found)])

    for key, values in {
        "id": [one, one[:5], one[3:9], "^" + one[:4], "(", ""],
        "name": ["wirelist", "wirelistone", "/wirelistone", "^wirelistone$", "^/wirelistone$", "wirelist.*e$", "(", "", "WIRELISTONE"],
        "status": ["created", "running", "exited", "paused", "restarting", "removing", "dead", "nosuch", "", "Running"],
        "exited": ["3", "0", "x", "", "-1", "+3", "03"],
        "ancestor": [IMAGE, f"{IMAGE}:latest", "nosuch", "", "sha256:nosuch"],
        "before": [one, "wirelisttwo", "nosuch", "", "/wirelisttwo"],
        "since": [one, "wirelisttwo", "nosuch", ""],
        "health": ["none", "healthy", "starting", "unhealthy", "nosuch", ""],
        "volume": ["/usr", "/mnt", "wirelistvol", "/vol", "nosuch", "", "/us"],
        "network": ["bridge", "none", "nosuch", "", "host", "bri"],
        "publish": ["28391", "80", "28391/tcp", "28391/udp", "28000-29000", "x", "", "1:2", "28391/sctp", "70000", "9-1", "53/udp"],
        "expose": ["80", "80/tcp", "53", "53/udp", "50-90", "x", "", "50-60/udp", "80/tcp/x"],
        "is-task": ["true", "false", "x", "1", "0", ""],
        "isolation": ["", "default", "nosuch", "hyperv"],
        "label": ["color", "color=red", "color=", "nosuch", "", "=", "color=red=x"],
        "nosuch": ["x"],
        "Name": ["x"],
    }.items():  # fmt: skip
        for number, value in enumerate(values):
            show(number, **{key: value})
    show(name=["wirelistone", "wirelisttwo"])
    show(status=["exited", "created"])
    show(label=[mark, "color"])
    show(label=[mark, "color=red", "color=blue"])
    show(exited=["3", "0"])
    for text in (
        "x",
        "[]",
        "{}",
        "null",
        "1",
        '{"name": "x"}',
        '{"name": null}',
        '{"name": {"x": 1}}',
        '{"name": {"x": false}}',
        '{"name": [1]}',
        '{"name"',
        '""',
        '{"name": {}}',
        " ",
        '{"label":{"wire.test=wirelist":true}}',
    ):
        reply = w.quietly("GET", "/containers/json?all=1&filters=" + quote(text))
        w.log.append([text, reply.status, {}, w.normal(reply.json()) if reply.status != 200 else "a list"])
    base = f"/containers/json?filters={filters(label=mark)}"
    for query in ("", "&limit=1", "&limit=2", "&limit=0", "&limit=-1", "&limit=x", "&limit=", "&limit=99999999999999999999", "&all=true", "&all=no",
                  "&all=False", "&all=NONE", "&all=x", "&size=1&all=1", "&before=wirelisttwo&all=1", "&since=wirelistone"):  # fmt: skip
        w.call("GET", base + query)
    remove(w, "wirelistone", "wirelisttwo", "wirelistthree")
    w.quietly("DELETE", "/volumes/wirelistvol")


def execs(w: Wire, v: str) -> None:
    """Prepare, start, inspect, resize."""
    v = f"/v{v}"
    container(w, "wireexec", start=True)
    w.call("POST", f"{v}/containers/none/exec", {"Cmd": ["true"]})
    for body in ({}, {"Cmd": []}, {"Cmd": None}, {"Cmd": [""]}, {"Cmd": ["true"], "User": "nosuch"}, {"Cmd": ["true"], "DetachKeys": "nosuch"},
                 {"Cmd": ["true"], "WorkingDir": "/nosuch"}, {"Cmd": ["nosuch"]}, {"Cmd": "true"}, {"Cmd": ["true"], "ConsoleSize": [1]},
                 {"Cmd": ["true"], "ConsoleSize": [1, 2], "Tty": True}, {"Cmd": ["true"], "ConsoleSize": [1, 2, 3], "Tty": True}, {"Cmd": ["sh", "-c", "echo $A; exit 7"], "Env": ["A=b"], "AttachStdout": True, "AttachStderr": True},
                 {"Cmd": ["true"], "Privileged": True, "Tty": True, "AttachStdin": True, "User": "nobody"}, {"Cmd": ["true"], "Env": ["x"]},
                 {"Cmd": ["true"], "ConsoleSize": [-1, 5]}):  # fmt: skip
        reply = w.call("POST", f"{v}/containers/wireexec/exec", body)
        if reply.status != 201:
            continue
        made = reply.json()["Id"]
        w.call("GET", f"{v}/exec/{made}/json")
        w.quietly("POST", f"{v}/exec/{made}/start", {"Detach": True})
        until(lambda made=made: not w.quietly("GET", f"/exec/{made}/json").json()["Running"])
        w.call("GET", f"{v}/exec/{made}/json")
        w.call("POST", f"{v}/exec/{made}/resize?h=10&w=x")
        w.call("POST", f"{v}/exec/{made}/start", {"Detach": True})
        w.call("POST", f"{v}/exec/{made}/start", {"Detach": False})
    for start in (None, {}, {"Detach": True}, {"Detach": True, "Tty": True}, {"ConsoleSize": [1, 2]}, {"ConsoleSize": [1, 2], "Tty": True},
                  {"ConsoleSize": [1]}, {"Detach": "x"}, {"Detach": True, "ConsoleSize": [1, 2]}, {"Tty": True, "ConsoleSize": None}):  # fmt: skip
        made = w.quietly(
            "POST",
            f"{v}/containers/wireexec/exec",
            {"Cmd": ["echo", "hi"], "AttachStdout": True, "Tty": bool(start and start.get("Tty"))},
        ).json()["Id"]
        w.remember(made, "EXEC")
        w.call("POST", f"{v}/exec/{made}/start", start)
        if start != {"Detach": "x"}:
            until(lambda made=made: w.quietly("GET", f"/exec/{made}/json").json()["ExitCode"] is not None)
            w.call("POST", f"{v}/exec/{made}/start", start, {"Connection": "close, Upgrade", "Upgrade": "tcp"})
    for verb in ("start", "resize?h=1&w=1"):
        w.call("POST", f"{v}/exec/none/{verb}", {})
    w.call("GET", f"{v}/exec/none/json")
    w.call("POST", f"{v}/exec/none/resize")
    held = w.quietly("POST", f"{v}/containers/wireexec/exec", {"Cmd": ["sleep", "100"]}).json()["Id"]
    w.remember(held, "HELD")
    w.call("POST", f"{v}/exec/{held}/start", {"Detach": True})
    w.call("GET", f"{v}/exec/{held}/json")
    w.call("GET", f"{v}/containers/wireexec/json")
    w.call("POST", f"{v}/exec/{held}/start", {"Detach": True})
    w.call("POST", f"{v}/exec/{held}/start", {"Detach": False})
    remove(w, "wireexec")
    w.call("GET", f"{v}/exec/{held}/json")
    w.call("POST", f"{v}/exec/{held}/start", {"Detach": True})


def streams(w: Wire, v: str) -> None:
    """Logs, attach, wait."""
    v = f"/v{v}"
    for name, tty in (("wirestream", False), ("wirestreamtty", True)):
        container(
            w,
            name,
            v,
            Tty=tty,
            Cmd=["sh", "-c", "echo out; sleep 0.3; echo err >&2"],
            start=True,
            HostConfig={"LogConfig": {"Type": "json-file", "Config": {"labels": LABEL}}},
        )
        w.call("POST", f"{v}/containers/{name}/wait")
        for query in ("", "stdout=1", "stderr=1", "stdout=1&stderr=1", "stdout=1&timestamps=1", "stdout=1&stderr=1&tail=1", "stdout=1&tail=0", "stdout=1&tail=x",
                      "stdout=1&tail=-1", "stdout=1&tail=", "stdout=1&tail=all", "stdout=1&since=x", "stdout=1&until=x", "stdout=1&since=1&until=2",
                      "stdout=1&since=99999999999", "stdout=1&until=1", "stdout=1&details=1", "stdout=1&follow=1", "stdout=1&follow=1&until=1",
                      "stdout=1&since=1.5", "stdout=1&since=1.x", "stdout=1&since=-1", "stdout=1&since=0", "stdout=1&since=10m", "stdout=1&since=2020-01-01",
                      "stdout=1&since=99999999999999999999"):  # fmt: skip
            w.call("GET", f"{v}/containers/{name}/logs?{query}")
        for query in (
            "",
            "logs=1&stdout=1&stderr=1",
            "logs=1",
            "logs=1&stdout=1",
            "detachKeys=x-y",
            "stream=0",
            "logs=1&stdout=1&stderr=1&stream=0",
        ):
            w.call("POST", f"{v}/containers/{name}/attach?{query}")
            w.call(
                "POST",
                f"{v}/containers/{name}/attach?{query}",
                None,
                {"Connection": "close, Upgrade", "Upgrade": "tcp"},
            )
            w.call("GET", f"{v}/containers/{name}/attach/ws?{query}")
        remove(w, name)
    for path in ("logs?stdout=1", "attach/ws"):
        w.call("GET", f"{v}/containers/none/{path}")
    for path in ("attach", "attach?stream=1", "wait", "wait?condition=removed", "wait?condition=x"):
        w.call("POST", f"{v}/containers/none/{path}")
    w.call("POST", f"{v}/containers/none/attach", None, {"Connection": "close, Upgrade", "Upgrade": "tcp"})
    ws = {
        "Connection": "close, Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    w.call("GET", f"{v}/containers/none/attach/ws", None, ws)


def system(w: Wire, v: str) -> None:
    """What has no state: /version and /info by their fields' types."""
    for path in ("/version", "/info"):
        reply = w.quietly("GET", f"/v{v}{path}")
        w.log.append([path, reply.status, {"content-type": reply.headers.get("content-type")}, types(reply.json())])
    w.call("GET", f"/v{v}/events?since=1&until=2")
    w.call("GET", f"/v{v}/events?since=2&until=1")
    w.call("GET", f"/v{v}/events?since=x")
    w.call("GET", f"/v{v}/events?until=x")
    w.call("GET", f"/v{v}/events?until=1&filters=x")
    w.call("GET", f"/v{v}/events?until=1&filters=" + filters(nosuch="x"))


def types(value):
    if isinstance(value, dict):
        return {key: types(item) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [types(value[0])] if value else []
    return type(value).__name__


def framing(w: Wire) -> None:
    """HTTP itself."""
    get = b"GET /_ping HTTP/1.1\r\nHost: x\r\n"
    for data in (
        b"GET /_ping HTTP/1.0\r\n\r\n",
        b"GET /_ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        get + b"Connection: close\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n",
        b"GET /_ping HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET /_ping HTTP/1.2\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /_ping HTTP/0.9\r\n\r\n",
        b"GET /_ping\r\n\r\n",
        b"GET  /_ping HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET _ping HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n\r\n" + get + b"Connection: close\r\n\r\n",
        b"junk\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        get + b"X Y: z\r\n\r\n",
        get + b"X: a\x00b\r\n\r\n",
        get + b": x\r\n\r\n",
        get + b" folded\r\n\r\n",
        get + b"X: \xff\r\nConnection: close\r\n\r\n",
        get + b"Content-Length: x\r\n\r\n",
        get + b"Content-Length: -1\r\n\r\n",
        get + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        get + b"Content-Length: 3\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
        get + b"Transfer-Encoding: x\r\n\r\n",
        get + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        get + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
        b"POST /containers/none/start HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
        b"POST /containers/none/start HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2;x=y\r\n{}\r\n0\r\nT: v\r\n\r\n",
        b"POST /volumes/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"POST /volumes/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
        b"POST /volumes/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]",
        b"POST /volumes/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: nonsense\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]",
        get + b"X: " + b"a" * 1_100_000 + b"\r\n\r\n",
        b"GET /_ping?" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /containers/" + b"a" * 10_000 + b"/json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        get + b"".join(b"X%d: y\r\n" % n for n in range(250)) + b"Connection: close\r\n\r\n",
    ):
        w.raw(data)
    w.raw(get + b"\r\n" + b"GET /containers/none/json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    w.raw(
        b"POST /volumes/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n[]",
        half_close=True,
    )
    w.raw(b"GET /_ping HTTP/1.1\r\nHost: x\r\n", half_close=True)
    w.raw(b"HEAD /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HEAD")


def happenings(w: Wire) -> None:
    """What is told about each operation, in which order and with which attributes."""
    name = "wireevents"
    made = container(
        w,
        name,
        Tty=True,
        OpenStdin=True,
        Cmd=["sh", "-c", "trap 'exit 3' TERM; sleep 1000 & wait"],
        HostConfig={"Binds": ["wireeventsvol:/vol"]},
    )
    since = f"{time.time():.9f}"

    def run(cmd: list[str]) -> None:
        prepared = w.quietly("POST", f"/containers/{name}/exec", {"Cmd": cmd}).json()["Id"]
        w.quietly("POST", f"/exec/{prepared}/start", {"Detach": True})
        until(lambda: w.quietly("GET", f"/exec/{prepared}/json").json()["ExitCode"] is not None)

    steps = (
        ("attach", "POST", "attach?logs=1", None),
        ("start", "POST", "start", None),
        ("resize", "POST", "resize?h=10&w=20", None),
        ("top", "GET", "top", None),
        ("signal", "POST", "kill?signal=WINCH", None),
        ("pause", "POST", "pause", None),
        ("unpause", "POST", "unpause", None),
        ("rename", "POST", "rename?name=wireevents2", None),
        ("back", "POST", "rename?name=/wireevents", None),
        ("update", "POST", "update", {"CpuShares": 512}),
        ("logs", "GET", "logs?stdout=1", None),
        ("stop", "POST", "stop?t=20", None),
        ("start again", "POST", "start", None),
        ("restart", "POST", "restart?t=20", None),
        ("kill", "POST", "kill", None),
    )
    for _what, method, path, body in steps:
        reply = w.quietly(method, f"/containers/{made}/{path}", body)
        assert reply.status < 300, (path, reply)
        if path == "start":
            run(["true"])
            run(["sh", "-c", "exit 7"])
    w.quietly("POST", f"/containers/{name}/wait")
    w.quietly("POST", f"/containers/{name}/rename?name={name}")  # what fails is not told
    w.quietly("DELETE", f"/containers/{name}?force=1&v=1")
    until_ = f"{time.time():.9f}"

    def told(**wanted) -> list:
        return lines(w.quietly("GET", f"/events?since={since}&until={until_}&filters={filters(**wanted)}").body)

    def tell(**wanted) -> None:
        w.log.append([w.plain(f"{wanted}"), 200, {}, [w.normal(event) for event in told(**wanted)]])

    w.remember(made, "ID")
    tell(container=made)
    tell(container=made, event="start")
    tell(container=made, event=["die", "stop"])
    tell(container=made, type="container", event="exec_create")
    tell(container=made, event="exec_create: true")
    tell(container=made, event="exec")
    tell(container=made, type="network")
    tell(container=made, type="volume")
    tell(volume="wireeventsvol")
    ours = [event for event in told(network="bridge") if event["Actor"]["Attributes"].get("container") == made]
    w.log.append(["what the network tells", 200, {}, w.normal(ours)])
    tell(container=made[:12], event="destroy")
    tell(container=name, event="destroy")
    tell(container=f"/{name}", event="destroy")
    tell(container=made, scope="local", event="destroy")
    tell(container=made, scope="swarm")
    tell(container=made, image=IMAGE, event="destroy")
    tell(container=made, image=f"{IMAGE}:latest", event="destroy")
    tell(container=made, image="nosuch")
    tell(container=made, label=LABEL, event="destroy")
    tell(container=made, label=f"{LABEL}={name}", event="destroy")
    tell(container=made, label=[LABEL, "nosuch"])
    tell(container=made, label=f"{LABEL}=x")
    tell(container=made, network="bridge")
    tell(container=made, volume="wireeventsvol")
    tell(container=made, volume="wireev")
    tell(container=made, plugin="nosuch")
    tell(container=made, daemon="nosuch")
    tell(container=made, nosuch="x", event="destroy")
    tell(label=f"{LABEL}={name}", event="rename")
    w.quietly("DELETE", "/volumes/wireeventsvol")


def lines(body: bytes) -> list:
    return [json.loads(line) for line in body.splitlines()]


SINGLE = (versions, routes, swarm, plugins, bodies, lists, framing, happenings)
BY_VERSION = (life, config, execs, streams, system)
