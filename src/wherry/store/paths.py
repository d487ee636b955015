"""The whole on-disk tree, and the only module that joins its paths.

DATA ROOT (/var/lib/wherry, 0710)                 survives reboots
├── lock                     flock held by the one daemon of this root; holds its pid
├── wherry.db                SQLite, WAL, synchronous=FULL: every row names things that exist
├── content/                 an OCI image layout (readable by other tools)
│   ├── oci-layout, index.json
│   ├── blobs/sha256/<hex>   complete, verified, fsynced, then renamed here; never changed
│   └── ingest/              blobs being written; garbage at start, but for partial-<hex>
├── layers/
│   ├── <hex of diffID>/     an unpacked layer, complete; shared by all images and containers; read-only by habit
│   ├── <hex>.erofs/         or one that is mounted: its tar, and an EROFS image that points into it
│   └── .new-*/              layers being unpacked; garbage at start
├── vfs/<hex of image id>/   without overlay: the layers of one image merged
├── containers/<id>/         0710; made by create, renamed into trash/ by rm
│   ├── upper/, work/        the container's own layer (overlay); without overlay upper/ is its whole root file system
│   ├── hostname, hosts, resolv.conf     bind-mounted into the container
│   ├── <id>-json.log[.N[.gz]]           the log, written by the monitor
│   ├── exit.json            the last exit, fsynced by the monitor before anything is torn down
│   └── meta.json            a copy of the record, for when the database is lost
├── volumes/<name>/_data     user data: never touched by the reconciler
├── reserve                  1 MiB kept for removing things on a full disk
├── trash/                   renamed here, deleted in the background and at start
└── tmp/                     scratch; emptied at start

EXEC ROOT (/run/wherry, 0700)                     gone at reboot
├── lock                     flock: one daemon for one exec root
├── boot_id                  of the boot that made this tree: another one means all of it is stale
├── data_root                of the engine whose containers these are
├── spawner.log              stderr of spawner and monitors: empty unless something is wrong
├── execs/<id>               the records of execs, for a daemon that comes back
├── layers/<hex>/            mounted layers (EROFS)
├── parts/                   parts of volumes, bound here for the time of a start
├── netns/<id>               pins of the containers' network namespaces (nsfs bind mounts)
└── containers/<id>/
    ├── rootfs               the mount point of the root file system, seen only in the container's mount namespace
    └── monitor.sock         0600, SOCK_SEQPACKET: the monitor's control socket
"""

import os
import secrets
from pathlib import Path


class Paths:
    """Every path of one engine, from its two roots."""

    __slots__ = ("data_root", "exec_root")

    def __init__(self, data_root: str | Path, exec_root: str | Path) -> None:
        self.data_root = Path(os.path.abspath(data_root))
        self.exec_root = Path(os.path.abspath(exec_root))

    def create(self) -> None:
        """Make the directories that must exist before the engine runs; existing ones keep their content."""
        os.makedirs(self.data_root, exist_ok=True)
        os.chmod(self.data_root, 0o710)
        os.makedirs(self.exec_root, exist_ok=True)
        os.chmod(self.exec_root, 0o700)
        for path, mode in (
            (self.content, 0o700),
            (self.blobs, 0o700),
            (self.ingest, 0o700),
            (self.layers, 0o700),
            (self.containers, 0o710),
            (self.volumes, 0o711),
            (self.trash, 0o700),
            (self.tmp, 0o700),
            (self.mounted_layers, 0o700),
            (self.netns, 0o700),
            (self.exec_containers, 0o700),
            (self.execs, 0o700),
            (self.parts, 0o700),
        ):
            os.makedirs(path, mode=mode, exist_ok=True)
            os.chmod(path, mode)

    # data root
    @property
    def lock(self) -> Path:
        return self.data_root / "lock"

    @property
    def database(self) -> Path:
        return self.data_root / "wherry.db"

    @property
    def content(self) -> Path:
        return self.data_root / "content"

    @property
    def blobs(self) -> Path:
        return self.content / "blobs" / "sha256"

    @property
    def oci_layout(self) -> Path:
        return self.content / "oci-layout"

    @property
    def image_index(self) -> Path:
        return self.content / "index.json"

    @property
    def ingest(self) -> Path:
        return self.content / "ingest"

    @property
    def layers(self) -> Path:
        return self.data_root / "layers"

    def layer(self, name: str) -> Path:
        """A layer by the hex of its diffID, when it is a tree."""
        return self.layers / name

    @staticmethod
    def packed_layer(layer: Path) -> Path:
        """Where a layer that would be the tree `layer` is when it is not one."""
        return layer.with_name(f"{layer.name}.erofs")

    @staticmethod
    def layer_index(packed: Path) -> Path:
        return packed / "index"

    @staticmethod
    def layer_tar(packed: Path) -> Path:
        return packed / "layer.tar"

    def new_layer(self) -> Path:
        """A free name for a layer being unpacked."""
        return self.layers / f".new-{secrets.token_hex(8)}"

    @property
    def vfs(self) -> Path:
        return self.data_root / "vfs"

    @property
    def containers(self) -> Path:
        return self.data_root / "containers"

    def container(self, container_id: str) -> Path:
        return self.containers / container_id

    def upper(self, container_id: str) -> Path:
        return self.container(container_id) / "upper"

    def work(self, container_id: str) -> Path:
        return self.container(container_id) / "work"

    def log(self, container_id: str) -> Path:
        return self.container(container_id) / f"{container_id}-json.log"

    def exit_record(self, container_id: str) -> Path:
        return self.container(container_id) / "exit.json"

    def meta(self, container_id: str) -> Path:
        return self.container(container_id) / "meta.json"

    @property
    def reserve(self) -> Path:
        return self.data_root / "reserve"

    @property
    def volumes(self) -> Path:
        return self.data_root / "volumes"

    def volume(self, name: str) -> Path:
        return self.volumes / name / "_data"

    @property
    def trash(self) -> Path:
        return self.data_root / "trash"

    def trashed(self, what: str) -> Path:
        """A free name in the trash for something called `what`."""
        return self.trash / f"{what}-{secrets.token_hex(6)}"

    @property
    def tmp(self) -> Path:
        return self.data_root / "tmp"

    def scratch(self, what: str) -> Path:
        """A free name in the scratch directory for something called `what`."""
        return self.tmp / f"{what}-{secrets.token_hex(6)}"

    # exec root
    @property
    def exec_lock(self) -> Path:
        return self.exec_root / "lock"

    @property
    def exec_owner(self) -> Path:
        return self.exec_root / "data_root"

    @property
    def boot_id(self) -> Path:
        return self.exec_root / "boot_id"

    @property
    def spawner_log(self) -> Path:
        return self.exec_root / "spawner.log"

    @property
    def mounted_layers(self) -> Path:
        return self.exec_root / "layers"

    def mounted_layer(self, name: str) -> Path:
        return self.mounted_layers / name

    @property
    def execs(self) -> Path:
        return self.exec_root / "execs"

    @property
    def parts(self) -> Path:
        return self.exec_root / "parts"

    def part(self, container_id: str) -> Path:
        """A free name for a part of a volume that the container gets."""
        return self.parts / f"{container_id[:12]}-{secrets.token_hex(6)}"

    def exec_record(self, exec_id: str) -> Path:
        return self.execs / exec_id

    @property
    def netns(self) -> Path:
        return self.exec_root / "netns"

    def netns_pin(self, container_id: str) -> Path:
        return self.netns / container_id

    @property
    def exec_containers(self) -> Path:
        return self.exec_root / "containers"

    def bundle(self, container_id: str) -> Path:
        return self.exec_containers / container_id

    def rootfs(self, container_id: str) -> Path:
        return self.bundle(container_id) / "rootfs"

    def monitor_socket(self, container_id: str) -> Path:
        return self.bundle(container_id) / "monitor.sock"
