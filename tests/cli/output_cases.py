"""Commands whose output is compared with the docker CLI's, and the engine that answers both."""

import json
import os
import shlex
import struct
import time

from tests.cli.fake_engine import CONTAINER_ID, Reply, as_json

HERE = os.path.dirname(os.path.abspath(__file__))
IMAGE_ID = "sha256:" + "1522b370f3be" + "a" * 52


def load(name):
    """A JSON document of the data directory."""
    with open(os.path.join(HERE, "data", name)) as file:
        return json.load(file)


def cases():
    """The command lines, without the program."""
    with open(os.path.join(HERE, "data", "output_cases.txt")) as file:
        return [shlex.split(line) for line in file]


def _port(private, public=0, address="", kind="tcp"):
    port = {"PrivatePort": private, "Type": kind}
    if address:
        port |= {"IP": address, "PublicPort": public}
    return port


def _containers(_request):
    now = int(time.time())
    network = {"Networks": {"bridge": {"NetworkID": "x"}}}
    common = {"HostConfig": {"NetworkMode": "bridge"}, "NetworkSettings": network, "ImageID": IMAGE_ID}
    return as_json(
        [
            common
            | {
                "Id": CONTAINER_ID, "Names": ["/web", "/other/link"], "Image": "busybox:1.36", "Created": now - 330,
                "Command": "sh -c 'while true; do echo \"hello\"; done'", "State": "running",
                "Status": "Up 5 minutes (healthy)", "Labels": {"com.x.y": "1", "tier": "front"},
                "Ports": [
                    _port(80, 8080, "0.0.0.0"), _port(80, 8080, "::"), _port(443, 443, "0.0.0.0"),
                    _port(444, 444, "0.0.0.0"), _port(53, 0, "", "udp"), _port(54, 0, "", "udp"),
                    _port(9000), _port(81, 8081, "127.0.0.1"),
                ],
                "Mounts": [
                    {"Type": "volume", "Name": "averylongvolumename-1234", "Source": "/v", "Driver": "local"},
                    {"Type": "bind", "Source": "/tmp"},
                ],
                "SizeRw": 12288, "SizeRootFs": 1984172,
            },
            common
            | {
                "Id": "b" * 64, "Names": ["/db"], "Image": IMAGE_ID, "Created": now - 90, "Command": "/bin/sleep 9",
                "State": "exited", "Status": "Exited (137) 3 seconds ago", "Labels": {}, "Ports": [], "Mounts": [],
                "SizeRw": 0, "SizeRootFs": 0,
            },
            common
            | {
                "Id": "c" * 64, "Names": ["/pinned"], "Image": "a/b@sha256:" + "d" * 64, "Created": now - 7300,
                "Command": "x", "State": "created", "Status": "Created", "Labels": None, "Ports": None, "Mounts": None,
            },
        ]
    )  # fmt: skip


def _images(_request):
    now = int(time.time())
    digest = "sha256:" + "e" * 64
    common = {"SharedSize": -1, "Containers": -1, "Labels": None, "ParentId": ""}
    return as_json(
        [
            common | {"Id": IMAGE_ID, "RepoTags": ["busybox:1.36", "busybox:latest"],
                      "RepoDigests": [f"busybox@{digest}"], "Created": now - 86400 * 3, "Size": 1984172},
            common | {"Id": "sha256:" + "7" * 64, "RepoTags": ["host:5000/a/b:v1"], "RepoDigests": [],
                      "Created": now - 86400 * 5, "Size": 1500},
            common | {"Id": "sha256:" + "f" * 64, "RepoTags": [], "RepoDigests": [], "Created": now - 86400 * 40,
                      "Size": 123456789},
            common | {"Id": "sha256:" + "9" * 64, "RepoTags": [], "RepoDigests": [f"only/digest@{digest}"],
                      "Created": now - 86400 * 800, "Size": 999},
        ]
    )  # fmt: skip


def _history(_request):
    now = int(time.time())
    return as_json(
        [
            {"Id": IMAGE_ID, "Created": now - 3600 * 5, "CreatedBy": '/bin/sh -c #(nop)  CMD ["sh"]' + " x" * 30,
             "Tags": ["busybox:1.36"], "Size": 0, "Comment": ""},
            {"Id": "<missing>", "Created": now - 3600 * 60, "CreatedBy": "/bin/sh -c #(nop) ADD\tfile", "Tags": None,
             "Size": 1984172, "Comment": "imported"},
        ]
    )  # fmt: skip


def _events(_request):
    events = [
        {"status": "start", "id": CONTAINER_ID, "Type": "container", "Action": "start",
         "Actor": {"ID": CONTAINER_ID, "Attributes": {"name": "web", "image": "busybox"}}, "scope": "local",
         "time": 1700000000, "timeNano": 1700000000123456789},
        {"Type": "network", "Action": "connect", "Actor": {"ID": "n1", "Attributes": {}}, "scope": "local",
         "time": 1700000001, "timeNano": 1700000001000000000},
    ]  # fmt: skip
    return Reply(200, "\n".join(json.dumps(each) for each in events).encode())


def _logs(_request):
    def frame(stream, data):
        return struct.pack(">BxxxL", stream, len(data)) + data

    body = frame(1, b"one\n") + frame(2, b"two\n") + frame(1, b"three, no newline")
    return Reply(200, body, "application/vnd.docker.multiplexed-stream")


def _top(_request):
    return as_json({"Titles": ["UID", "PID", "CMD"], "Processes": [["root", "1", "sleep 300"], ["root", "22", "sh"]]})


VOLUMES = [
    {"CreatedAt": "2026-01-02T03:04:05Z", "Driver": "local", "Labels": labels, "Mountpoint": f"/v/{name}/_data",
     "Name": name, "Options": None, "Scope": "local"}
    for name, labels in (("data", None), ("vol10", {"a": "1"}), ("vol2", {"x": ""}), ("Vol2", {}))
]  # fmt: skip


def _volumes(_request):
    return as_json({"Volumes": VOLUMES, "Warnings": None})


def routes():
    """What the engine answers."""
    container, image, network = load("container.json"), load("image.json"), load("network.json")
    host = network | {"Name": "host", "Driver": "host", "Id": "5" * 64, "Labels": {"a": "b"}}
    return {
        "GET /containers/json": _containers,
        "GET /images/json": _images,
        "GET /images/busybox/history": _history,
        "GET /containers/web/json": as_json(container),
        "GET /images/busybox/json": as_json(image),
        "GET /networks/bridge": as_json(network),
        "GET /networks": as_json([host, network]),
        "GET /volumes": _volumes,
        "GET /volumes/data": as_json(VOLUMES[0]),
        "GET /volumes/gone": as_json({"message": "get gone: no such volume"}, 404),
        "POST /volumes/create": lambda request: as_json({"Name": "f" * 64, **json.loads(request.body)}, 201),
        "DELETE /volumes/data": Reply(204),
        "DELETE /volumes/vol2": Reply(204),
        "DELETE /volumes/gone": as_json({"message": "get gone: no such volume"}, 404),
        "GET /info": as_json(load("info.json")),
        "GET /version": as_json(load("version.json")),
        "GET /events": _events,
        "GET /containers/web/logs": _logs,
        "GET /containers/web/top": _top,
        **{f"POST /containers/{name}/{verb}": Reply(204) for name in ("web", "db")
           for verb in ("stop", "start", "kill", "restart", "pause", "unpause", "rename")},
        "DELETE /containers/web": Reply(204),
        "POST /containers/gone/stop": as_json({"message": "No such container: gone"}, 404),
        "DELETE /containers/gone": as_json({"message": "No such container: gone"}, 404),
        "GET /containers/gone/json": as_json({"message": "No such container: gone"}, 404),
        "POST /containers/web/wait": as_json({"StatusCode": 7}),
        "POST /containers/db/wait": as_json({"StatusCode": 0}),
        "DELETE /images/busybox": as_json([{"Untagged": "busybox:latest"}, {"Deleted": IMAGE_ID}]),
        "POST /images/busybox/tag": Reply(201),
        "GET /containers/" + container["Id"] + "/logs": _logs,
        "POST /images/load": Reply(200, b'{"stream":"Loaded image: busybox:latest\\n"}\r\n'),
        "POST /images/create": Reply(200, b'{"status":"sha256:' + b"1" * 64 + b'"}\r\n'),
        "POST /containers/web/exec": as_json({"Id": "e1"}, 201),
    }  # fmt: skip
