"""Pushing out of a store, to Debian's registry."""

import gzip
import json
import os
import urllib.request

import pytest

from tests.images import shop
from tests.images.mkimg import archive, blob, digest, docker_archive, file, oci_layout, oci_manifest
from tests.images.puller import big, pull, push, push_of, small
from tests.images.shop import BASE, TOP, contents, load, nobody
from tests.registry.servers import MANIFEST, OCI_MANIFEST, DockerRegistry, PythonRegistry, make_image
from wherry.errors import WherryError
from wherry.images.archive.compression import zstd
from wherry.images.progress import short
from wherry.registry.cancel import Cancelled


@pytest.fixture
def form(monkeypatch):
    """One form of layers is enough here: what arrives is unpacked by the code that loads archives, too."""
    monkeypatch.setattr(shop, "form", "erofs")


@pytest.fixture(scope="module")
def registry():
    with DockerRegistry() as registry:
        yield registry


def manifest_of(registry, name, tag):
    request = urllib.request.Request(f"http://{registry.address}/v2/{name}/manifests/{tag}")
    request.add_header("Accept", f"{MANIFEST}, {OCI_MANIFEST}")
    with urllib.request.urlopen(request) as response:
        return response.read()


def statuses(lines):
    return [(line["status"], line.get("id", "")) for line in lines if "status" in line and line["status"] != "Pushing"]


def test_what_was_pulled_is_pushed_byte_for_byte(store, registry):
    layers = [small("one"), small("two")]
    with PythonRegistry() as source:
        image = source.store.put("app", "1", make_image(layers))
        pull(store, source.address)
        store.tag(f"{source.address}/app:1", f"{registry.address}/round/trip:1")
    lines = push(store, registry.address, "round/trip:1")
    first, second = (short(digest(gzip.decompress(layer))) for layer in layers)
    assert statuses(lines)[:3] == [
        (f"The push refers to repository [{registry.address}/round/trip]", ""),
        ("Preparing", second),
        ("Preparing", first),
    ]
    assert set(statuses(lines)[3:5]) == {("Pushed", first), ("Pushed", second)}
    assert statuses(lines)[5:] == [(f"1: digest: {image.digest} size: {len(image.manifest)}", "")]
    assert lines[-1] == {
        "progressDetail": {},
        "aux": {"Tag": "1", "Digest": image.digest, "Size": len(image.manifest)},
    }
    assert manifest_of(registry, "round/trip", "1") == image.manifest
    assert f"{registry.address}/round/trip@{image.digest}" in store.resolve(digest(image.config)).repo_digests
    assert {status for status, _ in statuses(push(store, registry.address, "round/trip:1"))[3:5]} == {
        "Layer already exists"
    }


def test_layers_are_mounted_from_where_they_were_seen(store, registry):
    load(store, docker_archive([BASE], [f"{registry.address}/mount/a:1", f"{registry.address}/mount/b:1"]))
    push(store, registry.address, "mount/a:1")
    lines = push(store, registry.address, "mount/b:1")
    assert ("Mounted from mount/a", short(digest(BASE))) in statuses(lines)


def test_uncompressed_layers_are_compressed_once(store, paths, registry):
    layers = [BASE, TOP, archive(file(b"big", os.urandom(3 << 20)))]
    (image,), _ = load(
        store, docker_archive(layers, [f"{registry.address}/made/one:1", f"{registry.address}/made/two:1"])
    )
    push(store, registry.address, "made/one:1")
    document = manifest_of(registry, "made/one", "1")
    forms = json.loads(document)["layers"]
    assert {form["mediaType"] for form in forms} == {"application/vnd.oci.image.layer.v1.tar+gzip"}
    assert [digest(gzip.decompress(store.content.read(form["digest"], 1 << 24))) for form in forms] == image.diff_ids
    push(store, registry.address, "made/two:1")
    assert manifest_of(registry, "made/two", "1") == document
    assert store.collect_garbage() == []
    store.remove(image.id, force=True, users=nobody)
    assert contents(paths) == ([], [])
    pull(store, registry.address, "made/one:1")
    assert store.resolve(f"{registry.address}/made/one:1").id == image.id


def test_uncompressed_layers_of_a_registry_stay_as_they_are(store, registry):
    document, members = oci_manifest([BASE])
    image = make_image([small("x")])
    with PythonRegistry() as source:
        for member in (BASE, *_blobs(members)):
            source.store.blobs[digest(member)] = member
        source.store.put_manifest("app", "1", document, OCI_MANIFEST)
        pull(store, source.address)
        store.tag(f"{source.address}/app:1", f"{registry.address}/plain:1")
    push(store, registry.address, "plain:1")
    assert manifest_of(registry, "plain", "1") == document
    assert image.digest != digest(document)


def _blobs(members):
    for member in members:
        size = int(member[124:135], 8)
        yield member[512 : 512 + size]


def test_one_layer_in_two_forms_keeps_both(store, registry):
    name = f"{registry.address}/forms:1"
    document, members = oci_manifest([BASE, BASE], blobs=[gzip.compress(BASE), zstd.compress(BASE)], suffix="+gzip")
    manifest = json.loads(document)
    manifest["layers"][1]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+zstd"
    document = json.dumps(manifest).encode()
    descriptor = _descriptor(document) | {"annotations": {"io.containerd.image.name": name}}
    load(store, oci_layout([descriptor], [*members, blob(document)]))
    push(store, registry.address, "forms:1")
    assert manifest_of(registry, "forms", "1") == document


def test_an_image_in_a_strange_compression_is_pushed_as_gzip(store, registry):
    import bz2

    document, members = oci_manifest([BASE], blobs=[bz2.compress(BASE)], suffix="+bzip2")
    (image,), _ = load(store, oci_layout([_descriptor(document)], [*members, blob(document)]))
    store.tag(image.id, f"{registry.address}/bz:1")
    push(store, registry.address, "bz:1")
    (layer,) = json.loads(manifest_of(registry, "bz", "1"))["layers"]
    assert gzip.decompress(store.content.read(layer["digest"], 1 << 20)) == BASE


def _descriptor(document):
    return {"mediaType": OCI_MANIFEST, "digest": digest(document), "size": len(document)}


def test_all_tags(store, registry):
    names = [f"{registry.address}/tags:{tag}" for tag in ("a", "b")]
    load(store, docker_archive([BASE], names))
    lines = push(store, registry.address, "tags")
    assert [line["aux"]["Tag"] for line in lines if "aux" in line] == ["a", "b"]
    assert manifest_of(registry, "tags", "a") == manifest_of(registry, "tags", "b")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("absent:1", "An image does not exist locally with the tag: {}/absent"),
        ("here:2", "tag does not exist: {}/here:2"),
        ("here@sha256:" + "0" * 64, "cannot push a digest reference"),
    ],
)
def test_what_cannot_be_pushed(store, registry, name, text):
    load(store, docker_archive([BASE], [f"{registry.address}/here:1"]))
    with pytest.raises(WherryError) as error:
        push(store, registry.address, name)
    assert str(error.value) == text.format(registry.address)


def test_a_cancelled_push_ends(store):
    with PythonRegistry() as registry:
        pull_from = make_image([big()])
        registry.store.put("app", "1", pull_from)
        pull(store, registry.address)
        pushing = push_of(store, registry.address)

        @registry.rule(r"HEAD /v2/app/blobs/.*")
        def stall(exchange):
            pushing.cancel()
            exchange.wait_for_hang_up()

        with pytest.raises(Cancelled):
            pushing.run()


def test_one_layer_that_fails_fails_the_push(store):
    layers = [small("a"), small("b"), big()]
    with PythonRegistry() as registry:
        registry.store.put("app", "1", make_image(layers))
        pull(store, registry.address)
        registry.store.blobs.clear()

        @registry.rule(r"POST /v2/app/blobs/uploads/")
        def refuse(exchange):
            exchange.error(403, "DENIED", "requested access to the resource is denied")

        with pytest.raises(WherryError, match="denied: requested access to the resource is denied"):
            push(store, registry.address)


def test_saved_and_pushed_alike(store, registry):
    """A push changes nothing in what is saved."""
    load(store, docker_archive([BASE], [f"{registry.address}/saved:1"]))
    before = shop.save(store, f"{registry.address}/saved:1")
    push(store, registry.address, "saved:1")
    assert shop.save(store, f"{registry.address}/saved:1") == before
