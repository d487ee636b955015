"""The store: load, import, names, lists, history, removal, save; with Docker's words."""

import gzip
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import threading

import pytest

from tests.images import mkimg
from tests.images.mkimg import archive, digest, directory, docker_archive, file, stream, symlink
from wherry.errors import Conflict, Internal, InvalidArgument, NotFound, Unavailable
from wherry.images import oci
from wherry.images.archive import sources
from wherry.images.archive.compression import zstd
from wherry.images.store import ImageUser

BASE = archive(directory(b"etc/", 0o755), file(b"etc/a", b"base"))
TOP = archive(directory(b"etc/", 0o700), file(b"etc/b", b"top!!"), file(b"etc/.wh.a"))


def nobody(image_id):
    return []


def load(store, data, **options):
    items = []
    images = store.load(stream(data), progress=items.append, **options)
    return images, "".join(item.get("stream", "") for item in items)


def leftovers(paths):
    """What a finished or failed operation must not leave."""
    return [
        *os.listdir(paths.ingest),
        *os.listdir(paths.trash),
        *(name for name in os.listdir(paths.layers) if name.startswith(".")),
    ]


def contents(paths):
    return sorted(os.listdir(paths.blobs)), sorted(os.listdir(paths.layers))


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
    inode = os.lstat(paths.layers / digest(BASE)[7:]).st_ino
    # the same names with other bytes: what is here counts, and the bytes are never looked at
    rest = [
        member if member not in (mkimg.blob(BASE),) else member[:512] + bytes(len(member) - 512) for member in members
    ]
    (image,), _ = load(store, mkimg.oci_layout([mkimg.descriptor(document, mkimg.MANIFEST)], rest))
    assert image.diff_ids == [digest(BASE), digest(TOP)]
    assert os.lstat(paths.layers / digest(BASE)[7:]).st_ino == inode


def test_a_lost_layer_is_repaired_by_loading_again(store, paths):
    data = docker_archive([BASE])
    (image,), _ = load(store, data)
    os.rename(paths.layers / digest(BASE)[7:], paths.tmp / "lost")
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
    out = io.BytesIO()
    store.save([image.id], out)
    store.remove(image.id, users=nobody)
    (again,), _ = load(store, out.getvalue())
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


# import


def test_import(store):
    image_id = store.import_(
        stream(gzip.compress(BASE)), reference="made/here", changes=["CMD a b", "ENV X=1"], message="why"
    )
    image = store.resolve("made/here")
    assert image.id == image_id
    assert image.config == {"Cmd": ["/bin/sh", "-c", "a b"], "Env": ["X=1"]}
    assert (image.comment, image.size) == ("why", 4)
    (step,) = store.history(image_id)
    assert (step.id, step.comment, step.tags, step.size) == (image_id, "why", ["made/here:latest"], 4)
    assert store.resolve(store.import_(stream(BASE))).comment == "Imported from -"


@pytest.mark.parametrize("data", [b"not a tar, but long enough to be one" * 30, gzip.compress(BASE)[:-9]])
def test_import_of_rubbish(store, paths, data):
    with pytest.raises(InvalidArgument):
        store.import_(stream(data), reference="x")
    with pytest.raises(InvalidArgument, match="FOO is not a valid change command"):
        store.import_(stream(BASE), changes=["FOO"])
    assert contents(paths) == ([], [])
    assert leftovers(paths) == []


# names


def test_resolving(store):
    (image,), _ = load(store, docker_archive([BASE], ["me/x:1"]))
    for ref in ("me/x:1", "docker.io/me/x:1", image.id, image.id[7:], image.id[7:19], image.id[:20]):
        assert store.resolve(ref).id == image.id
    for ref, message in (
        ("me/x", "No such image: me/x:latest"),
        ("nope", "No such image: nope:latest"),
        ("sha256:abc", "No such image: sha256:abc"),
        ("0" * 64, "No such image: sha256:" + "0" * 64),
        (f"me/x@{digest(b'')}", f"No such image: me/x@{digest(b'')}"),
        ("sha256:", "invalid reference format"),
    ):
        with pytest.raises((NotFound, InvalidArgument)) as caught:
            store.resolve(ref)
        assert str(caught.value) == message


def test_ambiguous_prefixes_are_nothing(store, db):
    for number in range(40):
        load(store, docker_archive([BASE], [f"x:{number}"], config_data=mkimg.config([BASE], author=str(number))))
    first = {image.id[7] for image in store.list()}
    counts = {char: sum(image.id[7] == char for image in store.list()) for char in first}
    ambiguous = next(char for char, count in counts.items() if count > 1)
    with pytest.raises(NotFound, match=f"No such image: {ambiguous}:latest"):
        store.resolve(ambiguous)


def test_tags_move(store):
    (one,), _ = load(store, docker_archive([BASE], ["a:1"]))
    (two,), _ = load(store, docker_archive([TOP], ["b:1"]))
    store.tag("b:1", "a:1")
    assert store.resolve("a:1").id == two.id
    assert store.resolve(one.id).repo_tags == []
    assert store.tag(one.id[7:20], "localhost/c").repo_tags == ["localhost/c:latest"]


def test_a_name_taken_from_another_image_is_said(store):
    (old,), _ = load(store, docker_archive([BASE], ["a:1"]))
    _, said = load(store, docker_archive([TOP], ["a:1"]))
    assert said == (
        f"The image a:1 already exists, renaming the old one with ID {old.id} to empty string\nLoaded image: a:1\n"
    )
    _, said = load(store, docker_archive([TOP], ["a:1"]))
    assert said == "Loaded image: a:1\n"


def test_the_layout_is_readable_by_skopeo(store, paths, db):
    """The index names every tag and every untagged image, each with a manifest that is there."""
    load(store, docker_archive([BASE, TOP], ["me/x:1", "me/x:2"]))
    (plain,), _ = load(store, docker_archive([TOP], []))
    index = json.loads((paths.content / "index.json").read_text())
    names = [m.get("annotations", {}).get("org.opencontainers.image.ref.name") for m in index["manifests"]]
    assert sorted(names, key=str) == [None, "docker.io/me/x:1", "docker.io/me/x:2"]
    for entry in index["manifests"]:
        data = (paths.blobs / entry["digest"][7:]).read_bytes()
        assert (len(data), digest(data)) == (entry["size"], entry["digest"])
        manifest = json.loads(data)
        for part in (manifest["config"], *manifest["layers"]):
            blob = (paths.blobs / part["digest"][7:]).read_bytes()
            assert (len(blob), digest(blob)) == (part["size"], part["digest"])
    store.remove("me/x:1", users=nobody)
    store.remove(plain.id, users=nobody)
    index = json.loads((paths.content / "index.json").read_text())
    assert [m["annotations"]["org.opencontainers.image.ref.name"] for m in index["manifests"]] == ["docker.io/me/x:2"]


# lists


@pytest.fixture
def shelf(store):
    """Three images of different ages and names; the second has the third as its child."""
    for day, (tags, layers, labels) in enumerate(
        [
            (["me/old:1", "me/old:2"], [BASE], {"k": "old", "all": ""}),
            ([], [BASE, TOP], {"k": "mid", "all": ""}),
            (["reg.io:5000/me/new:1"], [BASE, TOP, BASE], {"k": "new", "all": ""}),
        ]
    ):
        config = mkimg.config(layers, created=f"2024-01-0{day + 1}T00:00:00Z", config={"Labels": labels})
        load(store, docker_archive(layers, tags, config_data=config))
    return store


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, "new mid old"),
        ({"dangling": ["true"]}, "mid"),
        ({"dangling": ["0"]}, "new old"),
        ({"label": ["k=old"]}, "old"),
        ({"label": ["all"]}, "new mid old"),
        ({"label": ["all", "k=new"]}, "new"),
        ({"label!": ["k=new"]}, "mid old"),
        ({"before": ["reg.io:5000/me/new:1"]}, "mid old"),
        ({"since": ["me/old:1"]}, "new mid"),
        ({"until": ["2024-01-02T12:00:00Z"]}, "mid old"),
        ({"until": ["1704110400"]}, "old"),
        ({"reference": ["me/*"]}, "old"),
        ({"reference": ["me/old"]}, "old"),
        ({"reference": ["*"]}, ""),
        ({"reference": ["reg.io:5000/*/n[de]w:?"]}, "new"),
        ({"reference": ["me/old:2", "nothing"]}, "old"),
        ({"reference": ["*/*/*"]}, "new"),
    ],
    ids=str,
)
def test_filters(shelf, found, filters):
    assert " ".join(image.labels["k"] for image in shelf.list(filters=filters)) == found


def test_a_reference_filter_shows_only_the_names_it_lets_through(shelf):
    (image,) = shelf.list(filters={"reference": ["me/old:2"]})
    assert image.repo_tags == ["me/old:2"]


@pytest.mark.parametrize(
    "filters", [{"foo": ["x"]}, {"dangling": ["maybe"]}, {"reference": ["[a"]}, {"until": ["x"]}, {"before": ["a b"]}]
)
def test_wrong_filters(shelf, filters):
    with pytest.raises(InvalidArgument):
        shelf.list(filters=filters)


def test_shared_sizes_and_users(shelf):
    images = shelf.list(shared_size=True, in_use=lambda image_id: len(image_id))
    assert [(i.labels["k"], i.shared_size, i.size, i.containers) for i in images] == [
        ("new", 9, 13, 71),
        ("mid", 9, 9, 71),
        ("old", 4, 4, 71),
    ]
    assert shelf.list()[0].shared_size == -1


# removing


def user(running):
    return lambda image_id: [ImageUser("c" * 64, running)]


def test_removing_by_name(store, paths):
    (image,), _ = load(store, docker_archive([BASE], ["a:1", "a:2", "other/a:latest"]))
    assert store.remove("a:2", users=nobody) == [{"Untagged": "a:2"}]
    assert store.remove("other/a", users=user(True)) == [{"Untagged": "other/a:latest"}]
    short = image.id[7:19]
    with pytest.raises(Conflict) as caught:
        store.remove("a:1", users=user(False))
    assert str(caught.value) == (
        'conflict: unable to remove repository reference "a:1" (must force) - container cccccccccccc is using its '
        f"referenced image {short}"
    )
    assert store.remove("a:1", force=True, users=user(True)) == [{"Untagged": "a:1"}]  # used: it stays, without a name
    assert store.remove(short, users=nobody) == [{"Deleted": image.id}, {"Deleted": digest(BASE)}]
    assert contents(paths) == ([], [])
    assert leftovers(paths) == []


def test_removing_by_id(store):
    (image,), _ = load(store, docker_archive([BASE], ["a:1", "b/a:1"]))
    short = image.id[7:19]
    for users, force, message in (
        (nobody, False, "(must be forced) - image is referenced in multiple repositories"),
        (user(True), True, "(cannot be forced) - image is being used by running container cccccccccccc"),
    ):
        with pytest.raises(Conflict) as caught:
            store.remove(image.id, force=force, users=users)
        assert str(caught.value) == f"conflict: unable to delete {short} {message}"
    store.remove("b/a:1", users=nobody)
    with pytest.raises(Conflict, match=r"\(must be forced\) - image is being used by stopped container cccccccccccc"):
        store.remove(short, users=user(False))
    assert store.remove(short, force=True, users=user(False)) == [
        {"Untagged": "a:1"},
        {"Deleted": image.id},
        {"Deleted": digest(BASE)},
    ]
    with pytest.raises(NotFound, match=f"No such image: {image.id}"):
        store.remove(image.id, users=nobody)


def test_children_and_their_parents(store):
    parent = digest(mkimg.config([BASE]))
    load(store, docker_archive([BASE], ["p:1"]))
    item = {"Config": "c.json", "RepoTags": ["kid:1"], "Layers": ["l0/layer.tar", "l1/layer.tar"], "Parent": parent}
    (kid,), _ = load(store, docker_archive([BASE, TOP], manifest=[item]))
    assert kid.parent == parent
    assert [step.id for step in store.history("kid:1")] == [kid.id, parent]
    with pytest.raises(Conflict, match=r"\(cannot be forced\) - image has dependent child images"):
        store.remove(parent, force=True, users=nobody)
    assert store.remove("p:1", users=nobody) == [{"Untagged": "p:1"}]
    assert [image.id for image in store.list()] == [kid.id]  # a parent without a name is shown on demand only
    assert {image.id for image in store.list(all=True)} == {kid.id, parent}
    deleted = store.remove("kid:1", users=nobody)
    assert deleted[:2] == [{"Untagged": "kid:1"}, {"Deleted": kid.id}]
    assert {"Deleted": parent} in deleted
    assert store.list(all=True) == []


def test_layers_that_others_have_stay(store, paths):
    load(store, docker_archive([BASE], ["a:1"]))
    (image,), _ = load(store, docker_archive([BASE, TOP], ["b:1"]))
    deleted = store.remove("b:1", users=nobody)
    chain = mkimg.digest(f"{digest(BASE)} {digest(TOP)}".encode())
    assert deleted == [{"Untagged": "b:1"}, {"Deleted": image.id}, {"Deleted": chain}]
    assert contents(paths)[1] == [digest(BASE)[7:]]
    store.lower_dirs(store.resolve("a:1"))


# saving


def test_saved_archives_are_read_by_the_standard_library_and_by_us(store, paths):
    blobs = [gzip.compress(BASE), TOP]
    (image,), _ = load(store, docker_archive([BASE, TOP], ["me/x:1", "me/x:2", "y:1"], blobs=blobs))
    out = io.BytesIO()
    store.save(["me/x", image.id], out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        (item,) = json.load(tar.extractfile("manifest.json"))
        stored = [tar.extractfile(name).read() for name in item["Layers"]]
    assert item["RepoTags"] == ["me/x:1", "me/x:2"]
    assert stored == blobs
    manifest = image.manifest.digest
    store.remove(image.id, force=True, users=nobody)
    assert contents(paths) == ([], [])
    (again,), said = load(store, out.getvalue())
    assert (again.id, again.manifest.digest) == (image.id, manifest)
    assert said == "Loaded image: me/x:1\nLoaded image: me/x:2\n"
    with pytest.raises(NotFound, match="No such image: nope"):
        store.save(["me/x", "nope"], io.BytesIO())


# concurrency and crashes


def test_many_loads_at_once_store_one_copy(store, paths):
    data = docker_archive([BASE, TOP], ["x:1"])
    errors = []

    def run():
        try:
            store.load(io.BytesIO(data))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(contents(paths)[1]) == sorted(digest(layer)[7:] for layer in (BASE, TOP))
    assert len(contents(paths)[0]) == 4
    assert leftovers(paths) == []


CHILD = """
import io, sys
from wherry.images.store import MIGRATIONS, ImageStore
from wherry.store.db import open_database
from wherry.store.paths import Paths
paths = Paths(sys.argv[1], sys.argv[2])
store = ImageStore(open_database(paths.database, {"images": MIGRATIONS}), paths)
with open(sys.argv[4], "rb") as file:
    if sys.argv[3] == "load":
        store.load(file)
    else:
        store.remove("gone:1", users=lambda image_id: [])
"""


def run_child(paths, action, archive_path, failpoint):
    environment = {**os.environ, "WHERRY_FAILPOINT": failpoint, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", CHILD, paths.data_root, paths.exec_root, action, archive_path]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


LOAD_POINTS = ["ingest-finish:kill", "ingest-finish:kill@3", "load-synced:kill", "layers-commit:kill"]
LOAD_POINTS += ["load-published:kill", "load-recorded:kill", "load-synced:errno=28", "load-published:raise"]


@pytest.mark.parametrize("point", LOAD_POINTS)
def test_a_load_that_dies_leaves_all_or_nothing(tmp_path, db, paths, store, point):
    load(store, docker_archive([BASE], ["kept:1"]))
    db.close()
    (tmp_path / "new.tar").write_bytes(docker_archive([BASE, TOP], ["new:1"]))
    before = contents(paths)
    result = run_child(paths, "load", tmp_path / "new.tar", point)
    assert result.returncode != 0
    again = reopen(paths)
    again.collect_garbage()
    again.lower_dirs(again.resolve("kept:1"))
    if point.startswith("load-recorded"):
        assert again.lower_dirs(again.resolve("new:1"))
    else:
        with pytest.raises(NotFound):
            again.resolve("new:1")
        assert contents(paths) == before
    assert leftovers(paths) == []
    index = json.loads((paths.content / "index.json").read_text())
    assert len(index["manifests"]) == len(again.list())


@pytest.mark.parametrize("point", ["image-deleted:kill", "layer-trash:kill"])
def test_a_removal_that_dies_is_finished_at_the_next_start(tmp_path, db, paths, store, point):
    load(store, docker_archive([BASE], ["kept:1"]))
    before = contents(paths)
    (tmp_path / "gone.tar").write_bytes(docker_archive([BASE, TOP], ["gone:1"]))
    load(store, docker_archive([BASE, TOP], ["gone:1"]))
    db.close()
    assert run_child(paths, "remove", tmp_path / "gone.tar", point).returncode < 0
    again = reopen(paths)
    again.collect_garbage()
    assert contents(paths) == before
    assert leftovers(paths) == []
    again.lower_dirs(again.resolve("kept:1"))


def reopen(paths):
    from wherry.images.store import MIGRATIONS, ImageStore
    from wherry.store.db import open_database

    return ImageStore(open_database(paths.database, {"images": MIGRATIONS}), paths)


# damage and full disks


def test_a_damaged_config_hides_one_image_only(store, paths):
    (good,), _ = load(store, docker_archive([BASE], ["good:1"]))
    (bad,), _ = load(store, docker_archive([TOP], ["bad:1"]))
    (paths.blobs / bad.id[7:]).write_bytes(b"{}")
    again = reopen(paths)
    assert [image.id for image in again.list()] == [good.id]
    with pytest.raises(Exception, match="damaged on disk"):
        again.resolve("bad:1")


@pytest.mark.root
def test_a_full_disk(tmp_path):
    """On a file system of 24 MiB: a clean error, nothing left, and the same store works when there is room."""
    script = """
import ctypes, io, os, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x00020000) == 0
assert libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None) == 0
os.mkdir(sys.argv[1])
assert libc.mount(b"tmpfs", sys.argv[1].encode(), b"tmpfs", 0, b"size=24m") == 0
from tests.images import mkimg, test_store
from wherry.errors import Internal, Unavailable
from wherry.store.paths import Paths
paths = Paths(sys.argv[1] + "/data", sys.argv[1] + "/exec")
paths.create()
store = test_store.reopen(paths)
big = mkimg.archive(*[mkimg.file(b"f%d" % n, os.urandom(1 << 20)) for n in range(20)])
try:
    store.load(io.BytesIO(mkimg.docker_archive([big], ["big:1"])))
except (Unavailable, Internal) as error:
    print("refused:", error)
assert test_store.contents(paths) == ([], []), test_store.contents(paths)
assert test_store.leftovers(paths) == []
small = mkimg.archive(mkimg.file(b"f", os.urandom(1 << 20)))
store.load(io.BytesIO(mkimg.docker_archive([small], ["small:1"])))
print(store.resolve("small:1").size)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    command = [sys.executable, "-c", script, str(tmp_path / "small")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "no space left on device" in result.stdout.lower()
    assert result.stdout.splitlines()[-1] == str(1 << 20)


def test_the_reserve_is_kept(monkeypatch, store, paths):
    real = os.statvfs

    def nearly_full(path):
        status = list(real(path))
        status[4] = 10  # f_bavail
        return os.statvfs_result(status)

    monkeypatch.setattr(os, "statvfs", nearly_full)
    with pytest.raises(Unavailable, match="no space left on device"):
        load(store, docker_archive([BASE]))
    assert contents(paths) == ([], [])
