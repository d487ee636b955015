"""Conversations about images, in the manner of `conversations`: what the store does, told as Docker tells it.

Every image has the label `wire.images`, so that nothing else on the engine is in the lists.
"""

import io
import json
import tarfile
import time
from urllib.parse import quote

from tests.images import mkimg
from tests.images.mkimg import archive, digest, directory, docker_archive, file

from .wire import Reply, Wire, filters

LABEL = "wire.images"
TAR = {"Content-Type": "application/x-tar"}
_BASE = archive(directory(b"wire/"), file(b"wire/a", b"base"))
_TOP = archive(file(b"wire/b", b"top!!"), file(b"wire/.wh.a"))
_SIDE = archive(directory(b"wired/"), file(b"wired/side", b"s" * 700))
_SCRATCH = archive(directory(b"bin/"), file(b"bin/x", b"#!", mode=0o755))


def _config(layers: list[bytes], year: int, **config) -> bytes:
    labels = config.pop("Labels", {}) | {LABEL: "1"}
    steps = [{"created": f"{year}-01-0{n + 1}T00:00:00Z", "created_by": f"step {n}"} for n in range(len(layers))]
    return mkimg.config(
        layers,
        created=f"{year}-05-06T07:08:09.123456789Z",
        config={"Cmd": ["/bin/x"], "Labels": labels} | config,
        history=[*steps, {"created_by": "nothing", "empty_layer": True}],
    )


IMAGES = {
    "base": ([_BASE], _config([_BASE], 2020), ["wireimg/base:1", "wireimg/base:2"]),
    "child": ([_BASE, _TOP], _config([_BASE, _TOP], 2021, Env=["A=1"]), ["wireimg/child:1"]),
    "side": ([_SIDE], _config([_SIDE], 2022, Labels={"kind": "side"}), ["wireimg/side:latest", "wireother/side:x"]),
    "bare": ([_SCRATCH], _config([_SCRATCH], 2023), []),
}


def _load(w: Wire, *names: str) -> None:
    for name in names:
        layers, config, tags = IMAGES[name]
        reply = w.quietly("POST", "/images/load", docker_archive(layers, tags, config_data=config), TAR)
        assert b"Loaded image" in reply.body, reply
    for name, (_, config, _) in IMAGES.items():
        w.remember(digest(config)[7:], f"<{name}>")
        w.remember(digest(config)[7:19], f"<{name} short>")


def _id(name: str) -> str:
    return digest(IMAGES[name][1])


def clear(w: Wire) -> None:
    """Remove all that a conversation may have left."""
    for each in w.quietly("GET", "/containers/json?all=1").json():
        if each["Names"][0].startswith("/wire"):
            w.quietly("DELETE", f"/containers/{each['Id']}?force=1&v=1")
    for _ in range(4):
        for each in w.quietly("GET", f"/images/json?all=1&filters={filters(label=LABEL)}").json():
            for name in each["RepoTags"] or [each["Id"]]:
                w.quietly("DELETE", f"/images/{quote(name)}?force=1")


def _list(w: Wire, query: str = "", v: str = "", **wanted) -> None:
    """A list of ours alone, with the sizes that `Wire` would hide."""
    path = f"{v}/images/json?{query}"
    reply = w.quietly("GET", f"{path}&filters={filters(**wanted)}" if wanted else path)
    if reply.status != 200:
        w.note(f"GET {path} {wanted}", reply)
        return
    found = [image for image in reply.json() if (image["Labels"] or {}).get(LABEL)]
    for image in found:
        image["bytes"] = [image["Size"], image["SharedSize"], image["Containers"]]
    found.sort(key=lambda image: (-image["Created"], image["Size"]))  # in a second, Docker's order is anybody's guess
    w.note(f"GET {path} {wanted}", reply._replace(body=json.dumps(found).encode()))


def image_lists(w: Wire, version: str) -> None:
    """What GET /images/json, inspect and history tell."""
    v = f"/v{version}"
    clear(w)
    _load(w, *IMAGES)
    for query in ("", "all=1", "digests=1", "shared-size=1", "manifests=1", "shared-size=1&manifests=1&all=1"):
        _list(w, query, v)
    base, child = _id("base"), _id("child")
    for wanted in (
        {"label": LABEL}, {"label": f"{LABEL}=1"}, {"label": f"{LABEL}=2"}, {"label": [LABEL, "kind"]},
        {"label": "kind=side"}, {"label!": "kind"}, {"label!": ["kind", LABEL]}, {"label": LABEL, "label!": "kind=side"},
        {"dangling": "true"}, {"dangling": "false"}, {"dangling": "1"}, {"dangling": "x"},
        {"before": "wireimg/child:1"}, {"before": child}, {"before": child[7:19]}, {"before": "nosuch"},
        {"since": "wireimg/base:2"}, {"since": "wireimg/base"}, {"since": base[:19]}, {"since": "UPPER"},
        {"before": "wireimg/side", "since": "wireimg/base:1"}, {"before": ["wireimg/side", "wireimg/child:1"]},
        {"reference": "wireimg/*"}, {"reference": "wireimg/*:1"}, {"reference": "wireimg/base"}, {"reference": "*"},
        {"reference": "wire*/side"}, {"reference": ["wireimg/base:2", "wireother/side"]}, {"reference": "wireimg/base:[2-9]"},
        {"reference": "docker.io/wireimg/*"}, {"reference": "["}, {"reference": "wireimg/base:?", "label": LABEL},
        {"reference": base}, {"reference": base[7:19]}, {"reference": "side"}, {"reference": "**/side"},
        {"until": "2022-01-01"}, {"until": "2022-01-01T00:00:00Z"}, {"until": "1640995200"}, {"until": "24h"},
        {"until": "x"}, {"until": ["24h", "2021-01-01"]},
        {"id": base}, {"nosuch": "x"}, {"is-automated": "true"},
    ):  # fmt: skip
        _list(w, "", v, **wanted)
    for name in ("wireimg/base:1", "wireimg/base", "wireimg/base:2", base, base[7:], base[7:19], base[:19], "wireimg/child",
                 "wireimg/child:1", "wireimg/side", f"wireimg/side@{base}", "docker.io/wireimg/side:latest", _id("bare"),
                 "nosuch", "UPPER", "a" * 64, "sha256:" + "a" * 64, "docker.io/nosuch:x"):  # fmt: skip
        w.call("GET", f"{v}/images/{name}/json")
        w.call("GET", f"{v}/images/{name}/history")
    here = '{"os":"linux","architecture":"amd64"}'
    there = '{"os":"linux","architecture":"arm64","variant":"v8"}'
    for query in (f"platform={quote(here)}", f"platform={quote(there)}", "platform=linux/amd64", "platform=%7B%7D", "platform=",
                  "manifests=1", f"manifests=1&platform={quote(here)}", "manifests=0", "size=1",
                  f"platform={quote(here)}&platform={quote(there)}"):  # fmt: skip
        w.call("GET", f"{v}/images/wireimg/child:1/json?{query}")
        w.call("GET", f"{v}/images/wireimg/child:1/history?{query}")
    _usage(w, v)
    clear(w)


def _usage(w: Wire, v: str) -> None:
    for query in ("", "?type=image", "?type=image&type=container", "?type=volume", "?type=x", "?verbose=1&type=image"):
        reply = w.quietly("GET", f"{v}/system/df{query}")
        if reply.status == 200:
            usage = reply.json()
            ours = [image for image in usage.get("Images") or [] if (image["Labels"] or {}).get(LABEL)]
            for image in ours:
                image["bytes"] = [image["Size"], image["SharedSize"], image["Containers"]]
            shown = {
                key: value if key == "Images" and value is None else type(value).__name__
                for key, value in usage.items()
            }
            reply = reply._replace(body=json.dumps(shown | {"ours": ours}).encode())
        w.note(f"GET {v}/system/df{query}", reply)


def image_archives(w: Wire) -> None:
    """Save, load and import."""
    clear(w)
    _load(w, *IMAGES)
    child, bare = _id("child"), _id("bare")
    here = quote('{"os":"linux","architecture":"amd64"}')
    there = quote('{"os":"linux","architecture":"arm64"}')
    for path in ("/images/wireimg/base:1/get", "/images/wireimg/base/get", f"/images/{child}/get", f"/images/{bare[7:19]}/get",
                 "/images/nosuch/get", "/images/UPPER/get", "/images/wireimg/base:9/get", f"/images/wireimg/base@{bare}/get",
                 "/images/get", "/images/get?names=", "/images/get?names=wireimg/base&names=wireimg/child:1",
                 f"/images/get?names={child}&names=wireimg/child:1", "/images/get?names=wireimg/base:1&names=nosuch",
                 f"/images/get?names=wireimg/base&names={bare}", "/images/get?names=wireimg/side&names=wireimg/side",
                 f"/images/wireimg/side/get?platform={here}", f"/images/wireimg/side/get?platform={there}",
                 f"/v1.47/images/wireimg/side/get?platform={there}", "/images/wireimg/side/get?platform=linux/amd64",
                 f"/images/wireimg/side/get?platform={here}&platform={there}"):  # fmt: skip
        _note_archive(w, f"GET {path}", w.quietly("GET", path))
    _loads(w, here, there)
    _imports(w)
    clear(w)


def _note_archive(w: Wire, said: str, reply: Reply) -> None:
    if reply.status == 200:
        reply = reply._replace(body=json.dumps(_members(reply.body)).encode())
    w.note(said, reply)


def _members(data: bytes) -> dict:
    """An archive by its names; documents as they are, layers by their length; without Docker's old documents, which no
    manifest lists."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            content = tar.extractfile(member).read() if member.isfile() else b""
            if content.startswith(b'{"id":'):
                continue
            shown = json.loads(content) if content[:1] in (b"{", b"[", b"n") else len(content)
            found[member.name] = [member.type.decode(), oct(member.mode), member.uid, member.gid, shown]
    return found


def _loads(w: Wire, here: str, there: str) -> None:
    layers, config, tags = IMAGES["base"]
    whole = docker_archive(layers, tags, config_data=config)
    for query in ("", "?quiet=1", "?quiet=0", f"?platform={here}", f"?platform={there}", "?platform=linux/amd64",
                  f"?platform={here}&platform={there}", "?platform="):  # fmt: skip
        w.note(f"POST /images/load{query}", w.quietly("POST", f"/images/load{query}", whole, TAR))
    moved = docker_archive(*IMAGES["child"][:1], ["wireimg/base:1"], config_data=IMAGES["child"][1])
    w.note("load that takes a name away", w.quietly("POST", "/images/load?quiet=1", moved, TAR))
    _list(w, "all=1")
    for what, data in (
        ("none", b""), ("junk", b"junk" * 1000), ("empty", archive()), ("short", whole[:600]),
        ("no manifest", archive(file(b"x", b"y"))), ("null", archive(file(b"manifest.json", b"null"))),
        ("no config", docker_archive(layers, manifest=[{"Config": "none", "RepoTags": [], "Layers": []}])),
        ("missing layer", docker_archive(layers, manifest=[{"Config": "c.json", "RepoTags": [], "Layers": ["none"]}],
                                         config_data=_config([_TOP], 2018))),
        ("layers differ in number", docker_archive(layers, manifest=[{"Config": "c.json", "Layers": []}])),
        ("another layer", docker_archive([_TOP], ["wireimg/wrong:1"], blobs=[_BASE], config_data=_config([_TOP], 2019))),
        ("bad tag", docker_archive(layers, ["UPPER:x"], config_data=config)),
        ("no tag", docker_archive(layers, ["wireimg/base"], config_data=config)),
        ("for windows", docker_archive(layers, [], config_data=json.dumps(json.loads(config) | {"os": "windows"}).encode())),
        ("for arm64", docker_archive(layers, ["wireimg/arm:1"],
                                     config_data=json.dumps(json.loads(config) | {"architecture": "arm64"}).encode())),
    ):  # fmt: skip
        w.note(f"load: {what}", w.quietly("POST", "/images/load", data, TAR))


def _imports(w: Wire) -> None:
    changes = ["CMD [\"/x\", \"y\"]", "ENTRYPOINT /e", "ENV A=1 B=\"two words\"", f"LABEL {LABEL}=1 l=m", "EXPOSE 80 81/udp",
               "USER me:us", "WORKDIR /w", "VOLUME /v1 /v2", "STOPSIGNAL SIGINT",
               "HEALTHCHECK --interval=5s CMD true", "ONBUILD RUN x"]  # fmt: skip
    label = f"changes={quote(f'LABEL {LABEL}=1')}"
    many = "&".join(f"changes={quote(change)}" for change in changes)
    for n, query in enumerate((
        f"{label}", f"repo=wireimg/imp&{label}", f"repo=wireimg/imp&tag=t&message=hello&{label}", many,
        f"repo=wireimg/imp&tag=arm&platform=linux/arm64&{label}", f"repo=wireimg/imp:x&{label}", f"platform=linux/arm/v7&{label}",
        f"repo=UPPER&{label}", f"tag=t&{label}", f"repo=wireimg/imp&tag=b@d&{label}", f"platform=nope/nope/nope/nope&{label}",
        f"{label}&changes=RUN%20x", f"{label}&changes=SHELL%20%5B%22x%22%5D", f"{label}&changes=FROM%20x", f"{label}&changes=NOSUCH%20x", f"{label}&changes=",
        f"{label}&changes=CMD", f"{label}&changes=EXPOSE%20x", f"{label}&changes=ENV%20x", f"{label}&changes=COPY%20a%20b",
        f"{label}&changes=MAINTAINER%20me", f"{label}&changes=ARG%20x", f"{label}&changes=ADD%20a%20b",
        f"platform=windows/amd64&{label}",
    )):  # fmt: skip
        reply = w.quietly("POST", f"/images/create?fromSrc=-&{query}", archive(file(b"etc/n", b"%d" % n)), TAR)
        w.note(f"import {query}", reply)
        if reply.status == 200 and b'"status":"sha256:' in reply.body:
            made = json.loads(reply.body.splitlines()[-1])["status"]
            w.call("GET", f"/images/{made}/json")
            w.call("GET", f"/images/{made}/history")
    for what, data in (("none", b""), ("junk", b"junk" * 1000), ("short", _BASE[:700]), ("empty", archive())):
        w.note(f"import: {what}", w.quietly("POST", f"/images/create?fromSrc=-&{label}", data, TAR))
    w.call("POST", f"/images/create?{label}")
    w.call("POST", f"/images/create?fromSrc=&fromImage=&{label}")


def image_removals(w: Wire) -> None:
    """Untagging, deleting, what stands in the way, and prune."""
    clear(w)
    _load(w, *IMAGES)
    base, child, side, bare = map(_id, IMAGES)

    def rm(name: str, query: str = "") -> None:
        w.call("DELETE", f"/images/{name}{query}")

    for name in ("nosuch", "UPPER", "a" * 12, "a" * 64, "wireimg/base:9", f"wireimg/base@{base}", "wireimg/base"):
        rm(name)
    for call in (("wireimg/base:1", "repo=wireimg/base&tag=3"), (base, "repo=wireimg/new"), ("nosuch", "repo=x"),
                 ("wireimg/base:1", "repo=UPPER"), ("wireimg/base:1", "repo=sha256&tag=x"), ("wireimg/base:1", ""),
                 ("wireimg/base:1", f"repo=wireimg/x@{base}"), ("wireimg/base:1", "repo=wireimg/x&tag=b!d"),
                 ("wireimg/side", "repo=wireimg/base&tag=3"), (base[7:19], "repo=wireimg/base:4&tag=5")):  # fmt: skip
        w.call("POST", f"/images/{call[0]}/tag?{call[1]}")
    _list(w, "all=1")
    rm(base)
    rm(base[7:19])
    rm("wireimg/base:1")
    rm("wireimg/base:1")
    rm(side[7:19])
    rm(side, "?force=1")
    rm(base, "?force=1&noprune=1")
    rm(child)
    rm(bare[7:19])
    _load(w, *IMAGES)
    _in_use(w, rm)
    _chains(w, rm)
    clear(w)
    _load(w, *IMAGES)
    here = quote('{"os":"linux","architecture":"amd64"}')
    rm("wireimg/side", f"?platforms={here}")
    there = quote('{"os":"linux","architecture":"arm64"}')
    for name in ("wireimg/side", "wireother/side:x", side, side[7:19], "nosuch"):
        rm(name, f"?platforms={there}")
    w.call("DELETE", f"/v1.49/images/nosuch?platforms={there}")
    rm("wireimg/side", "?platforms=%7B%7D")
    rm("wireimg/side", "?platforms=linux/amd64")
    rm("wireimg/side", f"?platforms={here}&platforms={here}")
    _prunes(w)
    clear(w)


def _in_use(w: Wire, rm) -> None:
    def create(name: str, image: str) -> None:
        reply = w.quietly("POST", f"/containers/create?name={name}", {"Image": image, "Cmd": ["/bin/x"]})
        assert reply.status == 201, reply
        made = reply.json()["Id"]
        w.remember(made, f"<{name}>")
        w.remember(made[:12], f"<{name} short>")

    base, child, side, bare = map(_id, IMAGES)
    create("wirestopped", "wireimg/child:1")
    rm("wireimg/child:1")
    rm(child)
    rm(child, "?force=1")
    _load(w, "child")
    rm("wireimg/child:1", "?force=1")
    w.call("GET", f"/images/{child}/json")
    create("wiretwo", "wireimg/base:1")
    rm("wireimg/base:1")
    rm("wireimg/base:2")
    rm("wireimg/base:2", "?force=1")
    rm(base, "?force=1")
    create("wireside", "wireimg/side")
    rm("wireother/side:x")
    rm("wireimg/side:latest")
    rm(side)
    create("wirebare", bare)
    rm(bare)
    rm(bare[7:19], "?force=1")
    _list(w, "all=1")
    w.clean_up()
    _list(w, "all=1")


def _chains(w: Wire, rm) -> None:
    """Images made of one another, by commit."""
    clear(w)
    _load(w, "base")
    made = [_id("base")]
    for n in range(3):
        reply = w.quietly("POST", f"/containers/create?name=wirechain{n}", {"Image": made[-1], "Cmd": [f"/{n}"]})
        container = reply.json()["Id"]
        body = archive(file(b"new%d" % n, b"new"))
        assert w.quietly("PUT", f"/containers/{container}/archive?path=/", body, TAR).status == 200
        name = f"&repo=wireimg/chain&tag={n}" if n != 1 else ""
        reply = w.quietly("POST", f"/commit?container={container}&changes={quote(f'LABEL {LABEL}=1')}{name}")
        made.append(reply.json()["Id"])
        w.remember(made[-1][7:], f"<chain {n}>")
        w.remember(made[-1][7:19], f"<chain {n} short>")
        w.quietly("DELETE", f"/containers/{container}?force=1")
    w.call("GET", "/images/wireimg/chain:2/history")
    _list(w)
    _list(w, "all=1")
    _list(w, "", dangling="true")
    rm(made[1])
    rm("wireimg/chain:0")
    rm(made[2])
    rm(made[2], "?force=1")
    _list(w, "all=1")
    w.note("prune", _prune(w, dangling="true"))
    rm("wireimg/chain:2", "?noprune=1")
    _list(w, "all=1")
    rm(made[2])
    _list(w, "all=1")


def _prune(w: Wire, **wanted) -> Reply:
    wanted["label"] = [LABEL, *wanted.pop("also", [])]
    reply = w.quietly("POST", f"/images/prune?filters={filters(**wanted)}")
    if reply.status != 200:
        return reply
    answer = reply.json()
    answer["bytes"] = answer.pop("SpaceReclaimed")
    answer["ImagesDeleted"] = _by_image(answer["ImagesDeleted"])
    return reply._replace(body=json.dumps(answer).encode())


def _by_image(deleted: list | None) -> list | None:
    """Which image goes first is nobody's business: what belongs together, sorted."""
    return None if deleted is None else sorted(deleted, key=str)


def _prunes(w: Wire) -> None:
    for wanted in ({"dangling": "x"}, {"until": "x"}, {"until": ["1h", "2h"]}, {"nosuch": "x"}, {"reference": "x"}):  # fmt: skip
        w.call("POST", f"/images/prune?filters={filters(**wanted)}")
    _load(w, *IMAGES)
    for wanted in ({"until": "2019-01-01"}, {"also": ["kind"]}, {"dangling": "true"}, {}, {"dangling": "false", "also": ["kind"]},
                   {"dangling": "false", "label!": "kind", "until": "2020-12-01"}, {"dangling": "0"}):  # fmt: skip
        w.note(f"prune {wanted}", _prune(w, **wanted))
        _list(w, "all=1")


def image_events(w: Wire) -> None:
    """What images tell of themselves."""
    clear(w)
    since = f"{time.time():.9f}"
    _load(w, "base", "bare")
    w.quietly("POST", "/images/wireimg/base:1/tag?repo=wireimg/base&tag=3")
    w.quietly("POST", "/images/nosuch/tag?repo=wireimg/base&tag=3")
    w.quietly("GET", "/images/wireimg/base:1/get")
    w.quietly("GET", f"/images/get?names=wireimg/base:2&names={_id('bare')}")
    w.quietly("GET", "/images/nosuch/get")
    label = f"changes={quote(f'LABEL {LABEL}=1')}"
    reply = w.quietly("POST", f"/images/create?fromSrc=-&repo=wireimg/imp&{label}", _SIDE, TAR)
    made = json.loads(reply.body.splitlines()[-1])["status"]
    w.remember(made[7:], "<imported>")
    w.quietly("DELETE", "/images/wireimg/base:3")
    w.quietly("DELETE", f"/images/{_id('base')}?force=1")
    w.quietly("DELETE", f"/images/{_id('bare')[7:19]}")
    w.quietly("DELETE", "/images/wireimg/imp")
    _load(w, "side")
    _prune(w, dangling="false")
    events = w.quietly("GET", f"/events?since={since}&until={time.time():.9f}&filters={filters(type='image')}").body
    for line in events.splitlines():
        event = json.loads(line)
        ours = [made, *map(_id, IMAGES)]
        if event["Actor"]["ID"] in ours or event["Action"] == "prune":
            w.log.append(["event", 200, {}, w.normal(event)])
    clear(w)


SINGLE = (image_archives, image_removals, image_events)
BY_VERSION = (image_lists,)
VERSIONS = ("1.40", "1.43", "1.47", "1.48", "1.51")
