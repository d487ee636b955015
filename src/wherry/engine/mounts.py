"""From what the client asks for (`-v`, `--mount`, `--volumes-from`, the image's VOLUMEs) to a list of mount points.

`plan` only reads: it checks everything and raises Docker's errors (moby volume/mounts/linux_parser.go). `realise`
makes the volumes that are missing. Later entries of the order volumes-from, binds, mounts, image volumes do not
override earlier explicit ones: two explicit mounts of one destination are refused.
"""

import errno
import os
import posixpath
from typing import TYPE_CHECKING, NamedTuple

from wherry.engine.containers import ContainerStore
from wherry.engine.model import ContainerConfig, HostConfig, Mount, MountPoint
from wherry.engine.validate import clean
from wherry.engine.volumes import check_name
from wherry.errors import InvalidArgument, NotFound, Unimplemented
from wherry.linux.openat import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, openat2

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

_PROPAGATION = frozenset({"private", "rprivate", "slave", "rslave", "shared", "rshared"})
_CONSISTENCY = frozenset({"consistent", "cached", "delegated", "default"})
_OPTION_FIELDS = {
    "bind": "BindOptions",
    "volume": "VolumeOptions",
    "tmpfs": "TmpfsOptions",
    "image": "ImageOptions",
}


class Mode(NamedTuple):
    """What the third field of `-v` says."""

    rw: bool
    propagation: str
    nocopy: bool


def parse_mode(mode: str) -> Mode:
    """Parse "ro,z,rslave"; at most one word of each kind, else Docker's `invalid mode`."""
    counts = dict.fromkeys(("rw", "label", "propagation", "copy", "consistency"), 0)
    rw, propagation, nocopy = True, "", False
    for word in mode.split(",") if mode else ():
        if word in ("rw", "ro"):
            kind, rw = "rw", word == "rw"
        elif word in ("z", "Z"):
            kind = "label"
        elif word in _PROPAGATION:
            kind, propagation = "propagation", word
        elif word == "nocopy":
            kind, nocopy = "copy", True
        elif word in _CONSISTENCY:
            kind = "consistency"
        else:
            raise InvalidArgument(f"invalid mode: {mode}")
        counts[kind] += 1
        if counts[kind] > 1:
            raise InvalidArgument(f"invalid mode: {mode}")
    return Mode(rw, propagation, nocopy)


def parse_bind(spec: str, roots: tuple[str, ...]) -> MountPoint:
    """One `-v` value. A source that is an absolute path is a bind, any other a volume's name; none: anonymous."""
    fields = spec.split(":")
    if len(fields) > 3 or not all(fields[:2]) or (len(fields) == 3 and "/" in fields[2]):
        raise InvalidArgument(f"invalid volume specification: '{spec}'")
    source, destination = (fields[0], fields[1]) if len(fields) > 1 else ("", fields[0])
    mode_text = fields[2] if len(fields) == 3 else ""
    mode = parse_mode(mode_text)
    kind = "bind" if source.startswith("/") else "volume"
    try:
        _check_destination(destination)
        if kind == "bind" and mode.nocopy:
            raise InvalidArgument("field VolumeOptions must not be specified")
        if kind == "volume" and mode.propagation:
            raise InvalidArgument("field BindOptions must not be specified")
    except InvalidArgument as error:
        raise InvalidArgument(
            f"invalid volume specification: '{spec}': invalid mount config for type \"{kind}\": {error}"
        ) from None
    if kind == "bind":
        source = clean(source)
        return MountPoint(
            Type="bind",
            Source=source,
            Destination=clean(destination),
            Mode=mode_text,
            RW=mode.rw,
            Propagation=mode.propagation or _default_propagation(source, roots),
        )
    if source:
        check_name(source, "local")
    return MountPoint(
        Type="volume", Name=source, Destination=clean(destination), Driver="local", Mode=mode_text or "z", RW=mode.rw
    )


def _default_propagation(source: str, roots: tuple[str, ...]) -> str:
    """A bind that contains one of the engine's own roots must not pin the mounts there: rslave, as Docker does."""
    inside = any(f"{root}/".startswith(source.rstrip("/") + "/") for root in roots)
    return "rslave" if inside else "rprivate"


def _check_destination(path: str) -> None:
    if not path:
        raise InvalidArgument("field Target must not be empty")
    if not path.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{path}' mount path must be absolute")
    if clean(path) == "/":
        raise InvalidArgument("invalid specification: destination can't be '/'")


def parse_mount(mount: Mount, roots: tuple[str, ...]) -> MountPoint:
    """One `--mount`; raises Docker's `invalid mount config for type ...`."""
    for kind, name in _OPTION_FIELDS.items():
        if getattr(mount, name) is not None and kind != mount.Type and mount.Type in _OPTION_FIELDS:
            raise InvalidArgument(f'{name} must not be specified on mount type "{mount.Type}"')
    prefix = f'invalid mount config for type "{mount.Type}": '
    try:
        parser = {"bind": _parse_bind_mount, "volume": _parse_volume_mount, "tmpfs": _parse_tmpfs_mount}.get(mount.Type)
        if mount.Type == "image":
            raise Unimplemented("mounts of type image are not supported")
        if parser is None:
            raise InvalidArgument("mount type unknown")
        _check_destination(mount.Target)
        point = parser(mount, roots)
    except InvalidArgument as error:
        raise InvalidArgument(f"{prefix}{error}") from None
    if point.Name:
        check_name(point.Name, point.Driver)
    point.Destination = clean(mount.Target)
    point.RW = not mount.ReadOnly
    point.Spec = mount
    return point


def _parse_bind_mount(mount: Mount, roots: tuple[str, ...]) -> MountPoint:
    if not mount.Source:
        raise InvalidArgument("field Source must not be empty")
    if not mount.Source.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{mount.Source}' mount path must be absolute")
    options = mount.BindOptions
    propagation = options.Propagation if options else ""
    if propagation and propagation not in _PROPAGATION:
        raise InvalidArgument(f"invalid propagation mode: {propagation}")
    source = clean(mount.Source)
    if not (options and options.CreateMountpoint) and not os.path.lexists(source):
        raise InvalidArgument(f"bind source path does not exist: {source}")
    return MountPoint(Type="bind", Source=source, Propagation=propagation or _default_propagation(source, roots))


def _parse_volume_mount(mount: Mount, roots: tuple[str, ...]) -> MountPoint:
    options = mount.VolumeOptions
    if options and options.Subpath and not mount.Source:
        raise InvalidArgument("must not set Subpath when using anonymous volumes")
    if options and options.Subpath and not _is_local(options.Subpath):
        raise InvalidArgument("subpath must be a relative path within the volume")
    driver = (options.DriverConfig.Name if options and options.DriverConfig else "") or "local"
    return MountPoint(Type="volume", Name=mount.Source, Driver=driver, Mode="z")


def _is_local(path: str) -> bool:
    """Whether a path stays below where it starts, by its words alone (Go's filepath.IsLocal)."""
    cleaned = posixpath.normpath(path)
    return not path.startswith("/") and cleaned != ".." and not cleaned.startswith("../")


def subpath(point: MountPoint) -> str:
    """The part of the volume that is mounted; "" for all of it."""
    return point.Spec.VolumeOptions.Subpath if point.Spec and point.Spec.VolumeOptions else ""


def copies(point: MountPoint) -> bool:
    """Whether a volume without content is filled from the image: not what another container has (its source is known),
    nor where `nocopy` says so."""
    options = point.Spec.VolumeOptions if point.Spec else None
    nocopy = "nocopy" in point.Mode.split(",") or bool(options and options.NoCopy)
    return point.Type == "volume" and not point.Source and not nocopy


def open_source(point: MountPoint) -> int:
    """An O_PATH descriptor of what is mounted at `point`. Links in the volume are followed as long as they stay in it.

    Raises OSError for the source, `NotFound` and `InvalidArgument` for a subpath that is not there or leads elsewhere.
    """
    below = subpath(point)
    source = os.open(point.Source, os.O_PATH | os.O_CLOEXEC)
    if not below:
        return source
    try:
        return openat2(source, below, os.O_PATH, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise InvalidArgument(
                f"path concatenation escapes the base directory, base: {point.Source}, subpath: {below}"
            ) from None
        path, text = os.path.join(point.Source, below), (error.strerror or "").lower()
        raise NotFound(f"cannot access path {path}: lstat {path}: {text}") from None
    finally:
        os.close(source)


def _parse_tmpfs_mount(mount: Mount, roots: tuple[str, ...]) -> MountPoint:
    if mount.Source:
        raise InvalidArgument("field Source must not be specified")
    return MountPoint(Type="tmpfs")


def plan(
    config: ContainerConfig, host: HostConfig, containers: ContainerStore, roots: tuple[str, ...]
) -> list[MountPoint]:
    """All mount points of a new container, nothing made yet. Volumes without a name get one in `realise`."""
    points: dict[str, MountPoint] = {}
    for spec in host.VolumesFrom or []:
        for point in _from_container(spec, containers):
            points[point.Destination] = point
    explicit: set[str] = set()
    binds = [parse_bind(spec, roots) for spec in host.Binds or []]
    for point in binds + [parse_mount(mount, roots) for mount in host.Mounts or []]:
        if point.Destination in explicit:
            raise InvalidArgument(f"Duplicate mount point: {point.Destination}")
        if point.Type == "volume" and host.VolumeDriver:
            check_name(point.Name, host.VolumeDriver)
        explicit.add(point.Destination)
        points[point.Destination] = point
    for path in host.Tmpfs or {}:
        _check_destination(path)
        if clean(path) in explicit:
            raise InvalidArgument(f"Duplicate mount point: {clean(path)}")
        points.pop(clean(path), None)
    tmpfs = {clean(path) for path in host.Tmpfs or {}}
    for path in config.Volumes or {}:
        destination = clean(path)
        if destination != "/" and destination not in points and destination not in tmpfs:
            points[destination] = MountPoint(
                Type="volume", Destination=destination, Driver=host.VolumeDriver or "local"
            )
    return list(points.values())


def _from_container(spec: str, containers: ContainerStore) -> list[MountPoint]:
    """`--volumes-from ctr[:ro]`: the other's mounts, its tmpfs ones excepted."""
    ref, _, mode_text = spec.partition(":")
    if not ref:
        raise InvalidArgument("volumes-from specification cannot be an empty string")
    try:
        mode = parse_mode(mode_text)
        other = containers.lookup(ref)
    except (InvalidArgument, NotFound) as error:
        raise InvalidArgument(str(error)) from None
    return [
        MountPoint(
            Type=point.Type,
            Name=point.Name,
            Source=point.Source,
            Destination=point.Destination,
            Driver=point.Driver,
            RW=point.RW and mode.rw,
            Propagation=point.Propagation,
            Spec=point.Spec,
        )
        for point in other.record.mounts
        if point.Type != "tmpfs"
    ]


def realise(engine: "Engine", points: list[MountPoint], made: list[str]) -> None:
    """Make the volumes that do not exist and fill in names and sources. The names of those made here are appended to
    `made` as they come, for a failing create to take back once its transaction is."""
    for point in points:
        if point.Type != "volume" or point.Source:
            continue
        spec = point.Spec
        labels = spec.VolumeOptions.Labels if spec and spec.VolumeOptions else None
        driver = spec.VolumeOptions.DriverConfig if spec and spec.VolumeOptions else None
        volume, new = engine.volumes.create(
            point.Name or None, driver=point.Driver, labels=labels, options=driver.Options if driver else None
        )
        point.Name, point.Source = volume.name, volume.mountpoint
        if new:
            made.append(volume.name)


def undo(engine: "Engine", made: list[str]) -> None:
    """Take back the directories of volumes whose rows a failed transaction took back."""
    for name in made:
        engine.volumes.unmake(name)


def prepare_sources(points: list[MountPoint]) -> None:
    """Before each start, in a worker thread: `-v` makes a missing source directory, `--mount` refuses it."""
    for point in points:
        if point.Type == "volume":
            os.makedirs(point.Source, mode=0o755, exist_ok=True)
        if point.Type != "bind" or os.path.lexists(point.Source):
            continue
        options = point.Spec.BindOptions if point.Spec else None
        if point.Spec is not None and not (options and options.CreateMountpoint):
            raise InvalidArgument(
                f'invalid mount config for type "bind": bind source path does not exist: {point.Source}'
            )
        try:
            os.makedirs(point.Source, mode=0o755)
        except FileExistsError:
            continue
        except OSError as error:
            raise InvalidArgument(
                f"error while creating mount source path '{point.Source}': mkdir {point.Source}: "
                f"{(error.strerror or '').lower()}"
            ) from None
