"""Pulls without an engine, and images for them."""

import json
import os
import threading

from tests.registry.servers import INDEX, MANIFEST, make_layer
from wherry.images.platforms import parse as parse_platform
from wherry.images.pool import Pool
from wherry.images.pull import Pull
from wherry.images.push import CONCURRENT, Push
from wherry.images.references import parse
from wherry.registry.client import Registry
from wherry.registry.config import RegistryConfig

QUICK = RegistryConfig(attempts=2, backoff=0.01, stall_timeout=10)


def pull_of(store, address, name="app:1", *, platform=None, lines=None):
    """A pull of `name` from the registry at `address`; its lines go to `lines`."""
    report = (lambda _: None) if lines is None else lines.append
    reference = parse(f"{address}/{name}")
    wanted = parse_platform(platform) if platform else None
    return Pull(store, Registry(QUICK), reference, platform=wanted, report=report)


def pull(store, address, name="app:1", **options):
    """Pull, and return the progress lines as (status, id)."""
    lines = []
    pull_of(store, address, name, lines=lines, **options).run()
    return [(line["status"], line.get("id", "")) for line in lines]


def settled(lines):
    """Those that do not depend on how fast everything went."""
    passing = ("Downloading", "Extracting", "Verifying Checksum", "Download complete", "Waiting")
    return [line for line in lines if line[0] not in passing]


def small(name, text=b"small"):
    return make_layer({name: text})


def big(name="big", size=3 << 20):
    """A layer that takes several reads, and is worth keeping when it is interrupted."""
    return make_layer({name: os.urandom(size)})


def index_of(*entries, media_type=INDEX):
    """The bytes of an index of (image, platform as a dict)."""
    manifests = [
        {"mediaType": MANIFEST, "digest": image.digest, "size": len(image.manifest), "platform": platform}
        for image, platform in entries
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}).encode()


def changed(image, **fields):
    """The image with other fields in its manifest."""
    document = json.loads(image.manifest) | fields
    return type(image)(json.dumps(document).encode(), image.config, image.layers, image.media_type)


def config_type(kind):
    """Makes an image whose config says that it is a `kind`."""
    return lambda image: changed(image, config=json.loads(image.manifest)["config"] | {"mediaType": kind})


def in_thread(function):
    """Run `function` in a thread: (thread, list that gets its exception)."""
    errors = []

    def run():
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def push_of(store, address, name="app:1", *, lines=None):
    """A push of `name` to the registry at `address`; its lines go to `lines`."""
    report = (lambda _: None) if lines is None else lines.append
    return Push(store, Registry(QUICK), parse(f"{address}/{name}"), uploads=Pool(CONCURRENT, "upload"), report=report)


def push(store, address, name="app:1"):
    """Push, and return the progress lines."""
    lines = []
    push_of(store, address, name, lines=lines).run()
    return lines
