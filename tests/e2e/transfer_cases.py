"""Pulls and pushes that a real Docker was asked for, too, and how their answers are compared.

The images are always the same; of the lines those are left out that depend on how fast everything goes.
"""

import json
from urllib.parse import quote

from tests.images.puller import changed, config_type, index_of, small
from tests.registry.servers import INDEX, OCI_MANIFEST, PythonRegistry, digest_of, make_image

PASSING = ("Downloading", "Extracting", "Verifying Checksum", "Download complete", "Waiting", "Pushing", "Preparing")
_AMD, _ARM = {"os": "linux", "architecture": "amd64"}, {"os": "linux", "architecture": "arm64", "variant": "v8"}
_ABSENT = "sha256:" + "0" * 64


def stock(registry: PythonRegistry) -> None:
    """Put everything into the registry that the cases ask for."""
    layers = [small(f"file{n}", b"words %d" % n * 100) for n in range(5)]
    put = registry.store.put
    one = put("one", "1", make_image(layers[:3]))
    put("one", "2", make_image([*layers[:3], layers[3]]))
    arm = put("multi", "arm", make_image([layers[4]], architecture="arm64"))
    amd = put("multi", "amd", make_image(layers[:2]))
    unknown = {"os": "unknown", "architecture": "unknown"}
    registry.store.put_manifest("multi", "1", index_of((arm, _ARM), (amd, unknown), (amd, _AMD)), INDEX)
    registry.store.put_manifest("foreign", "1", index_of((arm, _ARM)), INDEX)
    put("foreign", "arm", arm)
    put("arm", "1", arm)
    put("chart", "1", config_type("application/vnd.cncf.helm.config.v1+json")(one))
    other = make_image([layers[4], layers[0]])
    chart = changed(config_type("application/vnd.cncf.helm.config.v1+json")(other), mediaType=OCI_MANIFEST)
    put("oci-chart", "1", type(chart)(chart.manifest, chart.config, chart.layers, OCI_MANIFEST))
    put("plugin", "1", config_type("application/vnd.docker.plugin.v1+json")(one))
    put("octets", "1", config_type("application/octet-stream")(one))
    put("few", "1", changed(one, layers=json.loads(one.manifest)["layers"][:2]))
    put("swapped", "1", changed(one, layers=json.loads(make_image(layers[1:4]).manifest)["layers"]))
    put("empty", "1", make_image([]))

    @registry.rule(r"GET /v2/one/tags/list")
    def tags(exchange):
        exchange.json(200, {"name": "one", "tags": ["1", "2"]})


def pulls(one: str) -> list[str]:
    """The queries of POST /images/create, `{}` being the registry; `one` is the digest of one:1."""
    return [
        "fromImage={}/one&tag=1",
        "fromImage={}/one&tag=1",
        "fromImage={}/one:5&tag=2",
        "fromImage={}/one",
        f"fromImage={{}}/one&tag={one}",
        f"fromImage={{}}/one:1@{one}",
        "fromImage={}/one&tag=1&platform=linux/arm64",
        "fromImage={}/multi&tag=1",
        "fromImage={}/multi&tag=1&platform=linux/arm64",
        "fromImage={}/multi&tag=1&platform=linux/s390x",
        "fromImage={}/multi&tag=1&platform=a/b/c/d",
        "fromImage={}/foreign&tag=1",
        "fromImage={}/arm&tag=1",
        "fromImage={}/chart&tag=1",
        "fromImage={}/oci-chart&tag=1",
        "fromImage={}/plugin&tag=1",
        "fromImage={}/octets&tag=1",
        "fromImage={}/few&tag=1",
        "fromImage={}/swapped&tag=1",
        "fromImage={}/empty&tag=1",
        "fromImage={}/absent&tag=1",
        f"fromImage={{}}/one&tag={_ABSENT}",
        f"fromImage={{}}/one:1@{_ABSENT}",
        "fromImage={}/UPPER&tag=1",
        "fromImage={}/one&tag=a/b",
        f"fromImage={{}}/one&tag=1@{one}",
    ]


def answers(call, registry: PythonRegistry) -> list[object]:
    """What an engine answers, `call(method, path)` giving the status and the body as text."""
    stock(registry)
    one = digest_of(registry.store.manifests["one:1"][1])
    found: list[object] = []
    for query in pulls(one):
        asked = query.format(registry.address)
        status, body = call("POST", f"/v1.51/images/create?{quote(asked, safe='=&:/')}")
        found.append([query, status, _settled(body.replace(registry.address, "REGISTRY"))])
    for name in ("one:1", "one:2", "multi:1", "arm:1", "octets:1", "empty:1"):
        status, body = call("GET", f"/v1.51/images/{registry.address}/{name}/json")
        image = json.loads(body.replace(registry.address, "REGISTRY"))
        found.append([name, status, *(image[key] for key in ("Id", "RepoTags", "RepoDigests", "Architecture", "Os"))])
    return found


def _settled(body: str) -> list[object]:
    """The lines that are always the same; what is complete sorted, where the first of it was."""
    lines = [json.loads(line) for line in body.splitlines() if line]
    kept = [line for line in lines if line.get("status") not in PASSING]
    done = [line for line in kept if line.get("status") == "Pull complete"]
    if not done:
        return kept
    at = kept.index(done[0])
    rest = [line for line in kept if line not in done]
    return [*rest[:at], *sorted(done, key=lambda line: line["id"]), *rest[at:]]


def clean_up(call, registry: PythonRegistry) -> None:
    """Remove what the cases left."""
    for image in json.loads(call("GET", "/v1.51/images/json?all=1")[1]):
        for name in [*(image["RepoTags"] or []), *(image["RepoDigests"] or [])]:
            if name.startswith(registry.address):
                call("DELETE", f"/v1.51/images/{name}?force=1")
