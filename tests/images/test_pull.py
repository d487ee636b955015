"""Pulling into a store: what is fetched, what is verified, what is left when it fails."""

import errno
import gzip
import json
import os
import threading

import pytest

from tests.images import shop
from tests.images.mkimg import digest
from tests.images.puller import big, changed, config_type, in_thread, index_of, pull, pull_of, settled, small
from tests.images.shop import contents, leftovers, nobody
from tests.registry.servers import INDEX, MANIFEST, OCI_MANIFEST, PythonRegistry, make_image
from wherry.errors import NotFound, Unavailable, WherryError
from wherry.images import platforms
from wherry.images.oci import Descriptor, Platform
from wherry.images.progress import short
from wherry.images.store import ImageStore
from wherry.registry.cancel import Cancelled


@pytest.fixture
def form(monkeypatch):
    """One form of layers is enough here: what arrives is unpacked by the code that loads archives, too."""
    monkeypatch.setattr(shop, "form", "erofs")


@pytest.fixture
def registry():
    with PythonRegistry() as registry:
        yield registry


@pytest.fixture
def image(registry):
    return registry.store.put("app", "1", make_image([small("a"), small("b")]))


def partials(paths):
    return [name for name in os.listdir(paths.ingest) if name.startswith("partial-")]


def requests(registry, blob):
    return registry.asked(f"GET /v2/.*/blobs/{digest(blob)}")


# what a pull gives


def test_a_pull_gives_the_image_byte_for_byte(store, paths, registry, image):
    name = f"{registry.address}/app"
    lines = pull(store, registry.address)
    first, second = (short(digest(layer)) for layer in image.layers)
    assert [line for line in settled(lines) if line[0] != "Pull complete"] == [
        ("Pulling from app", "1"),
        ("Pulling fs layer", first),
        ("Pulling fs layer", second),
        (f"Digest: {image.digest}", ""),
        (f"Status: Downloaded newer image for {name}:1", ""),
    ]
    assert {("Pull complete", first), ("Pull complete", second)} < set(lines)
    found = store.resolve(f"{name}:1")
    assert (found.repo_tags, found.repo_digests) == ([f"{name}:1"], [f"{name}@{image.digest}"])
    assert found.tagged_ns == 0
    for blob in (image.manifest, *image.blobs.values()):
        assert store.content.read(digest(blob), 1 << 20) == blob
    assert len(store.lower_dirs(found)) == 2
    assert leftovers(paths) == []


def test_what_is_here_is_not_fetched_again(store, registry, image):
    pull(store, registry.address)
    asked = len(registry.asked("GET /v2/app/.*"))
    lines = pull(store, registry.address)
    assert lines[-1] == (f"Status: Image is up to date for {registry.address}/app:1", "")
    assert len(registry.asked("GET /v2/app/.*")) == asked + 1  # the manifest
    bigger = registry.store.put("app", "2", make_image([*image.layers, small("c")]))
    lines = pull(store, registry.address, "app:2")
    assert [status for status, _ in settled(lines)][1:4] == ["Already exists", "Already exists", "Pulling fs layer"]
    assert [len(requests(registry, layer)) for layer in bigger.layers] == [1, 1, 1]


def test_a_tag_that_moved(store, registry, image):
    pull(store, registry.address)
    newer = registry.store.put("app", "1", make_image([small("new")]))
    pull(store, registry.address)
    name = f"{registry.address}/app"
    assert store.resolve(f"{name}:1").id == digest(newer.config)
    old = store.resolve(digest(image.config))
    assert (old.repo_tags, old.repo_digests) == ([], [f"{name}@{image.digest}"])


def test_by_digest_and_by_tag_and_digest(store, registry, image):
    name = f"{registry.address}/app"
    lines = pull(store, registry.address, f"app@{image.digest}")
    assert lines[0] == ("Pulling from app", f"{name}@{image.digest}")
    found = store.resolve(f"{name}@{image.digest}")
    assert (found.repo_tags, found.repo_digests) == ([], [f"{name}@{image.digest}"])
    lines = pull(store, registry.address, f"app:1@{image.digest}")
    assert store.resolve(f"{name}@{image.digest}").repo_tags == []
    absent = "sha256:" + "0" * 64
    with pytest.raises(NotFound) as error:
        pull(store, registry.address, f"app:1@{absent}")
    assert str(error.value) == f"manifest for {name}:1@{absent} not found: manifest unknown: manifest unknown"


def test_all_tags(store, registry, image):
    registry.store.put("app", "2", make_image([small("c")]))

    @registry.rule(r"GET /v2/app/tags/list")
    def tags(exchange):
        exchange.json(200, {"name": "app", "tags": ["1", "2"]})

    lines = pull(store, registry.address, "app")
    assert [line for line in lines if line[0].startswith("Pulling from")] == [("Pulling from app", t) for t in "12"]
    assert lines[-1] == (f"Status: Downloaded newer image for {registry.address}/app", "")
    assert {tag for found in store.list() for tag in found.repo_tags} == {f"{registry.address}/app:{t}" for t in "12"}


def test_a_layer_that_comes_twice_is_fetched_once(store, registry):
    layer = small("a")
    image = registry.store.put("app", "1", make_image([layer, small("b"), layer]))
    lines = pull(store, registry.address)
    assert [status for status, _ in lines].count("Pulling fs layer") == 2
    assert len(requests(registry, layer)) == 1
    assert store.resolve(f"{registry.address}/app:1").diff_ids[0] == store.resolve(digest(image.config)).diff_ids[2]


def test_a_lost_layer_is_fetched_again(store, paths, registry, image):
    pull(store, registry.address)
    found = store.resolve(f"{registry.address}/app:1")
    os.rename(shop.layer(paths, found.diff_ids[-1]), paths.trash / "lost")
    (paths.blobs / digest(image.layers[0])[7:]).unlink()
    pull(store, registry.address)
    assert len(store.lower_dirs(found)) == 2
    assert store.content.has(digest(image.layers[0]))


@pytest.mark.parametrize("how", ["lost", "damaged"])
def test_a_config_that_was_lost_is_fetched_again(store, db, paths, registry, image, how):
    pull(store, registry.address)
    path = paths.blobs / digest(image.config)[7:]
    path.unlink()
    if how == "damaged":
        path.write_bytes(b"{}")
    again = ImageStore(db, paths, shop.driver())
    pull(again, registry.address)
    assert again.resolve(f"{registry.address}/app:1").id == digest(image.config)
    assert path.read_bytes() == image.config


# platforms


def test_an_index_gives_the_image_of_the_platform(store, registry):
    host = platforms.host_platform()
    foreign = "s390x" if host.architecture != "s390x" else "amd64"
    ours, theirs = make_image([small("a")]), make_image([small("b")], architecture=foreign)
    for image in (ours, theirs):
        registry.store.put("app", image.digest, image)
    index = index_of(
        (theirs, {"os": "linux", "architecture": foreign}),
        (theirs, {"os": "unknown", "architecture": "unknown"}),
        (ours, {"os": "linux", "architecture": host.architecture}),
    )
    root = registry.store.put_manifest("app", "1", index, INDEX)
    name = f"{registry.address}/app"
    assert (f"Digest: {root}", "") in pull(store, registry.address)
    assert store.resolve(f"{name}:1").repo_digests == [f"{name}@{root}"]
    assert store.resolve(f"{name}:1").id == digest(ours.config)
    pull(store, registry.address, platform=f"linux/{foreign}")
    assert store.resolve(f"{name}:1").id == digest(theirs.config)
    assert store.resolve(f"{name}@{root}").id == digest(ours.config)
    with pytest.raises(NotFound, match=r"^no matching manifest for linux/mips64 in the manifest list entries$"):
        pull(store, registry.address, platform="linux/mips64")


def test_one_image_of_another_platform_is_taken_with_a_warning(store, registry, image):
    lines = pull(store, registry.address, platform="linux/arm64")
    assert lines[-1][0] == (
        f"WARNING: image with reference {registry.address}/app:1 was found but its platform (linux/amd64) "
        "does not match the specified platform (linux/arm64)"
    )


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", Platform("amd64", "linux")),
        ("Linux/x86_64", Platform("amd64", "linux")),
        ("linux/arm64/v8", Platform("arm64", "linux")),
        ("aarch64", Platform("arm64", "linux")),
        ("linux/arm", Platform("arm", "linux", "v7")),
        ("linux/armhf", Platform("arm", "linux", "v7")),
        ("linux/arm/6", Platform("arm", "linux", "v6")),
        ("windows/amd64", Platform("amd64", "windows")),
    ],
)
def test_platforms_in_every_spelling(text, platform):
    assert platforms.normalize(platforms.parse(text)) == platform


@pytest.mark.parametrize("text", ["a/b/c/d", "nonsense", "", "linux/", "a b"])
def test_platforms_that_are_none(text):
    with pytest.raises(WherryError, match="invalid argument"):
        platforms.parse(text)


@pytest.mark.parametrize(
    ("offered", "wanted", "taken"),
    [
        (["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], "linux/arm/v6", 1),
        (["linux/arm/v5", "linux/arm/v7"], "linux/arm/v6", 0),
        (["linux/arm/v7", "linux/arm64"], "linux/arm64", 1),
        (["linux/arm/v7"], "linux/arm64", 0),
        (["linux/386", "linux/amd64"], "linux/amd64", 1),
        (["linux/amd64", "linux/amd64/v3"], "linux/amd64/v3", 1),
        (["linux/amd64/v3"], "linux/amd64", None),
        (["windows/amd64"], "linux/amd64", None),
        ([""], "linux/amd64", 0),
    ],
)
def test_which_platform_of_an_index(offered, wanted, taken):
    entries = [
        Descriptor(MANIFEST, str(at), 1, platform=platforms.parse(text) if text else None)
        for at, text in enumerate(offered)
    ]
    chosen = platforms.choose(entries, platforms.parse(wanted))
    assert (None if chosen is None else int(chosen.digest)) == taken


# what is refused


def other_layer(image):
    return [*image.layers[:-1], small("other")]


def wrong_layers(image):
    return changed(image, layers=json.loads(make_image(other_layer(image)).manifest)["layers"])


def layer_field(**fields):
    def change(image):
        first, *rest = json.loads(image.manifest)["layers"]
        return changed(image, layers=[first | fields, *rest])

    return change


def of_windows(image):
    config = image.config.replace(b'"linux"', b'"windows"')
    descriptor = json.loads(image.manifest)["config"] | {"digest": digest(config), "size": len(config)}
    return changed(type(image)(image.manifest, config, image.layers), config=descriptor)


HELM = "application/vnd.cncf.helm.config.v1+json"
REFUSED = {
    "too few layers": (lambda i: changed(i, layers=json.loads(i.manifest)["layers"][:1]), "don't match image config"),
    "other layers": (wrong_layers, "layers from manifest don't match image configuration"),
    "a chart": (config_type(HELM), f'Encountered remote "{HELM}"(unknown) when fetching'),
    "of another system": (of_windows, 'image operating system "windows" cannot be used on this platform'),
    "a layer of no kind": (layer_field(mediaType="application/x-foo"), "unsupported media type application/x-foo"),
    "a digest that climbs": (layer_field(digest="sha256:../../../etc/passwd"), "invalid checksum digest"),
    "a digest of another kind": (layer_field(digest="sha512:" + "0" * 128), "unsupported digest algorithm"),
    "too many layers": (lambda i: changed(i, layers=json.loads(i.manifest)["layers"] * 300), "image has 600 layers"),
    "a size too large": (layer_field(size=10_000), "less than the 10000 bytes announced"),
    "a size too small": (layer_field(size=10), "more than the 10 bytes announced"),
    "a negative size": (layer_field(size=-1), "invalid size"),
    "an index at once": (lambda i: changed(i, manifests=[]), "ambiguous"),
    "schema 1": (lambda i: changed(i, fsLayers=[], schemaVersion=1), "schema 1"),
    "no JSON": (lambda i: type(i)(b"{", i.config, i.layers), "manifest"),
    "another type than announced": (lambda i: changed(i, mediaType=OCI_MANIFEST), "media type"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_image_is_refused_and_leaves_nothing(store, paths, registry, case):
    change, text = REFUSED[case]
    image = make_image([small("a"), small("b")])
    registry.store.put("app", "1", make_image(other_layer(image)))
    registry.store.put("app", "1", change(image))
    with pytest.raises(WherryError) as error:
        pull(store, registry.address)
    assert text in str(error.value)
    assert contents(paths) == ([], [])
    assert leftovers(paths) == []
    assert store.list() == []


@pytest.mark.parametrize("which", ["manifest", "config", "layer"])
def test_what_does_not_match_its_digest_is_refused(store, paths, registry, image, which):
    if which == "manifest":
        registry.store.manifests[f"app@{image.digest}"] = (MANIFEST, image.manifest + b" ")
        name, text = f"app@{image.digest}", f"manifest verification failed for digest {image.digest}"
    else:
        blob = image.config if which == "config" else image.layers[1]
        registry.store.blobs[digest(blob)] = blob[:-1] + bytes([blob[-1] ^ 1])
        kind = "image config" if which == "config" else "filesystem layer"
        name, text = "app:1", f"{kind} verification failed for digest {digest(blob)}"
    with pytest.raises(WherryError) as error:
        pull(store, registry.address, name)
    assert str(error.value).endswith(text)
    assert contents(paths) == ([], [])
    assert leftovers(paths) == []


def test_a_layer_that_is_no_archive(store, paths, registry):
    junk = big()[:-5] + b"junk!"
    document = json.loads(make_image([small("a")]).manifest)
    document["layers"] = [document["layers"][0] | {"digest": digest(junk), "size": len(junk)}]
    image = changed(make_image([small("a")]), layers=document["layers"])
    registry.store.put("app", "1", image)
    registry.store.blobs[digest(junk)] = junk
    with pytest.raises(WherryError, match="invalid gzip data"):
        pull(store, registry.address)
    assert contents(paths) == ([], [])
    assert leftovers(paths) == []


def test_urls_and_data_of_descriptors_lead_nowhere(store, registry, image):
    with PythonRegistry() as elsewhere:
        extra = {"urls": [f"{elsewhere.url}/evil"], "data": "ZXZpbA=="}
        layers = [layer | extra for layer in json.loads(image.manifest)["layers"]]
        registry.store.put("app", "1", changed(image, layers=layers))
        pull(store, registry.address)
        assert elsewhere.requests == []


# many at once


def test_pulls_at_once_fetch_each_layer_once(store, paths, registry):
    shared = [big(), small("shared")]
    for name in ("one", "two"):
        registry.store.put(name, "1", make_image([*shared, small(name)]))
    names = ["one:1", "two:1"] * 4
    running = [in_thread(lambda name=name: pull(store, registry.address, name)) for name in names]
    for thread, _ in running:
        thread.join()
    assert [errors for _, errors in running if errors] == []
    assert [len(requests(registry, layer)) for layer in shared] == [1, 1]
    for name in ("one:1", "two:1"):
        assert len(store.lower_dirs(store.resolve(f"{registry.address}/{name}"))) == 3
    assert leftovers(paths) == []


class Gate:
    """Holds the reply to a blob back after its first half, until `open`."""

    def __init__(self, registry, blob):
        self.reached, self.gate = threading.Event(), threading.Event()

        @registry.rule(f"GET /v2/.*/blobs/{digest(blob)}", times=1)
        def half(exchange):
            exchange.reply(200, blob[: len(blob) // 2], length=len(blob))
            exchange._handler.wfile.flush()
            self.reached.set()
            self.gate.wait(60)
            exchange.raw(blob[len(blob) // 2 :])

    def open(self):
        self.gate.set()


def until_fetched(store, blob, size):
    """Wait until so much of the blob has arrived."""
    path = store.content.partial(digest(blob))
    while not path.exists() or path.stat().st_size < size:
        pass


def test_one_that_is_cancelled_does_not_stop_the_other(store, registry):
    layer = big()
    registry.store.put("app", "1", make_image([layer]))
    gate = Gate(registry, layer)
    first = pull_of(store, registry.address)
    one = in_thread(first.run)
    assert gate.reached.wait(30)
    two = in_thread(lambda: pull(store, registry.address))
    download = store.downloads._running[digest(layer)]
    while len(download.watchers) < 2:
        pass
    first.cancel()
    one[0].join()
    assert isinstance(one[1][0], Cancelled)
    gate.open()
    two[0].join()
    assert two[1] == []
    assert len(requests(registry, layer)) == 1
    assert store.resolve(f"{registry.address}/app:1")


def test_the_last_one_that_is_cancelled_stops_it_and_the_next_goes_on_from_there(store, paths, registry):
    layer = big()
    registry.store.put("app", "1", make_image([layer]))
    gate = Gate(registry, layer)
    only = pull_of(store, registry.address)
    thread, errors = in_thread(only.run)
    assert gate.reached.wait(30)
    until_fetched(store, layer, len(layer) // 2)
    only.cancel()
    thread.join()
    assert isinstance(errors[0], Cancelled)
    assert contents(paths) == ([], [])
    assert partials(paths) == [f"partial-{digest(layer)[7:]}"]
    pull(store, registry.address)
    assert requests(registry, layer)[-1].headers["range"] == f"bytes={len(layer) // 2}-"
    assert store.content.read(digest(layer), 1 << 24) == layer
    assert leftovers(paths) == []
    gate.open()


@pytest.mark.parametrize("what", ["another beginning", "too much", "all of it"])
def test_what_was_left_is_not_believed(store, paths, registry, what):
    layer = big()
    registry.store.put("app", "1", make_image([layer]))
    left = {"another beginning": os.urandom(2 << 20), "too much": layer + b"more", "all of it": layer}[what]
    store.content.partial(digest(layer)).write_bytes(left)
    pull(store, registry.address)
    assert store.content.read(digest(layer), 1 << 24) == layer
    ranges = [seen.headers.get("range", "") for seen in requests(registry, layer)]
    assert ranges == ([f"bytes={2 << 20}-", ""] if what == "another beginning" else [])
    assert leftovers(paths) == []


def test_a_crowd_of_which_half_goes_away(store, paths, registry):
    """CVE-2024-36621: whoever stays gets the image, one copy of it, whoever else leaves when."""
    registry.store.put("one", "1", make_image([big(), small("a")]))
    registry.store.put("two", "1", make_image([small("a"), big("other")]))
    crowd = [pull_of(store, registry.address, name) for name in ("one:1", "two:1") * 8]
    running = [in_thread(pulling.run) for pulling in crowd]
    for pulling in crowd[::3]:
        pulling.cancel()
    for thread, _ in running:
        thread.join()
    for at, (_, errors) in enumerate(running):
        assert all(isinstance(error, Cancelled) for error in errors)
        assert not errors or at % 3 == 0
    assert len(contents(paths)[1]) == 3
    assert leftovers(paths) == []
    assert store.downloads._running == {}


def test_a_failure_in_anothers_hands_is_tried_anew(store, registry):
    """Two repositories have the same layer; the one that began the download breaks off."""
    layer = big()
    with PythonRegistry() as other:
        for server in (registry, other):
            server.store.put("app", "1", make_image([layer]))
        reached, gate = threading.Event(), threading.Event()

        @registry.rule(f"GET /v2/app/blobs/{digest(layer)}")
        def never(exchange):
            reached.set()
            gate.wait(60)
            exchange.error(404, "BLOB_UNKNOWN", "blob unknown to registry")

        one = in_thread(lambda: pull(store, registry.address))
        assert reached.wait(30)
        two = in_thread(lambda: pull(store, other.address))
        download = store.downloads._running[digest(layer)]
        while len(download.watchers) < 2:
            pass
        gate.set()
        one[0].join()
        two[0].join()
        assert [str(error) for error in one[1]] == ["unknown blob"]
        assert two[1] == []
        assert store.resolve(f"{other.address}/app:1")


def test_a_removal_leaves_what_a_pull_relies_on(store, registry):
    base, top = small("base"), big()
    registry.store.put("old", "1", make_image([base]))
    registry.store.put("app", "1", make_image([base, top]))
    pull(store, registry.address, "old:1")
    gate = Gate(registry, top)
    thread, errors = in_thread(lambda: pull(store, registry.address))
    assert gate.reached.wait(30)
    store.remove(f"{registry.address}/old:1", users=nobody)
    gate.open()
    thread.join()
    assert errors == []
    assert len(store.lower_dirs(store.resolve(f"{registry.address}/app:1"))) == 2


def test_a_full_disk_gets_its_space_back(monkeypatch, store, paths, registry):
    real = os.statvfs

    def nearly_full(path):
        status = list(real(path))
        status[4] = 10  # f_bavail
        return os.statvfs_result(status)

    registry.store.put("app", "1", make_image([big()]))
    store.content.partial("sha256:" + "0" * 64).write_bytes(b"of another")
    monkeypatch.setattr(os, "statvfs", nearly_full)
    with pytest.raises(Unavailable, match="no space left on device"):
        pull(store, registry.address)
    assert contents(paths) == ([], [])
    assert partials(paths) == ["partial-" + "0" * 64]


def test_a_disk_that_lets_nothing_go_stops_no_later_pull(monkeypatch, store, registry):
    registry.store.put("app", "1", make_image([small("a"), gzip.compress(b"no archive" * 100)]))
    good = registry.store.put("app", "2", make_image([small("a")]))

    def read_only(path):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patched:
        patched.setattr(store.downloads._layers, "discard", read_only)
        with pytest.raises(WherryError):
            pull(store, registry.address)
    pull(store, registry.address, "app:2")
    assert store.resolve(digest(good.config))
    assert store.downloads._running == {}


def test_slow_layers_leave_room_for_others_to_be_unpacked(store, registry):
    slow = [big("one"), big("two")]
    registry.store.put("slow", "1", make_image(slow))
    registry.store.put("app", "1", make_image([small("a")]))
    gates = [Gate(registry, layer) for layer in slow]
    running, errors = in_thread(lambda: pull(store, registry.address, "slow:1"))
    assert all(gate.reached.wait(30) for gate in gates)
    other, others = in_thread(lambda: pull(store, registry.address))
    other.join()
    assert [store.downloads._running[digest(layer)].fetched for layer in slow] == [False, False]
    for gate in gates:
        gate.open()
    running.join()
    assert (errors, others) == ([], [])


def test_a_download_that_waits_is_cancelled_twice(store, registry):
    layer = big()
    registry.store.put("app", "1", make_image([layer, small("a")]))
    store.downloads.resize(1)
    gate = Gate(registry, layer)
    running = pull_of(store, registry.address)
    thread, errors = in_thread(running.run)
    assert gate.reached.wait(30)
    while len(store.downloads._running) < 2:
        pass
    waits = store.downloads._running[digest(small("a"))]
    waits.cancel()
    waits.cancel()
    running.cancel()
    thread.join()
    gate.open()
    assert [isinstance(error, Cancelled) for error in errors] == [True]


def test_rests_are_dropped_when_they_are_old_or_many(store, paths):
    for at, age in enumerate((100, 50, 0)):
        path = store.content.partial("sha256:" + str(at) * 64)
        path.write_bytes(bytes(10))
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    assert store.content.drop_partials({}, age_s=70, total=1000) == 10
    assert store.content.drop_partials({}, age_s=70, total=10) == 10
    assert partials(paths) == ["partial-" + "2" * 64]
    assert store.downloads.drop_partials() == 10
    assert partials(paths) == []
