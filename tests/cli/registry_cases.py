"""Sequences of commands about registries on one configuration, the engine and the credential helpers they meet."""

import base64
import json
import os
import re
import shlex
from pathlib import Path

from tests.cli.fake_engine import CONTAINER_ID, Reply, as_json

HERE = Path(__file__).parent
DIGEST = "sha256:" + "5" * 64
# Keeps secrets in the file STORE beside itself, as docker-credential-pass would in a safe place.
HELPER = """#!/usr/bin/python3 -IS
import json, os, sys
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "STORE")
known = json.load(open(path)) if os.path.exists(path) else {}
asked = sys.stdin.read()
action = sys.argv[1]
if action == "store":
    given = json.loads(asked)
    known[given["ServerURL"]] = given
elif action == "erase":
    known.pop(asked.strip(), None)
elif action == "list":
    print(json.dumps({url: each["Username"] for url, each in known.items()}))
elif asked.strip() in known:
    print(json.dumps(known[asked.strip()]))
else:
    print("credentials not found in native keychain")
    sys.exit(1)
json.dump(known, open(path, "w"))
"""
HELPERS = {
    "docker-credential-safe": HELPER,
    "docker-credential-broken": '#!/bin/sh\necho "  the safe is jammed "\necho "some noise" >&2\nexit 3\n',
    "docker-credential-nonsense": "#!/bin/sh\necho nonsense\n",
    "docker-credential-nourl": '#!/bin/sh\necho "no credentials server URL"\nexit 1\n',
    "docker-credential-killed": "#!/bin/sh\nkill -9 $$\n",
}


def cases():
    """Each a list of commands: variables before the words perhaps (STDIN is what the command reads), or
    "write FILE TEXT"."""
    lines = (HERE / "data" / "registry_cases.txt").read_text().splitlines()
    return [[shlex.split(command) for command in line.split(" ;; ")] for line in lines]


def split(words):
    """(environment, words) of one command."""
    count = next(n for n, word in enumerate(words) if not re.match("[A-Z_]+=", word))
    return dict(word.split("=", 1) for word in words[:count]), words[count:]


def prepare(top):
    """Credential helpers in top/bin, a configuration to come in top/config."""
    for name in ("config", "bin"):
        (Path(top) / name).mkdir()
    for name, text in HELPERS.items():
        path = Path(top, "bin", name)
        path.write_text(text)
        path.chmod(0o755)


def write(top, name, text):
    """A file of the configuration, written by hand."""
    path = Path(top, "config", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def tree(top):
    """What the commands left behind: {path: mode and content}."""
    paths = [p for p in Path(top).rglob("*") if p.is_file() and not p.name.startswith(("docker-credential", "engine"))]
    return {str(p.relative_to(top)): f"{p.stat().st_mode & 0o777:o} {p.read_text()}" for p in sorted(paths)}


def _lines(*messages):
    return Reply(200, b"".join(json.dumps(each).encode() + b"\r\n" for each in messages))


def _login(request):
    given = json.loads(request.body)
    if given.get("password") in ("bad", "ill"):
        status = 401 if given["password"] == "bad" else 500
        return as_json({"message": 'Get "https://x/v2/": unauthorized: incorrect username or password'}, status)
    token = "a-token" if given.get("username") == "tokened" else ""
    return as_json({"IdentityToken": token, "Status": "Login Succeeded"})


def _pull(request):
    if "gone" in request.query:
        return as_json({"message": "pull access denied for gone, repository does not exist"}, 404)
    if "broken" in request.query:
        return _lines({"status": "Pulling"}, {"errorDetail": {"message": "cut off", "code": 7}, "error": "cut off"})
    if "plugin" in request.query:
        return as_json({"message": "Encountered remote \"x\" when fetching 'plugin'"}, 400)
    if "denied" in request.query:
        return as_json({"message": "denied: no"}, 401)
    return _lines(
        {"status": "Pulling from x", "id": "latest"},
        {"status": "Pulling fs layer", "progressDetail": {}, "id": "aaa"},
        {"status": "Downloading", "progressDetail": {"current": 1, "total": 2}, "progress": "[>", "id": "aaa"},
        {"status": "Pull complete", "progressDetail": {}, "id": "aaa"},
        {"status": f"Digest: {DIGEST}"},
        {"status": "Status: Downloaded newer image for x"},
    )


def _push(request):
    if "gone" in request.path:
        return as_json({"message": "An image does not exist locally with the tag: gone"}, 404)
    if "denied" in request.path:
        return _lines({"errorDetail": {"message": "denied: no"}, "error": "denied: no"})
    return _lines(
        {"status": "The push refers to repository [x]"},
        {"status": "Preparing", "progressDetail": {}, "id": "aaa"},
        {"status": "Pushed", "progressDetail": {}, "id": "aaa"},
        {"status": f"latest: digest: {DIGEST} size: 527"},
        {"progressDetail": {}, "aux": {"Tag": "latest", "Digest": DIGEST, "Size": 527}},
        *([{"progressDetail": {}, "aux": PUSHED_OTHERWISE}] if "noted" in request.path else []),
    )


PUSHED_OTHERWISE = {
    "manifestPushedInsteadOfIndex": True,
    "originalIndex": {"mediaType": "i", "digest": "sha256:" + "1" * 64, "size": 1},
    "selectedManifest": {"mediaType": "m", "digest": "sha256:" + "2" * 64, "size": 1},
}
FOUND = [
    {"name": "few", "description": "A short one", "star_count": 12, "is_official": True, "is_automated": False},
    {"name": "many/words", "description": "Lines\nof\r\nwords that go on and on and on, until they are no more shown",
     "star_count": 2345, "is_official": False, "is_automated": True},
    {"name": "x/" + "long" * 12, "description": "", "star_count": 0, "is_official": False},
]  # fmt: skip


def _search(request):
    if "denied" in request.query:
        return as_json({"message": "denied: no"}, 401)
    return as_json([] if "nothing" in request.query else FOUND)


def _create():
    """A container is made when its image has been pulled."""
    pulled = []

    def create(request):
        image = json.loads(request.body)["Image"]
        if "busybox" in image or image in pulled:
            return as_json({"Id": CONTAINER_ID, "Warnings": []}, 201)
        pulled.append(image)
        return as_json({"message": f"No such image: {image}"}, 404)

    return create


def routes():
    """What the engine answers."""
    official = [f"docker.io/library/{name}" for name in ("x", "gone", "denied", "noted")]
    names = (*official, "docker.io/you/x", "127.0.0.1:5000/x", "e.example/x")
    return {
        "GET /info": as_json({"OSType": "linux", "IndexServerAddress": "https://index.docker.io/v1/"}),
        "POST /auth": _login,
        "POST /images/create": _pull,
        "GET /images/search": _search,
        "POST /containers/create": _create(),
        f"POST /containers/{CONTAINER_ID}/start": Reply(204),
        **{f"POST /images/{name}/push": _push for name in names},
    }


# What is typed at a terminal: (variables, files of the configuration, words, (what is awaited, what is typed)).
TYPED = [
    ({}, {}, ["login", "h.example"], [("Username: ", "me\r"), ("Password: ", "secret\r")]),
    ({}, {}, ["login", "h.example"], [("Username: ", "  \r")]),
    ({}, {}, ["login", "-u", "me", "h.example"], [("Password: ", "\r")]),
    ({}, {}, ["login", "-u", "me", "h.example"], [("Password: ", "bad\r")]),
    ({}, {}, ["login", "-u", "me", "h.example"], [("Password: ", " a b \r")]),
    ({}, {}, ["login", "-p", "secret", "h.example"], [("Username: ", "me\r")]),
    ({}, {}, ["login", "-u", "me"], [("Password: ", "secret\r")]),
    ({}, {}, ["login", "-p", "secret"], [("Username: ", "me\r")]),
    ({}, {"config.json": '{"auths":{"h.example":{"auth":"bWU6YmFk"}}}'}, ["login", "h.example"],
     [("Username (me): ", "\r"), ("Password: ", "secret\r")]),
    ({}, {"config.json": '{"auths":{"h.example":{"auth":"bWU6aWxs"}}}'}, ["login", "h.example"],
     [("Username (me): ", "you\r"), ("Password: ", "secret\r")]),
    ({}, {"config.json": '{"auths":{"h.example":{"auth":"bWU6","identitytoken":"t"}}}'}, ["login", "h.example"],
     [("Username (me): ", "\r"), ("Password: ", "secret\r")]),
    ({"DOCKER_AUTH_CONFIG": '{"auths":{"h.example":{"auth":"YTpi"}}}'}, {}, ["login", "h.example"], []),
    ({}, {}, ["push", "--platform", "linux/arm64", "x"], []),
    ({}, {}, ["push", "noted"], []),
    ({}, {}, ["push", "--quiet", "noted"], []),
    ({}, {}, ["search", "few"], []),
]  # fmt: skip


def asked(engine):
    """What the engine was asked for: requests with the credentials they carried."""
    return [
        {
            "request": f"{r.method} {r.path}?{r.query}",
            "auth": _decoded(r.headers.get("x-registry-auth")),
            "body": json.loads(r.body) if r.path == "/auth" else None,
        }
        for r in engine.requests
        if r.path not in ("/_ping", "/info") and not r.path.endswith("/start")
    ]


def _decoded(header):
    return None if header is None else json.loads(base64.urlsafe_b64decode(header) or "null")


def environment(top):
    """The variables every command runs with."""
    path = f"{top}/bin:{os.environ['PATH']}"
    return {"PATH": path, "HOME": "/nonexistent", "DOCKER_CONFIG": f"{top}/config", "LANG": "C.UTF-8", "TZ": "UTC"}
