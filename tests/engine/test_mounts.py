"""Binds, volumes, tmpfs, and the network's files."""

import os

import pytest

from tests.engine.enginelab import Lab, ip_json, scenario
from wherry.errors import Conflict, InvalidArgument


@scenario
async def test_named_volumes_keep_data_and_anonymous_ones_go_when_asked(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image(changes=["VOLUME /data"])
        first = await d.run("sh", "-c", "echo kept > /x/file; echo lost > /data/file", Binds=["vol1:/x"])
        assert await d.finish(first) == 0
        names = {volume.name: volume.anonymous for volume in d.engine.volumes.list()}
        assert len(names) == 2
        assert names["vol1"] is False
        with pytest.raises(Conflict, match=rf"^remove vol1: volume is in use - \[{first}\]$"):
            d.engine.volumes.remove("vol1", d.engine.volume_users("vol1"))
        await d.rm(first, volumes=True)
        assert [volume.name for volume in d.engine.volumes.list()] == ["vol1"]
        second = await d.run("cat", "/x/file", Binds=["vol1:/x:ro"])
        assert await d.finish(second) == 0
        assert await d.output(second) == "kept\n"
        await d.rm(second)
        kept = [volume for volume in d.engine.volumes.list() if volume.anonymous]
        assert len(kept) == 1, "without volumes=True the anonymous volume stays"
        d.engine.volumes.remove("vol1", [])
        d.engine.volumes.remove(kept[0].name, [])
        assert await d.leaks() == []


@scenario
async def test_binds(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        source = lab.root / "made"
        ref = await d.run(
            "sh", "-c", "echo in > /x/file; ls /ro; echo no > /ro/f", Binds=[f"{source}:/x", "/tmp:/ro:ro"]
        )
        assert await d.finish(ref) == 1
        assert (source / "file").read_text() == "in\n"
        with pytest.raises(InvalidArgument, match="bind source path does not exist: /no/such"):
            await d.create("true", Mounts=[{"Type": "bind", "Source": "/no/such", "Target": "/x"}])
        await d.clean()


@scenario
async def test_volumes_from(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        donor = await d.run("sh", "-c", "echo shared > /d/f", Volumes={"/d": {}}, name="donor")
        assert await d.finish(donor) == 0
        ref = await d.run("sh", "-c", "cat /d/f; echo x > /d/f", VolumesFrom=["donor:ro"])
        assert await d.finish(ref) == 1
        assert await d.output(ref) == "shared\n"
        await d.rm(donor, volumes=True)
        assert len(d.engine.volumes.list()) == 1, "another container has it"
        await d.rm(ref, volumes=True)
        assert d.engine.volumes.list() == []


@scenario
async def test_a_failed_create_takes_its_volumes_back(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        await d.create("true", name="xx")
        with pytest.raises(Conflict):
            await d.create("true", name="xx", Binds=["new:/x"], Volumes={"/y": {}})
        assert d.engine.volumes.list() == []
        assert os.listdir(d.engine.paths.volumes) == []
        await d.clean()


@scenario
async def test_the_network_and_its_files(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        names = {"Hostname": "h", "Domainname": "d.e"}
        ref = await d.run("sleep", "1000", NetworkMode="bridge", ExtraHosts=["db:10.9.8.7"], **names)
        endpoint = d.entry(ref).record.networks["bridge"]
        code, hosts = await d.exec(ref, "cat", "/etc/hosts", "/etc/hostname")
        assert code == 0
        assert f"{endpoint.IPAddress}\th.d.e h\n" in hosts
        assert "10.9.8.7\tdb\n" in hosts
        assert hosts.endswith("h\n")
        assert endpoint.IPAddress in (await d.exec(ref, "ip", "addr"))[1]
        joined = await d.run("sleep", "1000", NetworkMode=f"container:{ref[:12]}")
        assert d.entry(joined).record.host_config.NetworkMode == f"container:{ref}"
        assert endpoint.IPAddress in (await d.exec(joined, "ip", "addr"))[1]
        assert (await d.exec(joined, "cat", "/etc/hosts"))[1] in hosts
        kernel = await d.exec(joined, "cat", "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname")
        assert kernel == (0, "h\nd.e\n")
        await d.stop(ref)
        assert d.entry(ref).record.networks["bridge"].IPAddress == ""
        with pytest.raises(Conflict, match="cannot join network namespace of a non running container"):
            await d.run("true", NetworkMode=f"container:{ref}")
        await d.clean()
        assert not [link for link in ip_json("link") if link["ifname"].startswith("veth")]
