"""Sequences of `manifest` and `buildx imagetools` commands on one configuration and one registry, which has images."""

import io
import json
import shlex
from pathlib import Path

from tests.registry.servers import INDEX, OCI_MANIFEST, Image, digest_of, make_image, make_layer
from wherry.registry.client import Registry
from wherry.registry.config import RegistryConfig

HERE = Path(__file__).parent
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


def cases():
    """Each a list of commands; @R@ stands for the registry."""
    lines = (HERE / "data" / "manifest_cases.txt").read_text().splitlines()
    return [[shlex.split(command) for command in line.split(" ;; ")] for line in lines]


def _with_config(image, **more):
    config = json.dumps({**json.loads(image.config), **more}).encode()
    manifest = json.loads(image.manifest)
    manifest["config"].update(digest=digest_of(config), size=len(config))
    return Image(json.dumps(manifest).encode(), config, image.layers, image.media_type)


def _as_oci(image):
    manifest = json.loads(image.manifest)
    manifest["mediaType"] = OCI_MANIFEST
    manifest["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json"
    for layer in manifest["layers"]:
        layer["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip"
    return Image(json.dumps(manifest).encode(), image.config, image.layers, OCI_MANIFEST)


def _index(media_type, members, **more):
    listed = [
        {
            "mediaType": image.media_type,
            "size": len(image.manifest),
            "digest": image.digest,
            "platform": platform,
            **rest,
        }
        for image, platform, rest in members
    ]
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": listed, **more}
    return Image(json.dumps(document, indent=3).encode(), b"{}", [], media_type)


def fill(address):
    """Put images of both kinds, and lists of them, on a registry."""
    layer = make_layer({"a": b"hello"})
    amd = make_image([layer])
    arm = make_image([layer, make_layer({"b": b"x"})], architecture="arm64")
    arm = _with_config(arm, variant="v8", **{"os.version": "1.2", "os.features": ["f"]})
    oci_amd, oci_arm = _as_oci(amd), _as_oci(arm)
    platforms = (
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux", "variant": "v8", "os.version": "1", "os.features": ["q"]},
        {"architecture": "unknown", "os": "unknown"},
    )
    artifact = json.loads(oci_amd.manifest) | {"artifactType": "application/x.y", "annotations": {"a": "b"}}
    oci_pair = [(oci_amd, platforms[0], {"annotations": {"k": "v\x1b[31m"}}), (oci_arm, platforms[1], {})]
    attests = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": oci_amd.digest}
    with_attestation = [(oci_amd, platforms[0], {}), (oci_arm, platforms[2], {"annotations": attests})]
    push = _Pusher(address)
    for name, tag, image in (
        ("one", "1", amd), ("one", "arm", arm), ("two", "arm", arm), ("oci", "1", oci_amd), ("oci", "arm", oci_arm),
        ("one", "list", _index(INDEX, [(amd, platforms[0], {}), (arm, platforms[1], {})])),
        ("oci", "index", _index(OCI_INDEX, oci_pair, annotations={"top": "x"})),
        ("oci", "attested", _index(OCI_INDEX, with_attestation)),
        ("oci", "artifact", Image(json.dumps(artifact).encode(), oci_amd.config, oci_amd.layers, OCI_MANIFEST)),
    ):  # fmt: skip
        push(name, tag, image)


class _Pusher:
    def __init__(self, address):
        self._registry, self._address = Registry(RegistryConfig()), address

    def __call__(self, name, tag, image):
        with self._registry.repository(self._address, name) as repository:
            for digest, data in image.blobs.items():
                repository.upload_blob(digest, len(data), lambda data=data: io.BytesIO(data), lambda _: None)
            repository.put_manifest(tag, image.manifest, image.media_type)


def manifests(address):
    """What the commands pushed: {name:tag: its bytes}."""
    registry, found = Registry(RegistryConfig()), {}
    for name in ("new", "mixed", "annotated"):
        with registry.repository(address, name) as repository:
            try:
                tags = repository.tags()
            except Exception:  # there is no such repository
                continue
            for tag in tags:
                found[f"{name}:{tag}"] = repository.manifest(tag).data.decode()
    return found


def tree(directory):
    """The files of the configuration."""
    paths = [path for path in Path(directory).rglob("*") if path.is_file()]
    return {str(p.relative_to(directory)): f"{p.stat().st_mode & 0o777:o} {p.read_text()}" for p in sorted(paths)}


def masked(value, address):
    """Without the registry's address, as part of names of files too."""
    text = json.dumps(value).replace(address, "@R@").replace(address.replace(":", "-"), "@F@")
    return json.loads(text)
