"""The store: import, names, lists, history, removal, save; with Docker's words."""

import gzip
import io
import json
import os
import tarfile

import pytest

from tests.images import mkimg
from tests.images.mkimg import digest, docker_archive, stream
from tests.images.shop import BASE, TOP, contents, leftovers, load, nobody, save
from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.images.store import ImageUser

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


def test_parents_that_none_can_be_are_not_believed(store):
    configs = [mkimg.config([BASE], comment=comment) for comment in "ab"]
    items = [
        {"Config": f"{name}.json", "RepoTags": [f"{name}:1"], "Layers": ["l0/layer.tar"], "Parent": digest(parent)}
        for name, parent in zip("ab", reversed(configs), strict=True)
    ]
    extra = [mkimg.file(f"{name}.json".encode(), data) for name, data in zip("ab", configs, strict=True)]
    images, _ = load(store, docker_archive([BASE], manifest=items, extra=extra))
    assert [image.parent for image in images] == ["", ""]
    for image in images:
        store.remove(image.id, users=nobody)
    (kid,), _ = load(store, docker_archive([BASE], manifest=[items[0] | {"Parent": digest(b"none")}], extra=extra))
    assert kid.parent == ""


def test_how_many_layers_some_image_has_too(store):
    load(store, docker_archive([BASE, TOP], ["a:1"]))
    load(store, docker_archive([TOP], ["b:1"]))
    for layers, shared in (([], 0), ([BASE], 1), ([BASE, TOP], 2), ([BASE, TOP, TOP], 2), ([TOP, TOP], 1), ([b""], 0)):
        assert store.records.shared_layers([digest(layer) for layer in layers]) == shared


def test_the_empty_layer_is_mounted_again(store, paths):
    load(store, docker_archive([mkimg.archive()], ["empty:1"]))  # whose one layer is packed
    config = mkimg.config([], history=[])
    (image,), _ = load(store, docker_archive([], ["none:1"], config_data=config))
    for _ in range(2):
        assert list(map(os.path.isdir, store.hold(image))) == [True]
        store.unmount([])


def test_layers_in_use_are_no_stale_mounts(store):
    (image,), _ = load(store, docker_archive([BASE], ["a:1"]))
    held = store.hold(image)
    store.remove("a:1", force=True, users=nobody)
    assert store.stale_mounts(dry_run=True) == []
    assert store.stale_mounts(dry_run=False) == []
    assert list(map(os.path.isdir, held)) == [True]
    store.let_go(held)
    assert not os.path.exists(held[0])


def test_an_image_that_comes_back_is_read_anew(store):
    """It may have another manifest than the one that was removed while it was being read."""
    (image,), _ = load(store, docker_archive([BASE], ["a:1"]))
    stale = dict(store.records._cache)
    store.remove("a:1", users=nobody)
    manifest, members = mkimg.oci_manifest([BASE], blobs=[gzip.compress(BASE)], suffix="+gzip")
    (again,), _ = load(store, mkimg.oci_layout([mkimg.descriptor(manifest, mkimg.MANIFEST)], members))
    store.records._cache.update(stale)
    assert again.id == image.id
    assert store.resolve(image.id).manifest.digest == digest(manifest) != image.manifest.digest


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
    saved = save(store, "me/x", image.id)
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        (item,) = json.load(tar.extractfile("manifest.json"))
        stored = [tar.extractfile(name).read() for name in item["Layers"]]
    assert item["RepoTags"] == ["me/x:1", "me/x:2"]
    assert stored == blobs
    manifest = image.manifest.digest
    store.remove(image.id, force=True, users=nobody)
    assert contents(paths) == ([], [])
    (again,), said = load(store, saved)
    assert (again.id, again.manifest.digest) == (image.id, manifest)
    assert said == "Loaded image: me/x:1\nLoaded image: me/x:2\n"
    with pytest.raises(NotFound, match="No such image: nope"):
        store.choose(["me/x", "nope"])
