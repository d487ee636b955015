"""`wherry image bootstrap`: a base image out of a distribution's own package archive.

mmdebstrap makes the tree, or debootstrap where that is not installed. The first writes the layer itself, the same to
the bit for the same packages and SOURCE_DATE_EPOCH (mmdebstrap(1)); for the second the layer is written here, without
the logs and caches it leaves, and no time in it is later than SOURCE_DATE_EPOCH.
"""

import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, BinaryIO, NamedTuple

from wherry.hostimage.archive import HashedFile, image_config, write_archive
from wherry.hostimage.collect import PATH

_COPY = 1 << 20
_LINES_SHOWN = 5
_LEFT_BEHIND = ("var/cache/apt/archives", "var/cache/ldconfig", "var/lib/apt/lists", "var/log")


class BootstrapError(Exception):
    """The tree could not be made; says what to do where that is known."""


class Wanted(NamedTuple):
    """What to make: `mirror` "" is the tool's own for the suite; `apt_options` are lines of apt.conf."""

    distribution: str
    suite: str
    mirror: str = ""
    variant: str = "minbase"
    include: Sequence[str] = ()
    apt_options: Sequence[str] = ()


def parse_name(text: str) -> tuple[str, str]:
    """ "debian:bookworm" as distribution and suite. Raises BootstrapError."""
    distribution, colon, suite = text.partition(":")
    words = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
    if not colon or not distribution or not suite or suite.startswith("-") or not set(suite) <= words:
        raise BootstrapError(f'"{text}": name a distribution and a release of it, as in debian:bookworm')
    return distribution, suite


def bootstrap(
    out: BinaryIO,
    wanted: Wanted,
    name: str,
    progress: Callable[[str], None],
    *,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Write a docker-archive with the image called `name` to `out` and return its id. `progress` gets the tool's lines.
    SOURCE_DATE_EPOCH is taken from `environment` (os.environ when not given).

    Raises BootstrapError, OSError, ValueError for a SOURCE_DATE_EPOCH that is no number.
    """
    environment = os.environ if environment is None else environment
    epoch = int(environment["SOURCE_DATE_EPOCH"]) if environment.get("SOURCE_DATE_EPOCH") else None
    with tempfile.TemporaryFile() as file:
        layer = HashedFile(file)
        _tool()(wanted, layer, epoch, progress, environment)
        file.seek(0)
        moment = int(time.time()) if epoch is None else epoch
        config = {"Cmd": ["bash"], "Env": [f"PATH={PATH}"]}
        said = f"wherry image bootstrap {wanted.distribution}:{wanted.suite}"
        document = image_config(layer.digest, config, said, moment)
        return write_archive(out, name, file, layer.size, document, moment)


_Tool = Callable[[Wanted, HashedFile, int | None, Callable[[str], None], Mapping[str, str]], None]


def _tool() -> _Tool:
    if shutil.which("mmdebstrap"):
        return _mmdebstrap
    if shutil.which("debootstrap"):
        return _debootstrap
    raise BootstrapError("mmdebstrap or debootstrap is needed for this: apt-get install mmdebstrap")


def _mmdebstrap(
    wanted: Wanted,
    layer: HashedFile,
    epoch: int | None,
    progress: Callable[[str], None],
    environment: Mapping[str, str],
) -> None:
    command = ["mmdebstrap", f"--variant={wanted.variant}", "--format=tar"]
    command += [f"--include={package}" for package in wanted.include]
    command += [f"--aptopt={option}" for option in wanted.apt_options]
    command += ["--", wanted.suite, "-", *([wanted.mirror] if wanted.mirror else [])]
    _run(command, progress, environment, layer)


def _debootstrap(
    wanted: Wanted,
    layer: HashedFile,
    epoch: int | None,
    progress: Callable[[str], None],
    environment: Mapping[str, str],
) -> None:
    if os.geteuid() != 0:
        raise BootstrapError("debootstrap works for root alone: apt-get install mmdebstrap")
    if wanted.apt_options:
        raise BootstrapError("debootstrap takes no apt options: apt-get install mmdebstrap")
    with tempfile.TemporaryDirectory(prefix="wherry-bootstrap-") as root:
        command = ["debootstrap", f"--variant={wanted.variant}"]
        command += [f"--include={','.join(wanted.include)}"] if wanted.include else []
        command += ["--", wanted.suite, root, *([wanted.mirror] if wanted.mirror else [])]
        _run(command, progress, environment, None)
        _write_layer(root, layer, epoch)


def _run(
    command: list[str], progress: Callable[[str], None], environment: Mapping[str, str], out: HashedFile | None
) -> None:
    """Run it with its standard output going to `out`, or to `progress` with the rest of what it says. Raises
    BootstrapError with its last lines when it fails."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said if out is not None else subprocess.STDOUT,
            env=dict(environment),
        )
        lines: list[str] = []
        with process:
            assert process.stdout is not None
            if out is not None:
                shutil.copyfileobj(process.stdout, out, _COPY)
            else:
                for line in process.stdout:
                    lines.append(line.decode("utf-8", "replace").rstrip())
                    progress(lines[-1])
        said.seek(0)
        lines += said.read().decode("utf-8", "replace").splitlines()
    if process.returncode != 0:
        raise BootstrapError(_why(command[0], lines))


def _why(tool: str, lines: list[str]) -> str:
    text = "\n".join(f"  {line}" for line in [line for line in lines if line.strip()][-_LINES_SHOWN:])
    hint = ""
    if any("NO_PUBKEY" in line or "keyring" in line.lower() or "unknown key" in line for line in lines):
        hint = "\nThe keys of the distribution's archive are missing here: install its keyring package"
    return f"{tool} failed:\n{text}{hint}"


def _write_layer(root: str, layer: HashedFile, epoch: int | None) -> None:
    with tarfile.open(fileobj=layer, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(_paths(root)):
            if stat.S_ISSOCK(os.lstat(os.path.join(root, path)).st_mode):
                continue
            info = tar.gettarinfo(os.path.join(root, path), path)
            info.uname = info.gname = ""
            info.mtime = int(info.mtime) if epoch is None else min(int(info.mtime), epoch)
            _add(tar, info, os.path.join(root, path))


def _add(tar: tarfile.TarFile, info: tarfile.TarInfo, path: str) -> None:
    if not info.isreg():
        tar.addfile(info)
        return
    content: IO[bytes]
    with open(path, "rb") as content:
        tar.addfile(info, content)


def _paths(root: str) -> list[str]:
    """All that is in the tree but what only tells of its making."""
    found = []
    for directory, names, files in os.walk(root):
        base = os.path.relpath(directory, root)
        prefix = "" if base == "." else f"{base}/"
        found += [prefix + name for name in names]
        if not base.startswith(_LEFT_BEHIND):
            found += [prefix + name for name in files]
    return [path for path in found if not path.startswith("var/lib/apt/lists/")]
