"""`wherry image from-host`: a docker-archive of this host's programs, to be loaded into any engine.

The same files give the same archive, bit for bit: members sorted, owners root, times of the files' own (or all that
of SOURCE_DATE_EPOCH), the image's time that of its newest file. File capabilities are not taken over.
"""

import io
import os
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, Any, BinaryIO

from wherry.hostimage.archive import HashedFile, image_config, write_archive
from wherry.hostimage.collect import PATH, Collector
from wherry.hostimage.tree import Node, Tree

# Where these are links into /usr, the image is laid out the same way.
_MERGED = ("/bin", "/lib", "/lib64", "/sbin")
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
_GROUP = b"root:x:0:\nnogroup:x:65534:\n"
_NSSWITCH = b"passwd: files\ngroup: files\nhosts: files dns\nnetworks: files\nservices: files\nprotocols: files\n"


def build_archive(
    out: BinaryIO,
    name: str,
    programs: Sequence[str],
    with_paths: Sequence[str] = (),
    python: bool = False,
    *,
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """Write a docker-archive with one image called `name` to `out`.

    `programs` are paths or names looked up in PATH, the first becomes the image's command; `with_paths` are files and
    directories to add; `python` adds the interpreter and its standard library. SOURCE_DATE_EPOCH is taken from
    `environment` (os.environ when not given). Returns the paths in the image. Raises `MissingError` when something is
    not on this host, OSError, ValueError for a SOURCE_DATE_EPOCH that is no number.
    """
    environment = os.environ if environment is None else environment
    epoch = int(environment["SOURCE_DATE_EPOCH"]) if environment.get("SOURCE_DATE_EPOCH") else None
    tree = Tree()
    for path in _MERGED:
        if os.path.islink(path):
            tree.take(path)
    collector = Collector(tree)
    paths = [collector.program(program) for program in programs]
    if python:
        paths.append(collector.python())
    for path in with_paths:
        collector.path(path)
    _add_essentials(tree)
    newest = max((node.mtime for node in tree.nodes.values()), default=0) if epoch is None else epoch
    with tempfile.TemporaryFile() as layer:
        diff_id, size = _write_layer(layer, tree, epoch)
        layer.seek(0)
        write_archive(out, name, layer, size, _config(diff_id, paths, newest), newest)
    return paths


def _add_essentials(tree: Tree) -> None:
    """What programs expect of a root file system, where the host's own was not taken."""
    for path, mode in (("/tmp", 0o1777), ("/var/tmp", 0o1777), ("/root", 0o700)):
        tree.directory(path, mode)
    for path in ("/dev", "/etc", "/proc", "/run", "/sys", "/usr/bin"):
        if not tree.has(path):
            tree.directory(path)
    for path, data in (("/etc/passwd", _PASSWD), ("/etc/group", _GROUP), ("/etc/nsswitch.conf", _NSSWITCH)):
        if not tree.has(path):
            tree.file(path, data)


def _write_layer(file: IO[bytes], tree: Tree, epoch: int | None) -> tuple[str, int]:
    hashed = HashedFile(file)
    with tarfile.open(fileobj=hashed, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(tree.nodes):
            _write_node(tar, path, tree.nodes[path], epoch)
    return hashed.digest, hashed.size


def _write_node(tar: tarfile.TarFile, path: str, node: Node, epoch: int | None) -> None:
    info = tarfile.TarInfo(path.lstrip("/"))
    info.mode = node.mode
    info.mtime = node.mtime if epoch is None else epoch
    if node.kind == "directory":
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    elif node.kind == "link":
        info.type = tarfile.SYMTYPE
        info.linkname = node.target
        tar.addfile(info)
    elif node.source:
        with open(node.source, "rb") as source:
            info.size = os.fstat(source.fileno()).st_size
            tar.addfile(info, source)
    else:
        info.size = len(node.data)
        tar.addfile(info, io.BytesIO(node.data))


def _config(diff_id: str, paths: list[str], moment: int) -> bytes:
    config: dict[str, Any] = {"Env": [f"PATH={PATH}"]}
    if paths:
        config["Cmd"] = [paths[0]]
    return image_config(diff_id, config, "wherry image from-host " + " ".join(paths), moment)
