"""A QEMU microvm with a Debian kernel, cgroup v2 and this source tree, for what the test machine's own kernel or
mounts do not offer. Emulated (TCG): slow, but the same everywhere; /dev/kvm may exist and still hang.
"""

import os
import platform
import re
import selectors
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from . import initrd

CACHE = Path(os.environ.get("WHERRY_GUEST_CACHE", "/var/tmp/wherry-guest"))
_MODULES = (
    *("overlay", "loop", "veth", "bridge", "nf_tables", "nft_chain_nat", "nft_masq", "nft_nat", "nft_ct"),
    *("nft_fib_inet", "nft_reject_inet", "quota_v2"),
)
_PROGRAMS = ("ip", "nsenter", "curl", "tar")  # the docker command too, where there is one
_MARK = "guest-exit-code"

# The root of an initramfs can be neither moved nor pivoted: containers need one that can, hence the tmpfs.
_INIT = """\
#!/bin/sh
/bin/busybox mkdir -p /bin /new
/bin/busybox mount -t tmpfs -o mode=755 root /new
for each in /*; do
  # switch_root insists on finding /init where it was.
  case $each in /new|/init|/bin|/dev|/root) ;; *) /bin/busybox mv $each /new/ ;; esac
done
/bin/busybox cp -a /bin /new/
/bin/busybox mkdir -p /new/proc /new/sys /new/dev /new/run /new/tmp /new/root /new/etc
/bin/busybox mount -t devtmpfs dev /new/dev
exec /bin/busybox switch_root /new /bin/sh /second-init
"""
_SECOND_INIT = """\
export PATH=/programs:/bin HOME=/root
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
for module in /modules/*; do insmod $module; done
printf 'root:x:0:0:root:/root:/bin/sh\\n' > /etc/passwd
printf 'root:x:0:\\n' > /etc/group
cd /work
export PYTHONPATH=/work/src:/site
COMMAND
echo MARK $?
poweroff -f
"""


class Unavailable(Exception):
    """There can be no guest here; the text says why."""


def run(command: str, *, timeout_s: float = 600) -> tuple[int, str]:
    """Boot, run the shell `command` in /work (the source tree; `/python` is the interpreter), shut down. Returns its
    exit code and everything the console said. Raises Unavailable, and TimeoutError with the console's words."""
    programs = [_program(name) for name in _PROGRAMS] + [path for path in (shutil.which("docker"),) if path]
    kernel = _kernel()
    CACHE.mkdir(parents=True, exist_ok=True)
    archive = CACHE / f"initrd-{os.getpid()}.cpio"
    second = _SECOND_INIT.replace("COMMAND", command).replace("MARK", _MARK)
    scripts = {"init": _INIT, "second-init": second}
    try:
        with archive.open("wb") as out:
            initrd.build(
                out, scripts=scripts, busybox=_busybox(), modules=_modules(kernel, _MODULES), programs=programs
            )
        return _boot(kernel, archive, timeout_s)
    finally:
        archive.unlink(missing_ok=True)


def _boot(kernel: Path, archive: Path, timeout_s: float) -> tuple[int, str]:
    arguments = "console=ttyS0 panic=-1 quiet rdinit=/init tsc_early_khz=2000000 lpj=4000000"
    process = subprocess.Popen(
        [
            *("qemu-system-x86_64", "-M", "microvm,accel=tcg,pit=on,pic=on,rtc=on", "-cpu", "max", "-smp", "2"),
            *("-m", "2048", "-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio"),
            *("-kernel", str(kernel), "-initrd", str(archive), "-append", arguments),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        return _follow(process, timeout_s)
    finally:
        process.kill()
        process.communicate()


def _follow(process: "subprocess.Popen[bytes]", timeout_s: float) -> tuple[int, str]:
    assert process.stdout is not None
    said, deadline = b"", time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if match := re.search(rf"{_MARK} (\d+)".encode(), said):
                return int(match[1]), said.decode(errors="replace")
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"the guest did not finish in {timeout_s} s:\n{said.decode(errors='replace')}")
            piece = os.read(process.stdout.fileno(), 65536)
            if not piece:
                raise RuntimeError(f"the guest ended by itself:\n{said.decode(errors='replace')}")
            said += piece


def _busybox() -> str:
    for path in ("/usr/bin/busybox", "/bin/busybox"):
        if os.path.exists(path) and b"INTERP" not in (shown := _headers(path)) and shown:
            return path
    raise Unavailable("no static busybox (package busybox-static)")


def _headers(path: str) -> bytes:
    return subprocess.run(["readelf", "-lW", path], capture_output=True, check=False).stdout


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise Unavailable(f"the guest needs the program {name}")
    return path


def _modules(kernel: Path, names: Iterable[str]) -> list[str]:
    """Files of modules after those they depend on; what is built in has none."""
    files = {path.stem: path for path in kernel.parent.parent.glob("**/kernel/**/*.ko")}
    ordered: dict[str, None] = {}

    def add(name: str) -> None:
        path = files.get(name) or files.get(name.replace("_", "-"))
        if path is None:
            return
        needed = re.search(rb"\0depends=([^\0]*)", path.read_bytes())
        for other in needed[1].decode().split(",") if needed else ():
            add(other)
        ordered[str(path)] = None

    for name in names:
        add(name)
    return list(ordered)


def _kernel() -> Path:
    """The newest kernel in the cache; fetched and unpacked (not installed) with apt when there is none."""
    if platform.machine() != "x86_64":
        raise Unavailable("the guest is written for x86_64")
    if shutil.which("qemu-system-x86_64") is None:
        raise Unavailable("qemu-system-x86_64 is not installed (package qemu-system-x86)")
    found = sorted(CACHE.glob("kernel/boot/vmlinuz-*"))
    return found[-1] if found else _fetch_kernel()


def _fetch_kernel() -> Path:
    if shutil.which("apt-get") is None:
        raise Unavailable("no kernel for the guest, and no apt-get to fetch one")
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        depends = _output("apt-cache", "depends", "linux-image-cloud-amd64")
        name = re.search(r"Depends: (linux-image-\S+)", depends)
        if name is None:
            raise Unavailable("apt knows no linux-image-cloud-amd64")
        _output("apt-get", "download", name[1])
        (package,) = CACHE.glob(f"{name[1]}_*.deb")
        _output("dpkg-deb", "-x", str(package), "kernel.new")
        package.unlink()
        (CACHE / "kernel.new").rename(CACHE / "kernel")
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"no kernel for the guest: {error}") from error
    return sorted(CACHE.glob("kernel/boot/vmlinuz-*"))[-1]


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=CACHE, check=True, capture_output=True, text=True).stdout
