"""What the runtime finds mounted on the host's side: the root file system, and sources it could not bind by itself.

All of it in a mount namespace of the caller's own. The host's mounts are not made private there as a whole: a bind
that asks for propagation must stay a peer of the host's mount. Only the mount the bundle lies on becomes private, so
that nothing mounted in the bundle spreads; for binds that come from just there, a copy made before takes its place.
"""

import errno
import os
from typing import Any

from wherry.linux import mounts as m
from wherry.linux import namespaces as ns
from wherry.linux.openat import O_PATH
from wherry.runtime import mount_options, rootfs, shared_memory
from wherry.runtime.failure import StartError, words

_PROPAGATING = frozenset(("shared", "rshared", "slave", "rslave"))


def prepare(config: dict[str, Any], bundle: str, rootfs_mounts: list[dict[str, Any]]) -> None:
    """Leave the mount namespace for a new one and mount there what `config`, which is changed where a source has
    another path now, needs. Raises StartError."""
    entries = config.get("mounts") or []
    try:
        ns.unshare(ns.CLONE_NEWNS)
        binds = [entry for entry in entries if _is_bind(entry)]
        for entry in binds:
            _read_only_file(entry)
        copies = [(entry, _copy(entry)) for entry in binds]
        _make_private(bundle)
        for overlay in rootfs_mounts:
            _mount_root(config["root"]["path"], overlay)
        for number, (entry, copy) in enumerate(copies):
            if copy >= 0:
                _attach(entry, copy, os.path.join(bundle, f"mount-{number}"))
    except OSError as error:
        raise StartError("Internal", f"error mounting for the runtime: {error.filename}: {words(error)}") from None


def _is_bind(entry: dict[str, Any]) -> bool:
    return entry.get("type") == "bind" or not {"bind", "rbind"}.isdisjoint(entry.get("options") or ())


def _read_only_file(entry: dict[str, Any]) -> None:
    """A file has no mounts below it to be made read-only, too; crun before 1.9 looks for a directory then."""
    options = entry.get("options") or []
    if "rro" in options and os.path.isfile(entry["source"]):
        entry["options"] = ["ro" if option == "rro" else option for option in options]


def _copy(entry: dict[str, Any]) -> int:
    """A detached copy of the bind's source, -1 where the runtime can bind it by itself."""
    source = entry["source"]
    if shared_memory.names_another(source):
        return shared_memory.copy_mount(source)
    if _PROPAGATING.isdisjoint(entry.get("options") or ()):
        return -1
    return m.open_tree(m.AT_FDCWD, source, m.AT_RECURSIVE)


def _attach(entry: dict[str, Any], copy: int, place: str) -> None:
    if shared_memory.names_another(entry["source"]):
        os.mkdir(place, 0o700)
        entry["source"] = place
    target = os.open(entry["source"], O_PATH | os.O_CLOEXEC)
    try:
        m.move_mount(copy, target)
    finally:
        os.close(target)
        os.close(copy)


def _make_private(path: str) -> None:
    """The mount that `path` lies on: mount(2) says EINVAL for what is no mount point."""
    while True:
        try:
            m.mount("", path, flags=m.MS_PRIVATE)
            return
        except OSError as error:
            if error.errno != errno.EINVAL or path == "/":
                raise
        path = os.path.dirname(path)


def _mount_root(path: str, overlay: dict[str, Any]) -> None:
    options = mount_options.parse(overlay.get("options") or ())
    target = os.open(path, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lower, upper, work = tuple(overlay["lower"]), overlay.get("upper") or "", overlay.get("work") or ""
        os.close(rootfs.attach_overlay(target, lower, upper, work, options.data))
    finally:
        os.close(target)
