"""Makers of archives, good and evil: raw tar headers without any validation, docker-archives and OCI layouts."""

import hashlib
import io
import json
import struct


def header(
    name=b"",
    *,
    type=b"0",
    mode=0o644,
    uid=0,
    gid=0,
    size=None,
    content=b"",
    mtime=0,
    link=b"",
    magic=b"ustar\x0000",
    device=(0, 0),
    checksum=None,
    prefix=b"",
    raw_size=None,
):
    """One header block with its content and padding; every field can be nonsense."""
    length = len(content) if size is None else size
    block = bytearray(512)

    def put(at, data, width):
        block[at : at + width] = data[:width].ljust(width, b"\0")

    put(0, name, 100)
    put(100, b"%07o" % mode, 8)
    put(108, b"%07o" % uid if uid < 1 << 21 else b"\x80" + uid.to_bytes(7, "big"), 8)
    put(116, b"%07o" % gid if gid < 1 << 21 else b"\x80" + gid.to_bytes(7, "big"), 8)
    put(124, raw_size if raw_size is not None else b"%011o" % length, 12)
    put(136, b"%011o" % mtime if mtime >= 0 else b"\xff" + (mtime + (1 << 88)).to_bytes(11, "big"), 12)
    put(148, b" " * 8, 8)
    block[156:157] = type
    put(157, link, 100)
    put(257, magic, 8)
    put(329, b"%07o" % device[0], 8)
    put(337, b"%07o" % device[1], 8)
    put(345, prefix, 155)
    total = sum(block) if checksum is None else checksum
    put(148, b"%06o\0 " % total, 8)
    return bytes(block) + content + bytes(-len(content) % 512)


def pax(name, records, *, type=b"0", content=b"", **fields):
    """A pax extended header and the entry it belongs to."""
    body = b""
    for key, value in records:
        plain = len(key) + len(value) + 3
        total = plain + len(str(plain))
        total = plain + len(str(total))
        body += b"%d %s=%s\n" % (total, key, value)
    return header(b"PaxHeaders/x", type=b"x", content=body) + header(name, type=type, content=content, **fields)


def gnu_long(kind, text):
    """A GNU long name ("L") or long link ("K") record."""
    return header(b"././@LongLink", type=kind, content=text + b"\0", magic=b"ustar  \0")


def directory(name, mode=0o755, **fields):
    return header(name, type=b"5", mode=mode, **fields)


def file(name, content=b"", **fields):
    return header(name, content=content, **fields)


def symlink(name, target):
    return header(name, type=b"2", link=target, mode=0o777)


def hardlink(name, target):
    return header(name, type=b"1", link=target)


def archive(*blocks):
    """The blocks as a complete archive."""
    return b"".join(blocks) + bytes(1024)


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def config(layers, **fields):
    """The config of an image with uncompressed `layers`."""
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-05-06T07:08:09.123456789Z",
            "config": {"Cmd": ["/x"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
            "history": [{"created_by": f"step {n}"} for n in range(len(layers))],
            **fields,
        }
    ).encode()


def docker_archive(layers, tags=("x:latest",), *, blobs=None, manifest=None, config_data=None, extra=()):
    """A docker-archive; `blobs` are the layers as stored (compressed, say)."""
    data = config(layers) if config_data is None else config_data
    blobs = layers if blobs is None else blobs
    members = [file(b"l%d/layer.tar" % n, blob) for n, blob in enumerate(blobs)]
    if manifest is None:
        manifest = [
            {"Config": "c.json", "RepoTags": list(tags), "Layers": [f"l{n}/layer.tar" for n in range(len(blobs))]}
        ]
    if not isinstance(manifest, bytes):
        manifest = json.dumps(manifest).encode()
    return archive(*members, file(b"c.json", data), *extra, file(b"manifest.json", manifest))


def descriptor(data, media_type, **fields):
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **fields}


MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def blob(data):
    return file(b"blobs/sha256/" + digest(data)[7:].encode(), data)


def oci_manifest(layers, *, blobs=None, suffix="", config_data=None):
    """(manifest bytes, members) of an image."""
    data = config(layers) if config_data is None else config_data
    blobs = layers if blobs is None else blobs
    document = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(data, CONFIG),
            "layers": [descriptor(b, LAYER + suffix) for b in blobs],
        }
    ).encode()
    return document, [blob(data), blob(document), *map(blob, blobs)]


def oci_layout(manifests, members):
    """An OCI layout archive; `manifests` are the descriptors of its index."""
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()
    return archive(file(b"oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), file(b"index.json", index), *members)


def stream(data):
    """A stream that gives small, odd pieces, as a socket does."""
    return Dribble(data)


class Dribble(io.RawIOBase):
    def __init__(self, data, piece=4093):
        self._inner = io.BytesIO(data)
        self._piece = piece

    def readable(self):
        return True

    def read(self, size=-1):
        return self._inner.read(self._piece if size < 0 else min(size, self._piece))


def pack_extents(extents):
    return b"".join(struct.pack("12s12s", b"%011o" % offset, b"%011o" % length) for offset, length in extents)
