"""Loading archives: good ones of every kind, and what is wrong with the others."""

import gzip
import io
import json
import os
import stat
import threading

import pytest

from tests.images import mkimg, shop
from tests.images.mkimg import archive, digest, directory, docker_archive, file, symlink
from tests.images.shop import BASE, TOP, contents, leftovers, load, nobody, save
from wherry.errors import Internal, InvalidArgument, NotFound
from wherry.images import oci
from wherry.images.archive import sources
from wherry.images.archive.compression import zstd

# loading


@pytest.mark.parametrize("compress", [None, gzip.compress, zstd.compress], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("outer", [bytes, gzip.compress], ids=["", "all.gz"])
def test_docker_archives_of_any_compression(store, paths, compress, outer):
    blobs = [compress(layer) if compress else layer for layer in (BASE, TOP)]
    data = docker_archive([BASE, TOP], ["me/x:1", "localhost:5000/y:2"], blobs=blobs)
    (image,), said = load(store, outer(data))
    assert said == "Loaded image: me/x:1\nLoaded image: localhost:5000/y:2\n"
    assert image.id == digest(mkimg.config([BASE, TOP]))
    assert sorted(image.repo_tags) == ["localhost:5000/y:2", "me/x:1"]
    assert image.size == len("base") + len("top!!")
    top, bottom = store.lower_dirs(image)
    assert stat.S_ISCHR(os.lstat(f"{top}/etc/a").st_mode)
    with open(f"{bottom}/etc/a") as opened:
        assert opened.read() == "base"
    # kept as they came
    assert {digest(blob)[7:] for blob in blobs} <= set(os.listdir(paths.blobs))
    assert leftovers(paths) == []


def test_the_order_of_members_does_not_matter(store):
    first = json.dumps([{"Config": "c", "RepoTags": None, "Layers": ["l"]}]).encode()
    data = archive(file(b"manifest.json", first), file(b"c", mkimg.config([BASE])), file(b"l", BASE))
    (image,), said = load(store, data)
    assert said == f"Loaded image ID: {image.id}\n"
    assert image.repo_tags == []


@pytest.mark.parametrize("form_of_archive", ["docker", "oci"])
def test_more_layers_than_can_be_mounted(store, paths, form_of_archive):
    layers = [archive()] * 501
    if form_of_archive == "docker":
        items = [{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["l0/layer.tar"] * 501}]
        data = docker_archive(layers, blobs=layers[:1], manifest=items)
    else:
        manifest, members = mkimg.oci_manifest(layers)
        data = mkimg.oci_layout([mkimg.descriptor(manifest, mkimg.MANIFEST)], members[:3])
    with pytest.raises(InvalidArgument, match="the image has 501 layers: no more than 500 can be mounted"):
        load(store, data)
    assert contents(paths) == ([], [])


def test_links_between_members_are_names_not_paths(store, canary):
    evil = archive(symlink(b"l0/layer.tar", f"{canary}/file".encode()), file(b"c.json", mkimg.config([BASE])))
    manifest = json.dumps([{"Config": "c.json", "Layers": ["l0/layer.tar"]}]).encode()
    with pytest.raises(InvalidArgument, match="not found in the archive"):
        load(store, evil[:-1024] + archive(file(b"manifest.json", manifest)))
    good = archive(
        file(b"one/layer.tar", BASE),
        symlink(b"two/layer.tar", b"../one/layer.tar"),
        file(b"c.json", mkimg.config([BASE, BASE])),
        file(
            b"manifest.json", json.dumps([{"Config": "c.json", "Layers": ["one/layer.tar", "two/layer.tar"]}]).encode()
        ),
    )
    (image,), _ = load(store, good)
    assert len(store.lower_dirs(image)) == 1  # overlay refuses a directory twice


@pytest.mark.parametrize("name", ["../../canary/file", "/etc/passwd", "missing", "", "l0", "manifest.json/x"])
@pytest.mark.parametrize("field", ["Config", "Layers"])
def test_paths_in_a_manifest_are_members_or_nothing(store, paths, name, field):
    item = {"Config": "c.json", "RepoTags": [], "Layers": ["l0/layer.tar"]}
    item[field] = name if field == "Config" else [name]
    with pytest.raises(InvalidArgument):
        load(store, docker_archive([BASE], manifest=[item]))
    assert store.list(all=True) == []
    assert leftovers(paths) == []


def test_a_wrong_diff_id_is_refused_with_dockers_words(store, paths):
    data = docker_archive([BASE], blobs=[TOP])
    with pytest.raises(InvalidArgument) as caught:
        load(store, data)
    assert str(caught.value) == f'invalid diffID for layer 0: expected "{digest(BASE)}", got "{digest(TOP)}"'
    with pytest.raises(InvalidArgument, match="invalid manifest, layers length mismatch: expected 1, got 2"):
        load(store, docker_archive([BASE], config_data=mkimg.config([BASE, TOP])))
    assert contents(paths) == ([], [])


def mutations(document, path=()):
    """The document with one field at a time dropped, nulled, or of a wrong type."""
    if isinstance(document, dict):
        for key in document:
            rest = {k: v for k, v in document.items() if k != key}
            yield rest
            for wrong in (None, 7, -1, "x", "\ud7ff", [], {}, [None], {"a": None}, 1e308, True):
                yield {**rest, key: wrong}
            for inner in mutations(document[key], (*path, key)):
                yield {**rest, key: inner}
    elif isinstance(document, list):
        for position, item in enumerate(document):
            yield [*document[:position], *document[position + 1 :]]
            for inner in mutations(item, path):
                yield [*document[:position], inner, *document[position + 1 :]]


def test_every_field_wrong_in_every_way(store, paths):
    manifest = [{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["l0/layer.tar"], "Parent": digest(b"")}]
    config = json.loads(mkimg.config([BASE]))
    config["config"] = {"Labels": {"a": "b"}, "Env": ["A=1"], "ExposedPorts": {"80/tcp": {}}}
    cases = [docker_archive([BASE], manifest=mutant) for mutant in mutations(manifest)]
    cases += [docker_archive([BASE], config_data=json.dumps(mutant).encode()) for mutant in mutations(config)]
    assert len(cases) > 200
    for data in cases:
        try:
            images = store.load(io.BytesIO(data))
        except (InvalidArgument, NotFound):
            continue
        for image in images:
            store.lower_dirs(image)
            store.list(all=True, filters={"label": ["a"]}, shared_size=True)
            try:
                store.history(image.id)
            except Internal:  # more steps than layers, as Docker says
                assert len([step for step in image.history if not step.empty_layer]) > len(image.diff_ids)
            store.remove(image.id, force=True, users=nobody)
    assert leftovers(paths) == []
    assert contents(paths)[0] == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 10240,
        b"hello" * 1000,
        docker_archive([BASE])[:-2500],
        docker_archive([BASE])[:700],
        gzip.compress(docker_archive([BASE]))[:-20],
        zstd.compress(docker_archive([BASE]))[:-5],
        b"\x1f\x8b\x08" + b"x" * 1000,
        archive(file(b"manifest.json", b"[" * 100_000)),
        archive(file(b"manifest.json", b'[{"a":' * 50_000)),
        archive(file(b"manifest.json", b"null")),
        archive(file(b"manifest.json", b"{}")),
        archive(file(b"index.json", b"[]")),
        archive(file(b"repositories", b"[]")),
        archive(file(b"repositories", b'{"x":{"latest":"../../etc"}}')),
        archive(file(b"manifest.json", b"", raw_size=b"53687091200")),
    ],
    ids=range(16),
)
def test_archives_that_are_none(store, paths, data):
    with pytest.raises(InvalidArgument):
        load(store, data)
    assert contents(paths) == ([], [])
    assert leftovers(paths) == []


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress])
def test_truncated_and_damaged_layers(store, paths, compress):
    blob = compress(BASE + os.urandom(200_000))
    flipped = bytearray(blob)
    flipped[len(blob) // 2] ^= 0x55
    for damaged in (blob[:-9], blob[: len(blob) // 2], bytes(flipped), blob + b"garbage"):
        with pytest.raises(InvalidArgument):
            load(store, docker_archive([BASE], blobs=[damaged]))
    assert contents(paths) == ([], [])
    assert leftovers(paths) == []


def test_several_gzip_members_and_zstd_frames_are_one_layer(store):
    half = len(TOP) // 2
    for compress in (gzip.compress, zstd.compress):
        blob = compress(BASE[:512]) + compress(BASE[512:])
        (image,), _ = load(
            store, docker_archive([BASE, TOP], blobs=[blob, compress(TOP[:half]) + compress(TOP[half:])])
        )
        assert image.diff_ids == [digest(BASE), digest(TOP)]


def test_a_bomb_is_stopped(store, paths, monkeypatch):
    monkeypatch.setattr(sources, "RATIO_FREE", 1 << 26)

    class Bomb(io.RawIOBase):
        """10 GiB of zeros in 10 MiB, as a docker-archive's only layer, made on the fly."""

        def __init__(self):
            piece = gzip.compress(bytes(1 << 28), 9) * 4
            head = gzip.compress(mkimg.header(b"zeros", raw_size=b"%011o" % (7 << 30)))
            total = len(head) + 10 * len(piece)
            self.parts = [mkimg.header(b"l/layer.tar", size=total), head, *[piece] * 10, bytes(-total % 512 + 1024)]

        def readable(self):
            return True

        def read(self, size=-1):
            while self.parts and not self.parts[0]:
                self.parts.pop(0)
            if not self.parts:
                return b""
            data, self.parts[0] = self.parts[0][:size], self.parts[0][size:]
            return data

    manifest = json.dumps([{"Config": "c.json", "Layers": ["l/layer.tar"]}]).encode()
    bomb = Bomb()
    bomb.parts[-1] = bomb.parts[-1][:-1024] + archive(
        file(b"c.json", mkimg.config([b"x"])), file(b"manifest.json", manifest)
    )
    with pytest.raises(InvalidArgument, match="expands more than 200 times"):
        store.load(bomb)
    assert contents(paths) == ([], [])
    assert leftovers(paths) == []


def test_a_stream_that_breaks_leaves_nothing(store, paths):
    class Broken(io.RawIOBase):
        data = io.BytesIO(docker_archive([BASE + bytes(1 << 20)]))

        def readable(self):
            return True

        def read(self, size=-1):
            data = self.data.read(min(size, 65536))
            if self.data.tell() > 500_000:
                raise ConnectionResetError("the client is gone")
            return data

    before = threading.active_count()
    with pytest.raises(ConnectionResetError):
        store.load(Broken())
    assert threading.active_count() == before
    assert contents(paths) == ([], [])
    assert leftovers(paths) == []


def test_foreign_layers_of_no_image_are_thrown_away(store, paths):
    data = docker_archive([BASE], extra=[file(b"unused/layer.tar", TOP), file(b"blobs/sha256/" + b"0" * 64, TOP)])
    (image,), _ = load(store, data)
    assert contents(paths)[1] == [digest(BASE)[7:]]
    assert digest(TOP)[7:] not in os.listdir(paths.blobs)
    assert leftovers(paths) == []
    assert image.diff_ids == [digest(BASE)]


def test_layers_that_are_here_are_not_read_again(store, paths):
    document, members = mkimg.oci_manifest([BASE, TOP])
    data = mkimg.oci_layout([mkimg.descriptor(document, mkimg.MANIFEST)], members)
    load(store, data)
    inode = os.lstat(shop.layer(paths, digest(BASE))).st_ino
    # the same names with other bytes: what is here counts, and the bytes are never looked at
    rest = [
        member if member not in (mkimg.blob(BASE),) else member[:512] + bytes(len(member) - 512) for member in members
    ]
    (image,), _ = load(store, mkimg.oci_layout([mkimg.descriptor(document, mkimg.MANIFEST)], rest))
    assert image.diff_ids == [digest(BASE), digest(TOP)]
    assert os.lstat(shop.layer(paths, digest(BASE))).st_ino == inode


def test_a_lost_layer_is_repaired_by_loading_again(store, paths):
    data = docker_archive([BASE])
    (image,), _ = load(store, data)
    os.rename(shop.layer(paths, digest(BASE)), paths.tmp / "lost")
    with pytest.raises(Exception, match="missing on disk"):
        store.lower_dirs(image)
    load(store, data)
    assert len(store.lower_dirs(image)) == 1


# OCI layouts


def test_nested_indexes_by_platform(store):
    def image(architecture, layer, **extra):
        config = mkimg.config([layer], architecture=architecture)
        document, members = mkimg.oci_manifest([layer], config_data=config)
        platform = {"architecture": architecture, "os": "linux", **extra}
        return mkimg.descriptor(document, mkimg.MANIFEST, platform=platform), members

    amd, amd_members = image("amd64", BASE)
    arm, arm_members = image("arm64", TOP, variant="v8")
    attestation = {**mkimg.descriptor(b"{}", mkimg.MANIFEST), "platform": {"architecture": "unknown", "os": "unknown"}}
    inner = json.dumps({"schemaVersion": 2, "mediaType": mkimg.INDEX, "manifests": [attestation, arm, amd]}).encode()
    name = {"io.containerd.image.name": "docker.io/library/multi:1", "org.opencontainers.image.ref.name": "1"}
    top = mkimg.descriptor(inner, mkimg.INDEX, annotations=name)
    data = mkimg.oci_layout([top], [*amd_members, *arm_members, mkimg.blob(inner)])
    (image,), said = load(store, data, platform=oci.Platform("amd64", "linux"))
    assert (image.architecture, image.diff_ids, said) == ("amd64", [digest(BASE)], "Loaded image: multi:1\n")
    (image,), _ = load(store, data, platform=oci.Platform("arm64", "linux"))
    assert (image.architecture, image.diff_ids) == ("arm64", [digest(TOP)])
    with pytest.raises(NotFound, match="linux/s390x"):
        load(store, data, platform=oci.Platform("s390x", "linux"))


def test_the_manifest_keeps_its_digest(store):
    document, members = mkimg.oci_manifest([BASE])
    document = document[:-1] + b',"annotations":{"kept":"as is"}}'
    data = mkimg.oci_layout([mkimg.descriptor(document, mkimg.MANIFEST)], [*members, mkimg.blob(document)])
    (image,), _ = load(store, data)
    assert image.manifest.digest == digest(document)
    saved = save(store, image.id)
    store.remove(image.id, users=nobody)
    (again,), _ = load(store, saved)
    assert again.manifest.digest == digest(document)


def confused():
    document, members = mkimg.oci_manifest([BASE])
    manifest = json.loads(document)
    both = json.dumps({**manifest, "manifests": []}).encode()
    schema1 = json.dumps({**manifest, "fsLayers": []}).encode()
    wrong_size = {**mkimg.descriptor(document, mkimg.MANIFEST), "size": 1}
    wrong_digest = {**mkimg.descriptor(document, mkimg.MANIFEST), "digest": digest(b"x")}
    layer = {**manifest["layers"][0], "size": 1}
    short = json.dumps({**manifest, "layers": [layer]}).encode()
    other = json.dumps({**manifest, "config": {**manifest["config"], "mediaType": "application/x-helm"}}).encode()
    return [
        ("both", [mkimg.descriptor(both, mkimg.MANIFEST)], [*members, mkimg.blob(both)]),
        ("as index", [mkimg.descriptor(document, mkimg.INDEX)], members),
        ("schema1", [mkimg.descriptor(schema1, mkimg.MANIFEST)], [*members, mkimg.blob(schema1)]),
        ("size", [wrong_size], members),
        ("missing", [wrong_digest], members),
        ("swapped", [wrong_digest], [*members, file(b"blobs/sha256/" + digest(b"x")[7:].encode(), document)]),
        ("layer size", [mkimg.descriptor(short, mkimg.MANIFEST)], [*members, mkimg.blob(short)]),
        ("artifact", [mkimg.descriptor(other, mkimg.MANIFEST)], [*members, mkimg.blob(other)]),
        ("traversal", [{**wrong_digest, "digest": "sha256:../../../etc/passwd"}], members),
        ("md5", [{**wrong_digest, "digest": "md5:" + "a" * 32}], members),
    ]


@pytest.mark.parametrize(("index", "members"), [case[1:] for case in confused()], ids=[case[0] for case in confused()])
def test_confused_and_unverifiable_documents_are_refused(store, paths, index, members):
    with pytest.raises((InvalidArgument, NotFound)):
        load(store, mkimg.oci_layout(index, members))
    assert contents(paths) == ([], [])


def test_an_index_that_contains_itself_ends(store):
    # a digest cannot contain itself, but a long chain of indexes can be made
    document, members = mkimg.oci_manifest([BASE])
    at = mkimg.descriptor(document, mkimg.MANIFEST)
    for _ in range(10):
        index = json.dumps({"schemaVersion": 2, "mediaType": mkimg.INDEX, "manifests": [at]}).encode()
        members.append(mkimg.blob(index))
        at = mkimg.descriptor(index, mkimg.INDEX)
    with pytest.raises(InvalidArgument, match="nested too deeply"):
        load(store, mkimg.oci_layout([at], members))


# old archives


def test_archives_from_before_manifests(store):
    low, high = "a" * 64, "b" * 64
    top = {
        "id": high,
        "parent": low,
        "created": "2014-01-02T03:04:05Z",
        "architecture": "amd64",
        "os": "linux",
        "Size": 3,
        "config": {"Cmd": ["sh"]},
        "container_config": {"Cmd": ["/bin/sh", "-c", "#(nop) CMD"]},
    }
    bottom = {"id": low, "created": "2014-01-01T00:00:00Z", "container_config": {"Cmd": ["ADD x"]}, "os": "linux"}
    data = archive(
        *[
            member
            for name, description, layer in ((low, bottom, BASE), (high, top, TOP))
            for member in (
                directory(name.encode() + b"/"),
                file(name.encode() + b"/VERSION", b"1.0"),
                file(name.encode() + b"/json", json.dumps(description).encode()),
                file(name.encode() + b"/layer.tar", layer),
            )
        ],
        file(b"repositories", json.dumps({"old": {"1": high, "2": high}}).encode()),
    )
    (image,), said = load(store, data)
    assert said == "Loaded image: old:1\nLoaded image: old:2\n"
    assert image.diff_ids == [digest(BASE), digest(TOP)]
    assert image.config == {"Cmd": ["sh"]}
    assert [item.created_by for item in store.history("old:1")] == ["/bin/sh -c #(nop) CMD", "ADD x"]
