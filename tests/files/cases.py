"""What clients do to the files of containers, as one script of named steps: run against Docker it records what is
expected (`record.py`), run against ours it is the test (`test_as_docker.py`)."""

import base64
import bz2
import gzip
import http.client
import io
import json
import socket
import tarfile
import time
import urllib.parse
from typing import Any

IMAGE = "wherry-files"


class Client:
    """The raw API of an engine behind a unix socket."""

    def __init__(self, path: str) -> None:
        self.path = path

    def call(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json", chunked: bool = False
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("localhost", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(60)
        connection.sock.connect(self.path)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type} if data is not None else {}
        payload = iter([data]) if chunked else data
        try:
            connection.request(method, f"/v1.51{path}", payload, headers, encode_chunked=chunked)
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        status, _, data = self.call(method, path, body)
        return status, json.loads(data) if data.strip() else None


def tar(*members: dict[str, Any]) -> bytes:
    """An archive of `{"name", "data" | "type", "link", "mode", "uid", "gid", "mtime", "pax"}` members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            info = tarfile.TarInfo(member["name"])
            data = member.get("data", b"")
            info.size, info.mode = len(data), member.get("mode", 0o644)
            info.type = member.get("type", tarfile.REGTYPE)
            info.linkname = member.get("link", "")
            info.uid, info.gid, info.mtime = (
                member.get("uid", 0),
                member.get("gid", 0),
                member.get("mtime", 1_600_000_000),
            )
            info.devmajor, info.devminor = member.get("device", (0, 0))
            info.pax_headers = member.get("pax", {})
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def listing(data: bytes) -> list[list[Any]]:
    """The members of an archive: name, type, permissions, owner, size, link, content of what is short."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for info in archive:
            file = archive.extractfile(info) if info.isreg() else None
            content = file.read(100).decode("latin-1") if file else ""
            kind = info.type.decode()
            pax = {k: v for k, v in info.pax_headers.items() if "xattr" in k}
            found.append(
                [info.name, kind, oct(info.mode & 0o7777), info.uid, info.gid, info.size, info.linkname, content, pax]
            )
    return found


class Lab:
    """One engine, its containers by nickname, and what was answered."""

    def __init__(self, path: str) -> None:
        self.client = Client(path)
        self.ids: dict[str, str] = {}

    def shown(self, text: str) -> str:
        for name, container_id in self.ids.items():
            text = text.replace(container_id, f"<{name}>").replace(container_id[:12], f"<{name}>")
        return text

    def create(self, name: str, body: dict[str, Any] | None = None, *, start: bool = False) -> None:
        asked = {"Image": IMAGE, "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}, **(body or {})}
        status, answer = self.client.json("POST", "/containers/create", asked)
        assert status == 201, answer
        self.ids[name] = answer["Id"]
        if start:
            self.post(name, "start")

    def post(self, name: str, verb: str) -> None:
        status, _, data = self.client.call("POST", f"/containers/{self.ids[name]}/{verb}")
        assert status in (200, 204), (verb, status, data)

    def sh(self, name: str, script: str) -> str:
        """Run a script in a container; its output."""
        body = {"Cmd": ["sh", "-c", script], "AttachStdout": True, "AttachStderr": True, "Tty": True}
        status, answer = self.client.json("POST", f"/containers/{self.ids[name]}/exec", body)
        assert status == 201, answer
        _, _, data = self.client.call("POST", f"/exec/{answer['Id']}/start", {"Tty": True})
        while self.client.json("GET", f"/exec/{answer['Id']}/json")[1]["Running"]:
            time.sleep(0.02)
        return data.decode().replace("\r\n", "\n")

    def close(self) -> None:
        for container_id in self.ids.values():
            self.client.call("DELETE", f"/containers/{container_id}?force=1&v=1")

    # archive

    def head(self, name: str, path: str | None) -> list[Any]:
        status, headers, _ = self.client.call("HEAD", self._archive(name, path))
        return [status, _stat(headers)]

    def get(self, name: str, path: str | None) -> list[Any]:
        status, headers, data = self.client.call("GET", self._archive(name, path))
        if status != 200:
            return [status, self.shown(data.decode())]
        return [status, headers.get("Content-Type"), _stat(headers), sorted(listing(data))]

    def put(self, name: str, path: str | None, data: bytes, query: str = "", *, chunked: bool = False) -> list[Any]:
        target = self._archive(name, path) + query
        status, _, answer = self.client.call("PUT", target, data, content_type="application/x-tar", chunked=chunked)
        return [status, self.shown(answer.decode())]

    def _archive(self, name: str, path: str | None) -> str:
        query = "" if path is None else f"path={urllib.parse.quote(path)}"
        return f"/containers/{self.ids.get(name, name)}/archive?{query}"


def _stat(headers: dict[str, str]) -> dict[str, Any] | None:
    text = headers.get("X-Docker-Container-Path-Stat")
    if text is None:
        return None
    stat = json.loads(base64.b64decode(text, validate=True))
    assert isinstance(stat.pop("mtime"), str)
    return stat


DIRECTORY, SYMLINK, HARDLINK = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
_MAKE_TREE = """mkdir -p /d/sub; echo hi >/d/f; echo s >/d/sub/g; ln -s f /d/l; ln -s /d /ld; ln -s sub /d/ls
ln -s nowhere /d/dang; ln -s ../../../x /d/up; mkfifo /d/p; chmod 4755 /d/f; chown 5:6 /d/sub/g; ln /d/f /d/hard
chmod 1777 /d; ln -s loop /loop; mkdir /w; touch -d @1500000000 /d/f /d/sub/g"""
_HEADS = (
    *("/", "", "/d", "/d/", "/d/.", "d", "/d/f", "/d/f/", "/d/f/.", "/d/l", "/d/l/", "/ld", "/ld/", "/ld/.", "/ld/f"),
    *(
        "/d/ls",
        "/d/ls/",
        "/d/dang",
        "/d/dang/",
        "/d/up",
        "/nope",
        "/d/f/x",
        "/d/../d",
        "/d/..",
        "..",
        "/../..",
        "/proc",
    ),
    *("/proc/1", "/dev/null", "/etc/hosts", "/d/p", "/loop", "/loop/x", "x" * 300, "/d/\u00e9", None, "."),
)
_GETS = (
    *("/d", "/d/", "/d/.", "d", "/d/f", "/d/f/", "/d/l", "/ld", "/ld/", "/ld/.", "/ld/f", "/d/ls/.", "/d/dang"),
    *(
        "/d/dang/",
        "/nope",
        "/d/f/x",
        "/d/p",
        "/loop",
        "/loop/x",
        None,
        "",
        "/proc",
        "/etc/hosts",
        "/bin/sh",
        "/d/sub/..",
    ),
)
_LIST = "cd /w; find . | sort | while read f; do stat -c '%n %f %u:%g %Y %h %N %t:%T' \"$f\"; done | sed '1d'"


def new(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "data": b"new", **more}


_PUTS: tuple[tuple[str, str | None, tuple[dict[str, Any], ...], str], ...] = (
    ("a file", "/w", (new("f", uid=7, gid=8, mode=0o640),), ""),
    ("copyUIDGID without user", "/w", (new("f2", uid=7, gid=8),), "&copyUIDGID=1"),
    ("to a file", "/w/f", (new("x"),), ""),
    ("to a file with slash", "/w/f/", (new("x"),), ""),
    ("to nothing", "/nope", (new("x"),), ""),
    ("to a dangling link", "/d/dang", (new("x"),), ""),
    ("to a loop", "/loop", (new("x"),), ""),
    ("to a linked directory", "/ld", (new("x1"),), ""),
    ("no path", None, (new("x"),), ""),
    ("empty path", "", (new("x"),), ""),
    ("file over directory", "/w/..", (new("w"),), "&noOverwriteDirNonDir=1"),
    ("directory over file, refused", "/w", ({"name": "f", "type": DIRECTORY},), "&noOverwriteDirNonDir=true"),
    ("directory over file", "/w", ({"name": "f", "type": DIRECTORY, "mode": 0o755},), ""),
    ("merge", "/w", ({"name": "f", "type": DIRECTORY, "mode": 0o700, "uid": 3}, new("f/in")), ""),
    ("file over directory, allowed", "/w", (new("f"),), ""),
    ("attributes of the root", "/w", ({"name": "./", "type": DIRECTORY, "mode": 0o710, "uid": 3}, new("./q")), ""),
    ("out of it", "/w", (new("../esc"),), ""),
    ("absolute", "/w", (new("/abs"),), ""),
    ("parents", "/w", (new("a/b/c"),), ""),
    ("link", "/w", ({"name": "ln", "type": SYMLINK, "link": "/d"},), ""),
    ("through its own link to a file", "/w", ({"name": "ln", "type": SYMLINK, "link": "f"}, new("ln/in")), ""),
    ("link up", "/w", ({"name": "su", "type": SYMLINK, "link": "../d"},), ""),
    ("hard link up", "/w", ({"name": "hu", "type": HARDLINK, "link": "../d/f"},), ""),
    ("hard link", "/w", ({"name": "hu", "type": HARDLINK, "link": "q"},), ""),
    ("hard link to nothing", "/w", ({"name": "hu2", "type": HARDLINK, "link": "nope"},), ""),
    ("whiteouts mean nothing", "/w", (new(".wh.q"), new(".wh..wh..opq")), ""),
    (
        "devices",
        "/w",
        (
            {"name": "dev", "type": tarfile.CHRTYPE, "device": (1, 3), "mode": 0o666},
            {"name": "fifo", "type": tarfile.FIFOTYPE, "mode": 0o4711, "uid": 3},
        ),
        "",
    ),
    ("unknown type", "/w", ({"name": "uk", "type": b"Z"},), ""),
    ("set-id", "/w", (new("suid", mode=0o6755, uid=9),), ""),
    ("over a mount", "/etc", (new("hosts"),), ""),
    ("into proc", "/proc", (new("x"),), ""),
    ("long name", "/w", (new("n" * 300),), ""),
    ("no name", "/w", (new(""),), ""),
    ("twice", "/w", (new("dup"), new("dup", data=b"2")), ""),
)
_RAW = (
    ("nothing", b""),
    ("no archive", b"hello world this is not a tar"),
    ("no archive, long", b"x" * 2000),
    ("zeros", b"\0" * 1024),
    ("cut off", tar(new("cut", data=b"z" * 3000))[:1500]),
    ("gzip", gzip.compress(tar(new("gz")))),
    ("bzip2", bz2.compress(tar(new("bz")))),
)


def play(lab: Lab) -> dict[str, Any]:
    """Everything, and what came of it by the name of the step."""
    found: dict[str, Any] = {}
    lab.create("c", start=True)
    lab.sh("c", _MAKE_TREE)
    found |= {f"head {path!r:.60}": lab.head("c", path) for path in _HEADS}
    found |= {f"get {path!r:.60}": lab.get("c", path) for path in _GETS}
    found["head of none"], found["get of none"] = lab.head("nosuch", "/"), lab.get("nosuch", "/")
    found["put to none"] = lab.put("nosuch", "/", b"")
    for name, path, members, query in _PUTS:
        found[f"put {name}"] = [lab.put("c", path, tar(*members), query), lab.sh("c", _LIST).split("\n")]
    for name, data in _RAW:
        found[f"put {name}"] = lab.put("c", "/w", data, chunked=len(data) > 100)
    found["after all"] = lab.sh("c", "ls /w /d")
    _mounts(lab, found)
    _users(lab, found)
    return found


def _mounts(lab: Lab, found: dict[str, Any]) -> None:
    host = {
        "ReadonlyRootfs": True,
        "NetworkMode": "none",
        "Binds": ["wf-v:/vol", "wf-r:/rvol:ro"],
        "Tmpfs": {"/tmp": ""},
    }
    lab.create("ro", {"HostConfig": host}, start=True)
    for path in ("/", "/vol", "/rvol", "/tmp", "/bin", "/vol/.", "/rvol/."):
        found[f"read-only: put {path}"] = lab.put("ro", path, tar(new("x")))
    lab.create("m", {"HostConfig": {"NetworkMode": "none", "Binds": ["wf-m:/a/vol"], "Tmpfs": {"/t": ""}}})
    found["created: put into volume"] = lab.put("m", "/a/vol", tar(new("zz")))
    found["created: put over volume"] = lab.put(
        "m", "/a", tar({"name": "vol", "type": DIRECTORY, "mode": 0o755}, new("vol/z"))
    )
    found["created: a volume"] = lab.get("m", "/a")[3]
    lab.post("m", "start")
    lab.sh("m", "echo x >/t/inside; echo y >/a/vol/new")
    found["running: a volume"] = lab.get("m", "/a")[3]
    found["running: a tmpfs"] = lab.get("m", "/t")[3]
    found["running: put into tmpfs"] = [lab.put("m", "/t", tar(new("zz"))), lab.sh("m", "ls /t")]
    lab.post("m", "pause")
    found["paused: put and get"] = [lab.put("m", "/a", tar(new("zz"))), lab.get("m", "/a")[3]]
    lab.post("m", "unpause")


def _users(lab: Lab, found: dict[str, Any]) -> None:
    for name, user in (("u1", "nobody"), ("u2", "1234:55"), ("u3", "nosuchuser"), ("u4", "nobody:nogroup")):
        lab.create(name, {"User": user})
        found[f"user {user}"] = [
            lab.put(name, "/tmp", tar(new("zz", uid=3)), "&copyUIDGID=1"),
            lab.put(name, "/tmp", tar(new("own", uid=3))),
            lab.get(name, "/tmp")[3],
        ]


CHANGES = """mkdir -p /n/a /n/b; echo 1 >/n/a/x; touch /etc/passwd; chmod 700 /root; rm /bin/yes; rm -rf /www
mkdir /www; echo n >/www/new; echo x >>/etc/group; ln -s q /tmp/l; mkdir /var/empty; rm -rf /var/empty;
mv /bin/pwd /bin/pwd2; ln /etc/group /etc/group2; mkfifo /tmp/ff; mkdir /tmp/keep; chown 4 /tmp; rm /etc/passwd
mkdir /etc/passwd; rm -rf /root; echo f >/root; touch -d @1500000000 /bin/busybox"""


def differ(lab: Lab) -> dict[str, Any]:
    """diff, export and commit."""
    found: dict[str, Any] = {}
    lab.create("d", start=True)
    lab.create("e")
    lab.sh("d", CHANGES)
    for name in ("d", "e"):
        status, changes = lab.client.json("GET", f"/containers/{lab.ids[name]}/changes")
        found[f"changes of {name}"] = [status, sorted([c["Path"], c["Kind"]] for c in changes or []), changes is None]
    found["changes of none"] = lab.client.json("GET", "/containers/nosuch/changes")
    found["export of none"] = lab.client.json("GET", "/containers/nosuch/export")
    status, headers, data = lab.client.call("GET", f"/containers/{lab.ids['d']}/export")
    members = [member[:7] for member in listing(data) if member[0] not in ENGINES_OWN]
    found["export"] = [status, headers.get("Content-Type"), members]
    for query in _COMMITS:
        found[f"commit {query}"] = _commit(lab, "d", query)
    body = {"Cmd": ["y"], "Labels": {"l": "1"}, "Env": ["Q=1"], "User": "5", "ExposedPorts": {"80/tcp": {}}}
    found["commit with a body"] = _commit(lab, "d", "", body)
    found["commit nothing"] = _commit(lab, "e", "")
    found["commit of none"] = lab.client.json("POST", "/commit?container=nosuch", {})
    found["commit without"] = lab.client.json("POST", "/commit", {})
    return found


ENGINES_OWN = (
    *(".dockerenv", "dev/console", "dev/pts", "dev/shm", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"),
)
_COMMITS = (
    *("&comment=hello&author=me&changes=CMD+x&changes=ENV+a%3Db", "&repo=UPPER", "&repo=x&tag=@", "&tag=x"),
    *("&changes=FOO+x", "&changes=ENV", "&repo=x@sha256:" + "a" * 64, "&repo=wf-commit:b&tag=c", "&pause=0"),
)


def _commit(lab: Lab, name: str, query: str, body: Any = None) -> list[Any]:
    status, answer = lab.client.json("POST", f"/commit?container={lab.ids[name]}{query}", body)
    if status != 201:
        return [status, answer]
    image = lab.client.json("GET", f"/images/{answer['Id']}/json")[1]
    history = lab.client.json("GET", f"/images/{answer['Id']}/history")[1]
    parent = lab.client.json("GET", f"/images/{IMAGE}/json")[1]
    lab.client.call("DELETE", f"/images/{answer['Id']}?force=1")
    kept = {key: image[key] for key in ("RepoTags", "Comment", "Author", "Architecture", "Os", "Config")}
    steps = [[step["Comment"], step["CreatedBy"], step["Size"] > 0] for step in history]
    layers = len(image["RootFS"]["Layers"]) - len(parent["RootFS"]["Layers"])
    return [status, kept, steps, layers, image["Parent"] == parent["Id"]]
