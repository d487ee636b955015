"""Archives that mean harm, by the hundred: (name, bytes), for `test_evil`.

CVE-2014-9358, CVE-2014-6407, CVE-2014-9356, CVE-2026-17106, CVE-2021-29136, CVE-2017-14992, CVE-2023-25153,
CVE-2021-21285, CVE-2021-41190, CVE-2024-3727, CVE-2014-8179, CVE-2021-20291, CVE-2025-8194, CVE-2019-20907.
"""

import bz2
import gzip
import json
import lzma

from tests.images import mkimg
from tests.images.mkimg import (
    archive,
    blob,
    descriptor,
    digest,
    directory,
    docker_archive,
    file,
    hardlink,
    pax,
    symlink,
)
from tests.images.shop import BASE, TOP
from wherry.images.archive.compression import zstd

OCI_DOCUMENT, OCI_MEMBERS = mkimg.oci_manifest([BASE, TOP])
LAYOUT = mkimg.oci_layout([descriptor(OCI_DOCUMENT, mkimg.MANIFEST)], OCI_MEMBERS)
ARCHIVE = docker_archive([BASE, TOP], ["evil:1"])
CONFIG = mkimg.config([BASE])


def manifest(value) -> bytes:
    """A docker-archive whose manifest.json is `value`."""
    return docker_archive([BASE], manifest=value)


def item(**fields) -> list:
    return [{"Config": "c.json", "RepoTags": ["evil:1"], "Layers": ["l0/layer.tar"]} | fields]


def truncations():
    """CVE-2021-20291, CVE-2025-8194: cut at every boundary, just before and just behind it."""
    for name, data in (("archive", ARCHIVE), ("layout", LAYOUT)):
        for at in range(0, len(data) - 1024, 512):
            for cut in {max(at - 1, 0), at, at + 1}:
                yield f"{name} cut at {cut}", data[:cut]
        for kind, compress in (
            ("gzip", gzip.compress),
            ("zstd", zstd.compress),
            ("xz", lzma.compress),
            ("bzip2", bz2.compress),
        ):
            whole = compress(data)
            for cut in {1, 5, 10, 18, len(whole) // 2, len(whole) - 9, len(whole) - 1}:
                yield f"{name} in {kind} cut at {cut}", whole[:cut]


def documents():
    """CVE-2021-21285, CVE-2023-25153, CVE-2014-9358, CVE-2024-3727: what names what."""
    names = (
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        ".",
        "",
        "/",
        "l0",
        "l0/layer.tar/",
        "c.json/../c.json/x",
        "\0",
        "a" * 5000,
    )
    for name in names:
        yield f"config {name[:20]!r}", manifest(item(Config=name))
        yield f"layer {name[:20]!r}", manifest(item(Layers=[name]))
    yield "config is the layer", manifest(item(Config="l0/layer.tar"))
    yield "layer is the config", manifest(item(Layers=["c.json"]))
    yield "the manifest is the layer", manifest(item(Layers=["manifest.json"]))
    yield "a thousand layers", manifest(item(Layers=["l0/layer.tar"] * 1000))
    yield "a thousand times", manifest(item() * 1000)
    tags = ("", ":", "a:", ":a", "a b:1", "A:1", "a:b:c", "../x:1", "a" * 300 + ":1", "x:" + "t" * 200, "sha256:" + "0" * 64,
            "x@sha256:" + "0" * 64, "0" * 64 + ":1", "\ud800:1", "x:1\n")  # fmt: skip
    for tag in tags:
        yield f"tag {tag[:20]!r}", manifest(item(RepoTags=[tag]))
    for parent in ("x", "sha256:../../x", "sha256:" + "0" * 64, digest(CONFIG), "md5:" + "0" * 32):
        yield f"parent {parent[:20]!r}", manifest(item(Parent=parent))
    for diff_id in (
        "",
        "sha256:",
        "sha256:../../x",
        "sha256:" + "Z" * 64,
        "md5:" + "0" * 32,
        "sha512:" + "0" * 128,
        "x" * 10**6,
    ):
        wrong = json.dumps(json.loads(CONFIG) | {"rootfs": {"type": "layers", "diff_ids": [diff_id]}}).encode()
        yield f"diff id {diff_id[:20]!r}", docker_archive([BASE], config_data=wrong)
        entry = {**descriptor(OCI_DOCUMENT, mkimg.MANIFEST), "digest": diff_id}
        yield f"digest {diff_id[:20]!r}", mkimg.oci_layout([entry], OCI_MEMBERS)
    yield "a config of 9 MiB", docker_archive([BASE], config_data=CONFIG[:-1] + b',"x":"' + b"x" * (9 << 20) + b'"}')
    yield "not UTF-8", docker_archive([BASE], config_data=CONFIG.replace(b"amd64", b"\xff\xfe"))
    for kind, text in {
        "deep list": b"[" * 10**5,
        "deep object": b'{"a":' * 10**5,
        "number": b"1" * 10**6,
        "nan": b"NaN",
    }.items():
        for name in ("manifest.json", "index.json", "repositories"):
            yield f"{name} is a {kind}", archive(file(name.encode(), text))


def indexes():
    """CVE-2021-41190 and its kind: documents that lie about themselves, and lists without end."""

    def nested(depth: int) -> tuple[dict, list[bytes]]:
        inner, members = descriptor(OCI_DOCUMENT, mkimg.MANIFEST), list(OCI_MEMBERS)
        for _ in range(depth):
            document = json.dumps({"schemaVersion": 2, "mediaType": mkimg.INDEX, "manifests": [inner]}).encode()
            inner = descriptor(document, mkimg.INDEX)
            members.append(blob(document))
        return inner, members

    for depth in (1, 3, 6, 40):
        top, members = nested(depth)
        yield f"indexes {depth} deep", mkimg.oci_layout([top], members)
    itself = json.dumps(
        {"schemaVersion": 2, "manifests": [{"mediaType": mkimg.INDEX, "digest": digest(b"i"), "size": 9}]}
    )
    cycle = file(b"blobs/sha256/" + digest(b"i")[7:].encode(), itself.encode())
    yield (
        "an index that lists itself",
        mkimg.oci_layout([{"mediaType": mkimg.INDEX, "digest": digest(b"i"), "size": 9}], [cycle]),
    )
    many = [{"mediaType": mkimg.MANIFEST, "digest": digest(b"%d" % n), "size": n} for n in range(20_000)]
    yield "twenty thousand that are not there", mkimg.oci_layout(many, [])
    yield (
        "the same ten thousand times",
        mkimg.oci_layout([descriptor(OCI_DOCUMENT, mkimg.MANIFEST)] * 10_000, OCI_MEMBERS),
    )
    for size in (-1, 0, 1, 2**63, 2**64, 1e300):
        yield (
            f"size {size}",
            mkimg.oci_layout([{**descriptor(OCI_DOCUMENT, mkimg.MANIFEST), "size": size}], OCI_MEMBERS),
        )
    for kind in ("", "application/x", mkimg.INDEX, mkimg.CONFIG, mkimg.LAYER):
        yield (
            f"media type {kind}",
            mkimg.oci_layout([{**descriptor(OCI_DOCUMENT, mkimg.MANIFEST), "mediaType": kind}], OCI_MEMBERS),
        )
    for member in range(len(OCI_MEMBERS)):
        changed = OCI_MEMBERS[member][:512] + bytes([OCI_MEMBERS[member][512] ^ 1]) + OCI_MEMBERS[member][513:]
        members = [*OCI_MEMBERS[:member], changed, *OCI_MEMBERS[member + 1 :]]
        yield (
            f"member {member} is not what its digest says",
            mkimg.oci_layout([descriptor(OCI_DOCUMENT, mkimg.MANIFEST)], members),
        )
    names = (
        {"org.opencontainers.image.ref.name": name} for name in ("../../x", "UPPER/x:1", "\0", "a" * 5000, "x:1:2", "-")
    )
    for annotations in names:
        entry = {**descriptor(OCI_DOCUMENT, mkimg.MANIFEST), "annotations": annotations}
        yield f"called {next(iter(annotations.values()))[:20]!r}", mkimg.oci_layout([entry], OCI_MEMBERS)


def headers():
    """CVE-2019-20907, CVE-2024-6232, CVE-2025-8194, CVE-2017-14992: the outer archive's own headers."""
    for size in (
        b"-0000000001\0",
        b"99999999999\0",
        b"\x80" + b"\xff" * 11,
        b"\xff" * 12,
        b"x" * 12,
        b" " * 12,
        b"7" * 12,
    ):
        yield f"size field {size!r}", mkimg.header(b"manifest.json", raw_size=size) + ARCHIVE
    for key, value in ((b"size", b"-1"), (b"size", b"9" * 30), (b"size", b"x"), (b"path", b"a\0b"), (b"path", b"/" * 5000),
                       (b"path", b""), (b"mtime", b"9" * 400), (b"mtime", b"nan"), (b"uid", b"-5"), (b"GNU.sparse.size", b"9" * 19),
                       (b"GNU.sparse.map", b"0,1,0,1"), (b"GNU.sparse.major", b"1"), (b"linkpath", b"x" * 10**5),
                       (b"SCHILY.xattr.trusted.overlay.redirect", b"/"), (b"hdrcharset", b"x"), (b"comment", b"x" * 900_000)):  # fmt: skip
        yield f"pax {key!r} {value[:9]!r}", pax(b"manifest.json", [(key, value)], content=b"[]") + ARCHIVE
        yield (
            f"layer with pax {key!r} {value[:9]!r}",
            docker_archive([archive(pax(b"x", [(key, value)], content=b"x"))]),
        )
    for body in (
        b"5 a=\n",
        b"0 a=b\n",
        b"-1 a=b\n",
        b"99 a=b\n",
        b"a=b\n",
        b"6 a=b",
        b" 6 a=b\n",
        b"\n" * 100,
        b"9" * 25 + b" a=b\n",
    ):
        bad = mkimg.header(b"x", type=b"x", content=body)
        yield f"pax body {body[:9]!r}", bad + ARCHIVE
        yield f"layer with pax body {body[:9]!r}", docker_archive([archive(bad, file(b"x"))])
    for kind in b"\x00\x01AVMNDg\xff":
        yield f"type {kind}", mkimg.header(b"manifest.json", type=bytes([kind]), content=b"x") + ARCHIVE
        yield f"layer with type {kind}", docker_archive([archive(mkimg.header(b"x", type=bytes([kind]), content=b"x"))])
    for name in (b"", b"..", b"../../x", b"/abs", b"a/../..", b"a" * 100, b"\xff\xfe", b"./././", b"a\nb"):
        yield f"member {name!r}", file(name, b"x") + ARCHIVE
    twice = file(b"manifest.json", b"[]") + ARCHIVE
    yield "two manifests", twice
    yield "two manifests, the second bad", ARCHIVE[:-1024] + archive(file(b"manifest.json", b"{"))
    yield "two layers of one name", file(b"l0/layer.tar", TOP) + ARCHIVE
    yield "two configs", file(b"c.json", b"{}") + ARCHIVE
    for target in (b"manifest.json", b"/etc/passwd", b"../../../../etc/passwd", b"l0/layer.tar", b"nowhere"):
        for link in (symlink, hardlink):
            rest = archive(file(b"c.json", CONFIG), file(b"l0/layer.tar", BASE))
            yield f"manifest.json is a {link.__name__} to {target!r}", link(b"manifest.json", target) + rest
            yield (
                f"a {link.__name__} as layer to {target!r}",
                docker_archive([BASE], manifest=item(Layers=["k"]), extra=[link(b"k", target)]),
            )
    for kind in b"346":
        yield (
            f"manifest.json is of type {kind}",
            archive(mkimg.header(b"manifest.json", type=bytes([kind]), device=(8, 0))),
        )
    yield (
        "a chain of links",
        archive(*[symlink(b"m%d" % n, b"m%d" % (n + 1)) for n in range(100)], file(b"manifest.json", b"[]")),
    )


def trees(outside: str):
    """CVE-2014-6407, CVE-2014-9356, CVE-2026-17106, CVE-2021-29136, CVE-2021-32760: what a layer asks for."""
    place = outside.encode()
    links = (
        place,
        place + b"/dir",
        b"/",
        b"..",
        b"../../../../.." + place,
        b"/proc/self/root" + place,
        b"/proc/self/cwd",
        b"a",
        b"",
    )
    for target in links:
        for what, then in {
            "a file": file(b"a/file", b"evil"),
            "a file in its place": file(b"a", b"evil"),
            "a directory": directory(b"a/dir/", mode=0o777),
            "a mode": directory(b"a/", mode=0o777),
            "a hard link": hardlink(b"h", b"a/file"),
            "a hard link to it": hardlink(b"h", b"a"),
            "a whiteout": file(b"a/.wh.file"),
            "an opaque mark": file(b"a/.wh..wh..opq"),
            "a node": mkimg.header(b"a/node", type=b"3", device=(1, 1)),
            "a fifo": mkimg.header(b"a/fifo", type=b"6"),
            "a link": symlink(b"a/link", place),
            "an attribute": pax(b"a/file", [(b"SCHILY.xattr.user.x", b"y")], content=b"evil"),
        }.items():
            yield f"{what} through a link to {target[-24:]!r}", archive(symlink(b"a", target), then)
    for target in (
        place + b"/file",
        b".." + place + b"/file",
        b"../" * 20 + place[1:] + b"/file",
        b"",
        b"/",
        b".",
        b"x",
    ):
        yield f"a hard link to {target[-24:]!r}", archive(hardlink(b"h", target), file(b"h", b"evil"))
    for name in (
        b".wh.",
        b".wh..",
        b".wh...",
        b".wh..wh.",
        b".wh..wh..opq/x",
        b"a/.wh.../..",
        b".wh./a",
        b"/.wh." + place,
    ):
        yield f"whiteout {name[:24]!r}", archive(file(name))
    for kind in b"12346":
        yield f"the root as type {kind}", archive(mkimg.header(b"./", type=bytes([kind]), link=place))
        yield f"nameless of type {kind}", archive(mkimg.header(b"", type=bytes([kind]), link=place))
    for device in ((8, 0), (1, 1), (0, 0), (4095, 1), (2**20, 2**20)):
        yield (
            f"device {device}",
            archive(mkimg.header(b"d", type=b"4", device=device), mkimg.header(b"c", type=b"3", device=device)),
        )
