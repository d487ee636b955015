"""Volumes that are filled from the image, that are file systems of their own, and parts of them."""

import asyncio
import io
import os
import signal
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.engine.enginelab import Daemon, Lab, busybox_archive, crash_at, scenario
from wherry.engine import images
from wherry.engine.files.copy import stat_path
from wherry.errors import Internal, InvalidArgument, NotFound
from wherry.linux.mounts import mounted
from wherry.store.trees import delete_tree


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.size, entry.mode = kind, len(data), 0o755
    for key, value in fields.items():
        setattr(entry, key, value)
    return entry, data


TREE = (
    member("d", tarfile.DIRTYPE, mode=0o1750, uid=12, gid=34, mtime=1_000_000_000),
    member("d/sub", tarfile.DIRTYPE, mode=0o700, uid=5),
    member("d/sub/f", data=b"hi\n", mode=0o4711, uid=6, gid=7, mtime=1_100_000_000),
    member("d/hard", tarfile.LNKTYPE, linkname="d/sub/f"),
    member("d/soft", tarfile.SYMTYPE, linkname="/etc/passwd"),
    member("d/pipe", tarfile.FIFOTYPE, mode=0o640),
    member("d/null", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3),
    member("d/cap", data=b"x", pax_headers={"SCHILY.xattr.user.who": "me"}),
    member("to-d", tarfile.SYMTYPE, linkname="/d"),
    member("out", tarfile.SYMTYPE, linkname="/../../../../../../../../../../etc"),
    member("empty", tarfile.DIRTYPE, mode=0o711, uid=99),
)


async def image(d: Daemon) -> None:
    out = io.BytesIO(busybox_archive())
    with tarfile.open(fileobj=out, mode="a", format=tarfile.PAX_FORMAT) as archive:
        for entry, data in TREE:
            archive.addfile(entry, io.BytesIO(data))
    out.seek(0)
    await images.import_(d.engine, out, reference="busybox", changes=["VOLUME /empty"])


def data(d: Daemon, name: str) -> Path:
    return Path(d.engine.volumes.get(name).mountpoint)


def volume(source: str, target: str, **options: Any) -> dict[str, Any]:
    return {"Type": "volume", "Source": source, "Target": target, "VolumeOptions": options}


def assert_filled(place: Path) -> None:
    top = place.stat()
    assert (stat.S_IMODE(top.st_mode), top.st_uid, top.st_gid, top.st_mtime) == (0o1750, 12, 34, 1_000_000_000)
    assert sorted(os.listdir(place)) == ["cap", "hard", "null", "pipe", "soft", "sub"]
    file = (place / "sub/f").stat()
    assert (stat.S_IMODE(file.st_mode), file.st_uid, file.st_gid, file.st_mtime) == (0o4711, 6, 7, 1_100_000_000)
    assert (place / "hard").stat().st_ino == file.st_ino
    assert os.readlink(place / "soft") == "/etc/passwd"
    assert stat.S_ISFIFO((place / "pipe").stat().st_mode)
    assert (place / "null").stat().st_rdev == os.makedev(1, 3)
    assert os.getxattr(place / "cap", "user.who") == b"me"


@pytest.mark.parametrize("driver", ["overlay2", "vfs"])
@scenario
async def test_a_volume_without_content_is_filled_from_the_image(lab: Lab, driver: str) -> None:
    async with lab.daemon(storage_driver=driver) as d:
        await image(d)
        d.engine.volumes.create("old")
        ref = await d.create("cat", "/x/sub/f", Binds=["new:/d", "old:/to-d", "none:/nowhere", "no:/d/sub:nocopy"])
        assert_filled(data(d, "new"))
        assert_filled(data(d, "old"))  # the link is followed, in the image
        assert os.listdir(data(d, "none")) == os.listdir(data(d, "no")) == []
        (anonymous,) = [each for each in d.engine.volumes.list() if each.anonymous]
        assert (stat.S_IMODE(os.stat(anonymous.mountpoint).st_mode), os.stat(anonymous.mountpoint).st_uid) == (
            0o711,
            99,
        )
        assert os.listdir(d.engine.paths.tmp) == []
        (data(d, "new") / "sub/f").write_text("changed\n")
        again = await d.run("cat", "/d/sub/f", Binds=["new:/d"])
        assert await d.finish(again) == 0
        assert await d.output(again) == "changed\n", "filled but once"
        await d.rm(ref, volumes=True)
        await d.clean()


@scenario
async def test_what_is_not_filled(lab: Lab) -> None:
    async with lab.daemon() as d:
        await image(d)
        await d.create("true", Mounts=[volume("quiet", "/d", NoCopy=True)])
        await d.create("true", name="donor", Binds=["given:/nowhere"])
        await d.create("true", VolumesFrom=["donor"])
        await d.create("true", Binds=["escapes:/out"])
        assert [os.listdir(data(d, name)) for name in ("quiet", "given")] == [[], []]
        assert sorted(os.listdir(data(d, "escapes"))) == ["group", "passwd"], "the image's /etc, not the host's"
        with pytest.raises(Internal, match=r"^source .*/etc/passwd is not directory$"):
            await d.create("true", name="fails", Binds=["file:/etc/passwd"])
        with pytest.raises(NotFound):
            d.engine.volumes.get("file")
        await d.create("true", name="fails")
        await d.clean()


@scenario
async def test_an_image_whose_directories_nobody_can_copy(lab: Lab) -> None:
    async with lab.daemon(storage_opts=["overlay2.layers=tree"]) as d:
        await d.image()
        script = "mkdir /deep; cd /deep; i=0; while [ $i -lt 1500 ]; do mkdir d; cd -P d; i=$((i+1)); done"
        ref = await d.run("sh", "-c", f"alias mkdir='busybox mkdir'; {script}")
        assert await d.finish(ref) == 0
        layer = d.entry(ref).record.lower_dirs[0]
        os.rename(d.engine.paths.upper(ref) / "deep", f"{layer}/deep")
        with pytest.raises(Internal, match=r"^failed to populate volume: directories are nested too deeply$"):
            await d.create("true", Binds=["vol1:/deep"])
        delete_tree(f"{layer}/deep")
        assert d.engine.volumes.list() == []
        assert os.listdir(d.engine.paths.tmp) == []
        await d.clean()


@pytest.mark.parametrize("point", ["engine.volume.staged", "engine.create.before_row", "engine.create.after_row"])
@scenario
def test_a_daemon_killed_while_it_fills_a_volume(lab: Lab, point: str) -> None:
    async def work() -> None:
        async with lab.daemon() as d:
            await image(d)
            await d.create("true", name="xx", Binds=["vol1:/d"])

    async def check() -> None:
        async with lab.daemon() as d:
            assert await d.leaks() == []
            assert os.listdir(d.engine.paths.tmp) == []
            if point != "engine.create.after_row":
                await d.create("true", name="xx", Binds=["vol1:/d"])
            assert_filled(data(d, "vol1"))
            await d.clean()

    assert os.WTERMSIG(crash_at(point, work)) == signal.SIGKILL
    asyncio.run(check())


OPTIONS = [
    ({"foo": "x"}, 'invalid option: "foo"'),
    ({"type": "tmpfs"}, 'missing required option: "device"'),
    ({"o": "size=1m"}, 'missing required option: "device"'),
    ({"device": "/x"}, 'missing required option: "type"'),
    ({"size": "1g"}, "quota size requested but no quota support"),
    ({"size": "x"}, "invalid size: 'x'"),
]


@scenario
async def test_options_that_make_no_sense(lab: Lab) -> None:
    async with lab.daemon() as d:
        for options, text in OPTIONS:
            with pytest.raises(InvalidArgument) as refused:
                d.engine.volumes.create("bad", options=options)
            assert str(refused.value) == f"create bad: {text}"
        d.engine.volumes.create("good", options={"type": "tmpfs", "device": "tmpfs", "size": "0"})


@scenario
async def test_a_volume_that_is_a_file_system(lab: Lab) -> None:
    async with lab.daemon() as d:
        await image(d)
        d.engine.volumes.create("mem", options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,nosuid,uid=7"})
        place = data(d, "mem")
        first = await d.run("sleep", "1000", Binds=["mem:/x"])
        assert mounted(str(place))
        second = await d.run("sh", "-c", "echo shared > /y/f; sleep 1000", Binds=["mem:/y"])
        await d.until(lambda: (place / "f").exists() and (place / "f").read_text() == "shared\n")
        code, text = await d.exec(first, "sh", "-c", "cat /x/f; cat /proc/mounts")
        (line,) = [each for each in text.splitlines() if " /x " in each]
        assert (code, text.splitlines()[0]) == (0, "shared")
        assert all(word in line for word in ("nosuid", "size=1024k", "uid=7"))
        await d.stop(second)
        assert mounted(str(place)), "another one uses it"
    async with lab.daemon() as d:
        assert mounted(str(place))
        await d.start(second)
        await d.stop(first)
        assert mounted(str(place))
        await d.stop(second)
        assert not mounted(str(place))
        assert os.listdir(place) == []
        d.engine.volumes.create("bad", options={"type": "nofs", "device": "x", "o": "ro,foo=1"})
        with pytest.raises(Internal) as refused:
            await d.run("true", Binds=["bad:/x"])
        mount = f"mount x:{data(d, 'bad')}, flags: 0x1, data: foo=1: no such device"
        assert str(refused.value).endswith(f"failed to mount local volume: {mount}")
        await d.clean()


@scenario
async def test_an_end_while_nobody_looks_takes_no_volume_from_others(lab: Lab) -> None:
    async with lab.daemon() as d:
        await image(d)
        d.engine.volumes.create("mem", options={"type": "tmpfs", "device": "tmpfs"})
        ends = [await d.run("sleep", "1000", Binds=["mem:/x"]) for _ in range(3)]
        stays = await d.run("sh", "-c", "echo shared > /y/f; sleep 1000", Binds=["mem:/y"])
        await d.until(lambda: (data(d, "mem") / "f").exists())
        pids = [d.entry(ref).record.state.pid for ref in ends]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    async with lab.daemon() as d:
        await d.until(lambda: not any(d.entry(ref).status == "running" for ref in ends))
        late = await d.run("cat", "/z/f", Binds=["mem:/z"])
        assert await d.finish(late) == 0
        assert await d.output(late) == "shared\n"
        await d.stop(stays)
        assert not mounted(str(data(d, "mem")))
        await d.clean()


@scenario
async def test_a_volume_that_is_another_directory(lab: Lab) -> None:
    other = lab.root / "other"
    (other / "deep").mkdir(parents=True)
    (other / "deep/f").write_text("theirs\n")
    async with lab.daemon() as d:
        await image(d)
        for name, how in (("bound", "bind"), ("bound-ro", "bind,ro")):
            d.engine.volumes.create(name, options={"type": "none", "device": str(other), "o": how})
        binds = ["bound:/a", "bound-ro:/b"]
        ref = await d.run("sh", "-c", "cat /a/deep/f; echo x > /a/new; echo y > /b/no || echo refused", Binds=binds)
        assert await d.finish(ref) == 0
        assert await d.output(ref) == "theirs\nrefused\n"
        await d.until(lambda: not mounted(str(data(d, "bound"))))
        assert (await stat_path(d.engine, ref, "/a/deep/f")).size == 7, "mounted for those who look"
        await d.until(lambda: not mounted(str(data(d, "bound"))))
        keeps = await d.run("sleep", "1000", Binds=["bound:/a"])
        assert (await d.exec(keeps, "cat", "/a/new"))[1] == "x\n"
        pid = d.entry(keeps).record.state.pid
    os.kill(pid, signal.SIGKILL)
    async with lab.daemon() as d:
        await d.until(lambda: d.entry(keeps).status == "exited")
        assert not mounted(str(data(d, "bound"))), "its last user ended while nobody looked"
        await d.clean()
        d.engine.volumes.remove("bound", [])
        assert sorted(os.listdir(other)) == ["deep", "new"]
        empty = lab.root / "empty"
        empty.mkdir()
        filled = {"type": "none", "device": str(empty), "o": "bind"}
        await d.create(
            "true", name="xx", Mounts=[volume("fill", "/d", DriverConfig={"Name": "local", "Options": filled})]
        )
        assert_filled(empty)
        assert not mounted(str(data(d, "fill")))
        await d.clean()


@scenario
async def test_a_volume_that_is_mounted_is_removed_without_what_is_mounted(lab: Lab) -> None:
    other = lab.root / "other"
    other.mkdir()
    (other / "f").write_text("theirs\n")
    async with lab.daemon() as d:
        made, _ = d.engine.volumes.create("bound", options={"type": "none", "device": str(other), "o": "bind"})
        d.engine.volume_mounts.hold(made, "nobody")
        d.engine.volumes.remove("bound", [])
        assert (other / "f").read_text() == "theirs\n"
        assert await d.leaks() == []


@pytest.mark.parametrize(
    "point", ["engine.volume.before_mount", "engine.volume.after_mount", "engine.start.after_spawn"]
)
@scenario
def test_a_daemon_killed_while_it_mounts_a_volume(lab: Lab, point: str) -> None:
    async def work() -> None:
        async with lab.daemon() as d:
            await image(d)
            d.engine.volumes.create("mem", options={"type": "tmpfs", "device": "tmpfs"})
            await d.run("sleep", "1000", name="xx", Binds=["mem:/x"])

    async def check() -> None:
        async with lab.daemon() as d:
            assert await d.leaks() == []
            assert mounted(str(data(d, "mem"))) == (d.entry("xx").status == "running")
            await d.clean()
            assert not mounted(str(data(d, "mem")))

    assert os.WTERMSIG(crash_at(point, work)) == signal.SIGKILL
    asyncio.run(check())


@scenario
def test_a_daemon_killed_while_it_binds_a_part(lab: Lab) -> None:
    async def work() -> None:
        async with lab.daemon() as d:
            await image(d)
            place = Path(d.engine.volumes.create("parts")[0].mountpoint)
            (place / "in").mkdir()
            (place / "in/f").touch()
            await d.run("sleep", "1000", name="xx", Mounts=[volume("parts", "/x", Subpath="in")])

    async def check() -> None:
        async with lab.daemon() as d:
            assert os.listdir(d.engine.paths.parts) == []
            assert os.listdir(data(d, "parts") / "in") == ["f"]
            await d.start("xx")
            assert os.listdir(d.engine.paths.parts) == []
            assert (await d.exec("xx", "ls", "/x"))[1] == "f\n"
            await d.clean()

    assert os.WTERMSIG(crash_at("engine.volume.part_bound", work)) == signal.SIGKILL
    asyncio.run(check())


@scenario
async def test_a_part_of_a_volume(lab: Lab) -> None:
    async with lab.daemon() as d:
        await image(d)
        place = Path(d.engine.volumes.create("parts")[0].mountpoint)
        (place / "in/side").mkdir(parents=True)
        (place / "file").write_text("a file\n")
        (place / "rel").symlink_to("in/side")
        (place / "abs").symlink_to("/etc")
        (place / "up").symlink_to("../../..")
        ref = await d.run(
            "cat", "/x/sub/f", Mounts=[volume("parts", "/x", Subpath="in"), volume("parts", "/d", Subpath="rel")]
        )
        assert await d.finish(ref) == 1
        assert_filled(place / "in/side")
        ref = await d.run(
            "sh", "-c", "cat /f; echo x > /x/new; ls /x",
            Mounts=[volume("parts", "/x", Subpath="rel/sub"), volume("parts", "/f", Subpath="file")],
        )  # fmt: skip
        assert await d.finish(ref) == 0
        assert await d.output(ref) == "a file\nf\nnew\n"
        assert (await stat_path(d.engine, ref, "/x/new")).size == 2
        assert (await stat_path(d.engine, ref, "/f")).size == 7
        for part, error, text in (
            ("nope", NotFound, f"cannot access path {place}/nope: lstat {place}/nope: no such file or directory"),
            ("abs", InvalidArgument, f"path concatenation escapes the base directory, base: {place}, subpath: abs"),
            ("up", InvalidArgument, f"path concatenation escapes the base directory, base: {place}, subpath: up"),
        ):
            ref = await d.create("true", Mounts=[volume("parts", "/x", Subpath=part)])
            with pytest.raises(error) as refused:
                await d.start(ref)
            assert str(refused.value) == text
        for part in ("../x", "/abs", "a/../.."):
            with pytest.raises(InvalidArgument) as refused:
                await d.create("true", Mounts=[volume("parts", "/x", Subpath=part)])
            text = 'invalid mount config for type "volume": subpath must be a relative path within the volume'
            assert str(refused.value) == text
        await d.clean()
