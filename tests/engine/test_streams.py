"""Exec, attach and logs of real containers."""

import asyncio

import pytest

from tests.engine.enginelab import Lab, plain, scenario
from wherry.engine import exec, logs
from wherry.engine.model import ExecConfig
from wherry.errors import Conflict, InvalidArgument, NotFound, Unimplemented, WherryError

FOREVER = ("sleep", "1000")


@scenario
async def test_exec_runs_beside_with_its_own_settings(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run(*FOREVER, Env=["A=1", "C=3"])
        assert await d.exec(ref, "sh", "-c", "echo out; echo err >&2; exit 4") == (4, "out\nerr\n")
        code, text = await d.exec(ref, "sh", "-c", "env; id -u; pwd", User="nobody", WorkingDir="/tmp", Env=["A=2"])
        lines = text.splitlines()
        assert code == 0
        assert {"A=2", "C=3", "65534", "/tmp"} <= set(lines)
        assert "A=1" not in lines
        assert d.entry(ref).exec_ids == []
        await d.clean()


@scenario
async def test_exec_refusals(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run(*FOREVER, name="web")
        engine = d.engine
        for fields, kind, text in (
            ({}, InvalidArgument, "No exec command specified"),
            ({"Cmd": ["x"], "User": "foo"}, InvalidArgument, "unable to find user foo: no matching entries in passwd"),
            ({"Cmd": ["x"], "DetachKeys": "zz"}, WherryError, "Invalid escape keys (zz) provided"),
        ):
            with pytest.raises(kind) as caught:
                await exec.create_exec(engine, ref, ExecConfig(**fields))  # type: ignore[arg-type]
            assert text in str(caught.value)
        missing = await exec.create_exec(engine, ref, ExecConfig(Cmd=["nope"]))
        with pytest.raises(InvalidArgument) as caught_missing:
            await exec.start_exec(engine, missing, detach=True)
        assert str(caught_missing.value) == (
            "OCI runtime exec failed: exec failed: unable to start container process: "
            'exec: "nope": executable file not found in $PATH'
        )
        assert exec.inspect_exec(engine, missing).exit_code == 127
        done = await exec.create_exec(engine, ref, ExecConfig(Cmd=["true"]))
        await exec.start_exec(engine, done, detach=True)
        await d.until(lambda: exec.inspect_exec(engine, done).exit_code == 0)
        with pytest.raises(Conflict, match=f"^exec command {done} has already run$"):
            await exec.start_exec(engine, done, detach=True)
        with pytest.raises(NotFound, match=r"^No such exec instance: zz$"):
            exec.inspect_exec(engine, "zz")
        waiting = await exec.create_exec(engine, ref, ExecConfig(Cmd=["true"]))
        await d.stop(ref)
        with pytest.raises(Conflict, match=f"^container {ref} is not running$"):
            await exec.start_exec(engine, waiting, detach=True)
        with pytest.raises(Conflict, match=f"^container {ref} is not running$"):
            await exec.create_exec(engine, "web", ExecConfig(Cmd=["true"]))
        await d.clean()


@scenario
async def test_an_exec_ends_with_its_container(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run(*FOREVER)
        running = await exec.create_exec(d.engine, ref, ExecConfig(Cmd=["sleep", "1000"]))
        await exec.start_exec(d.engine, running, detach=True)
        record = exec.inspect_exec(d.engine, running)
        assert record.running
        assert record.pid > 0
        await d.stop(ref)
        assert (record.running, record.exit_code) == (False, 137)
        await d.clean()


@scenario
async def test_attach_before_the_start_sees_the_first_byte_and_feeds_stdin(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.create("sh", "-c", "echo first; cat; exit 6", OpenStdin=True, StdinOnce=True)
        client = await d.attach(ref)
        assert client.content_type == "application/vnd.docker.multiplexed-stream"
        await client.send(b"typed early\n")
        client.ours.shutdown(1)
        await d.start(ref)
        assert plain(await client.read_all()) == "first\ntyped early\n"
        assert await d.finish(ref) == 6
        assert await d.output(ref) == "first\ntyped early\n"
        await d.clean()


@scenario
async def test_attach_to_a_running_one_replays_the_log(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sh", "-c", "echo before; read x; echo got $x", OpenStdin=True)
        await d.logged(ref, "before")
        client = await d.attach(ref, logs=True)
        await client.read_until(b"before\n")
        await client.send(b"word\n")
        assert b"got word\n" in await client.read_all()
        await d.clean()


@scenario
async def test_detach_keys_leave_a_terminal_running(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sh", "-c", "echo up; cat", Tty=True, OpenStdin=True)
        await d.logged(ref, "up")
        client = await d.attach(ref, logs=True)
        assert client.content_type == "application/vnd.docker.raw-stream"
        await client.read_until(b"up")
        await client.send(b"\x10\x11")
        await client.read_all()
        assert d.entry(ref).status == "running"
        await d.until(lambda: any(m["Action"] == "detach" for m in d.engine.events._history))
        await d.clean()


@scenario
async def test_those_who_wait_for_a_start_are_let_go_by_a_removal(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.create("true")
        client = await d.attach(ref)
        left = await d.attach(ref)
        left.ours.close()
        await d.attach(ref)
        assert len(d.entry(ref).pending) == 2
        await d.rm(ref)
        assert await client.read_all() == b""
        await d.clean()


@scenario
async def test_logs_follow_to_the_end(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sh", "-c", "for i in 1 2 3; do echo line $i; sleep 0.05; done")
        options = logs.LogOptions(stdout=True, follow=True)
        chunks = [chunk async for chunk in await logs.logs(d.engine, ref, options)]
        assert plain(b"".join(chunks)) == "line 1\nline 2\nline 3\n"
        tail = logs.LogOptions(stdout=True, tail=1, timestamps=True)
        last = plain(b"".join([chunk async for chunk in await logs.logs(d.engine, ref, tail)]))
        assert last.endswith("Z line 3\n")
        assert last.count("\n") == 1
        await d.clean()


@scenario
async def test_logs_that_cannot_be_read(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        never = await d.create("true")
        assert await d.output(never) == ""
        with pytest.raises(InvalidArgument, match=r"^Bad parameters: you must choose at least one stream$"):
            await logs.logs(d.engine, never, logs.LogOptions())
        silent = await d.run("echo", "x", LogConfig={"Type": "none"})
        with pytest.raises(Unimplemented, match="configured logging driver does not support reading"):
            await d.output(silent)
        await asyncio.wait_for(d.finish(silent), 60)
        await d.clean()
