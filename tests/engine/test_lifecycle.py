"""Containers that really run: create, start, stop, kill, restart, pause, wait, remove, rename."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.engine.enginelab import Daemon, Lab, scenario
from wherry.engine import rename, stop, top, wait
from wherry.engine.model import RestartRule
from wherry.errors import Conflict, Internal, InvalidArgument, NotFound, NotModified, WherryError
from wherry.runtime.cgroups import open_cgroup

FOREVER = ("sleep", "1000")
IGNORES_TERM = ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")


def actions(d: Daemon, ref: str) -> list[str]:
    found = []
    for message in d.engine.events._history:
        if message["Actor"]["ID"] == ref or message["Actor"]["Attributes"].get("container") == ref:
            prefix = "" if message["Type"] == "container" else f"{message['Type']} "
            found.append(prefix + message["Action"])
    return found


@scenario
async def test_a_container_runs_and_tells_its_exit_code(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.create("sh", "-c", "echo hello; echo oops >&2; exit 3", name="one")
        record = d.entry("one").record
        assert (record.state.status, record.path, record.config.Hostname) == ("created", "sh", ref[:12])
        waiter = await wait.wait(d.engine, ref, "next-exit")
        await d.start(ref)
        assert await waiter.result() == (3, None)
        assert (record.state.status, record.state.exit_code, record.state.pid) == ("exited", 3, 0)
        assert record.state.finished_at >= record.state.started_at > 0
        assert await d.output(ref) == "hello\n"
        assert await d.output(ref, stderr=True) == "hello\noops\n"
        await d.start(ref)
        assert await d.finish(ref) == 3
        assert await d.output(ref) == "hello\nhello\n"
        await d.rm(ref)
        with pytest.raises(NotFound, match=f"^No such container: {ref}$"):
            d.entry(ref)
        assert await d.leaks() == []
        assert actions(d, ref) == [
            "create",
            *(["network connect", "start", "network disconnect", "die"] * 2),
            "destroy",
        ]


@scenario
async def test_events_of_stop_and_restart_come_in_order(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run(*FOREVER, Labels={"a": "b"})
        await stop.restart(d.engine, ref, timeout=0)
        await d.stop(ref)
        own = [action for action in actions(d, ref) if " " not in action]
        stopping = ["kill", "kill", "stop", "die"]
        assert own == ["create", "start", *stopping, "start", "restart", *stopping]
        died = next(m for m in d.engine.events._history if m["Action"] == "die")
        assert died["Actor"]["Attributes"] == {
            "a": "b",
            "image": "busybox",
            "name": d.entry(ref).record.name,
            "exitCode": "137",
            "execDuration": "0",
        }
        await d.clean()


@pytest.mark.parametrize(
    ("fields", "kind", "code", "text"),
    [
        ({"Cmd": ["nope"]}, InvalidArgument, 127, 'exec: "nope": executable file not found in $PATH'),
        ({"Cmd": ["/nope"]}, InvalidArgument, 127, 'exec: "/nope": stat /nope: no such file or directory'),
        ({"Cmd": ["/etc/passwd"]}, InvalidArgument, 126, 'exec: "/etc/passwd": permission denied'),
        ({"User": "foo"}, Internal, 128, "unable to find user foo: no matching entries in passwd file"),
        (
            {"NetworkMode": "container:zzz"},
            Internal,
            128,
            "joining network namespace of container: No such container: zzz",
        ),
        ({"NetworkMode": "nonet"}, NotFound, 128, "failed to set up container networking: network nonet not found"),
        (
            {"LogConfig": {"Type": "json-file", "Config": {"max-file": "0"}}},
            Internal,
            128,
            "failed to initialize logging driver: max-file cannot be less than 1",
        ),
    ],
)
@scenario
async def test_a_failed_start_says_why_and_leaves_nothing(
    lab: Lab, fields: dict[str, object], kind: type[WherryError], code: int, text: str
) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.create(**({"Cmd": ["true"], "NetworkMode": "bridge"} | fields))
        with pytest.raises(kind) as caught:
            await d.start(ref)
        assert text in str(caught.value)
        state = d.entry(ref).record.state
        assert (state.status, state.exit_code, state.error, state.pid) == ("created", code, str(caught.value), 0)
        assert await d.leaks() == []
        temporary = await d.create(AutoRemove=True, **({"Cmd": ["true"]} | fields))
        with pytest.raises(kind):
            await d.start(temporary)
        assert d.engine.containers.get(temporary) is None
        await d.clean()


@scenario
async def test_of_many_creates_of_one_name_one_succeeds(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        results = await asyncio.gather(*(d.create("true", name="xx") for _ in range(64)), return_exceptions=True)
        made = [result for result in results if isinstance(result, str)]
        refused = [str(result) for result in results if isinstance(result, Conflict)]
        assert (len(made), len(refused)) == (1, 63)
        assert set(refused) == {
            f'Conflict. The container name "/xx" is already in use by container "{made[0]}". You have to remove '
            "(or rename) that container to be able to reuse that name."
        }
        await d.rm("xx")
        await d.create("true", name="xx")
        await d.clean()


@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        ({"image": "nope"}, NotFound, "No such image: nope:latest"),
        ({"Cmd": []}, InvalidArgument, "no command specified"),
        ({"Cmd": [], "Entrypoint": [""]}, InvalidArgument, "no command specified"),
        ({"name": "a b"}, InvalidArgument, "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
        ({"WorkingDir": "x"}, InvalidArgument, "the working directory 'x' is invalid, it needs to be an absolute path"),
        ({"Env": ["=b"]}, InvalidArgument, "invalid environment variable: =b"),
        ({"StopSignal": "SIGFOO"}, InvalidArgument, "invalid signal: SIGFOO"),
        ({"Memory": 1024}, InvalidArgument, "Minimum memory limit allowed is 6MB"),
        ({"MemorySwap": 1 << 25}, InvalidArgument, "You should always set the Memory limit when using Memoryswap"),
        ({"CpuPeriod": 10}, InvalidArgument, "CPU cfs period can not be less than 1ms"),
        ({"CpusetCpus": "0-77"}, InvalidArgument, "Requested CPUs are not available - requested 0-77, available: "),
        (
            {"NetworkMode": "container:x", "Hostname": "h"},
            InvalidArgument,
            "conflicting options: hostname and the network mode",
        ),
        ({"UTSMode": "host", "Hostname": "h"}, InvalidArgument, "conflicting options: hostname and the UTS mode"),
        ({"PidMode": "x"}, InvalidArgument, "invalid PID mode: x"),
        ({"PidMode": "container:zz"}, InvalidArgument, "No such container: zz"),
        (
            {"AutoRemove": True, "RestartPolicy": {"Name": "always"}},
            InvalidArgument,
            "can't create 'AutoRemove' container with restart policy",
        ),
        ({"Runtime": "foo"}, InvalidArgument, "unknown or invalid runtime name: foo"),
        ({"CapAdd": ["FOO"]}, InvalidArgument, 'invalid CapAdd: unknown capability: "CAP_FOO"'),
        (
            {"LogConfig": {"Type": "foo"}},
            InvalidArgument,
            'error looking up logging plugin foo: plugin "foo" not found',
        ),
        ({"Binds": ["/tmp:/x", "/etc:/x"]}, InvalidArgument, "Duplicate mount point: /x"),
        ({"Binds": ["/tmp:/x"], "Tmpfs": {"/x": ""}}, InvalidArgument, "Duplicate mount point: /x"),
        ({"VolumesFrom": ["zz"]}, InvalidArgument, "No such container: zz"),
        ({"SecurityOpt": ["foo"]}, InvalidArgument, 'invalid --security-opt 1: "foo"'),
        ({"ExtraHosts": ["foo"]}, InvalidArgument, 'bad format for add-host: "foo"'),
    ],
)
@scenario
async def test_create_refuses_with_dockers_words(
    lab: Lab, fields: dict[str, object], kind: type[WherryError], text: str
) -> None:
    async with lab.daemon() as d:
        await d.image()
        with pytest.raises(WherryError) as caught:
            await d.create(**({"Cmd": ["true"]} | fields))  # type: ignore[arg-type]
        assert caught.value.kind == kind.kind
        assert text in str(caught.value)
        assert list(d.engine.containers) == []
        assert os.listdir(d.engine.paths.containers) == []
        assert d.engine.volumes.list() == []


@scenario
async def test_stop_kills_what_ignores_it(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        polite = await d.run("sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.02; done")
        await d.logged(polite, "ready")
        await d.stop(polite, 20)
        assert d.entry(polite).record.state.exit_code == 5
        with pytest.raises(NotModified):
            await d.stop(polite)
        deaf = await d.run(*IGNORES_TERM)
        await d.logged(deaf, "ready")
        await d.stop(deaf, 0)
        assert d.entry(deaf).record.state.exit_code == 137
        await d.clean()


@scenario
async def test_kill_sends_any_signal_and_waits_for_the_last(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sh", "-c", "trap 'echo got' USR1; echo ready; while :; do sleep 0.02; done")
        await d.logged(ref, "ready")
        await stop.kill(d.engine, ref, "USR1")
        await d.logged(ref, "got")
        assert d.entry(ref).status == "running"
        await stop.kill(d.engine, ref)
        assert (d.entry(ref).status, d.entry(ref).record.state.exit_code) == ("exited", 137)
        with pytest.raises(Conflict, match=f"^cannot kill container: {ref}: container {ref} is not running$"):
            await stop.kill(d.engine, ref)
        with pytest.raises(InvalidArgument, match="invalid signal: FOO"):
            await stop.kill(d.engine, ref, "FOO")
        with pytest.raises(InvalidArgument, match="the linux daemon does not support signal 65"):
            await stop.kill(d.engine, ref, "65")
        await d.clean()


@scenario
async def test_pause_stops_time_and_a_paused_one_can_be_stopped(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run(*FOREVER)
        await stop.pause(d.engine, ref)
        assert d.entry(ref).status == "paused"
        with pytest.raises(Conflict, match="is already paused"):
            await stop.pause(d.engine, ref)
        with pytest.raises(Conflict, match="unpause the container before exec"):
            await d.exec(ref, "true")
        with pytest.raises(Conflict, match="is paused and must be unpaused first"):
            await d.rm(ref)
        await stop.unpause(d.engine, ref)
        assert await d.exec(ref, "echo", "alive") == (0, "alive\n")
        await stop.pause(d.engine, ref)
        await d.stop(ref)
        assert (d.entry(ref).status, d.entry(ref).record.state.exit_code) == ("exited", 137)
        await d.clean()


@scenario
async def test_wait_conditions(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.create("false")
        assert await (await wait.wait(d.engine, ref)).result() == (0, None)
        following = await wait.wait(d.engine, ref, "next-exit")
        gone = await wait.wait(d.engine, ref, "removed")
        with pytest.raises(InvalidArgument, match=r'^invalid condition: "x"$'):
            await wait.wait(d.engine, ref, "x")
        await d.start(ref)
        assert await following.result() == (1, None)
        again = await wait.wait(d.engine, ref, "next-exit")
        assert not again._future.done()
        assert not gone._future.done()
        await d.rm(ref)
        assert await gone.result() == (1, None)
        assert await again.result() == (1, None)


@scenario
async def test_auto_remove_takes_everything_along(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.create("true", AutoRemove=True, Volumes={"/v": {}}, NetworkMode="bridge")
        assert len(d.engine.volumes.list()) == 1
        gone = await wait.wait(d.engine, ref, "removed")
        await d.start(ref)
        assert await gone.result() == (0, None)
        assert d.engine.containers.get(ref) is None
        assert d.engine.volumes.list() == []
        assert await d.leaks() == []
        assert os.listdir(d.engine.paths.containers) == os.listdir(d.engine.paths.trash) == []


@scenario
async def test_remove_needs_force_for_what_runs(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run(*FOREVER, name="web", NetworkMode="bridge")
        with pytest.raises(Conflict, match=r'^cannot remove container "web": container is running: stop the container'):
            await d.rm("web")
        pid = d.entry(ref).record.state.pid
        await d.rm("web", force=True)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        temporary = await d.run(*FOREVER, AutoRemove=True)
        await d.rm(temporary, force=True)
        assert list(d.engine.containers) == []
        assert await d.leaks() == []


@scenario
async def test_rename(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.create("true", name="old")
        await d.create("true", name="other")
        for name, text in (
            ("", "Neither old nor new names may be empty"),
            ("old", "Renaming a container with the same name as its current name"),
            ("a b", "Error when allocating new name: Invalid container name"),
            ("other", 'Error when allocating new name: Conflict. The container name "/other" is already in use'),
        ):
            with pytest.raises(WherryError) as caught:
                await rename.rename(d.engine, "old", name)
            assert text in str(caught.value)
        await rename.rename(d.engine, "/old", "new")
        assert d.entry("new").id == d.entry("/new").id == d.entry(ref[:20]).id == ref
        await d.create("true", name="old")
        await d.clean()


@scenario
async def test_lookup_of_prefixes(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        refs = [await d.create("true") for _ in range(17)]
        first = next(r[0] for r in refs if sum(o[0] == r[0] for o in refs) > 1)
        with pytest.raises(InvalidArgument, match=f"^multiple IDs found with provided prefix: {first}$"):
            d.entry(first)
        with pytest.raises(NotFound, match=r"^No such container: zz$"):
            d.entry("zz")
        await d.create("true", name=first * 2)
        assert d.entry(first * 2).record.name == first * 2
        await d.clean()


@scenario
async def test_on_failure_restarts_as_often_as_asked(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("false", RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 2})
        await d.until(lambda: d.entry(ref).status == "exited")
        assert d.entry(ref).record.restart_count == 2
        assert actions(d, ref).count("die") == 3
        await d.clean()


@scenario
async def test_stop_beats_the_restart_policy(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("false", RestartPolicy={"Name": "always"})
        await d.until(lambda: d.entry(ref).record.restart_count >= 2 and d.entry(ref).status == "restarting")
        assert d.entry(ref).record.state.running
        await d.stop(ref)
        assert d.entry(ref).status == "exited"
        starts = actions(d, ref).count("start")
        running = await d.run(*FOREVER, RestartPolicy={"Name": "always"})
        await stop.kill(d.engine, running)
        assert d.entry(running).status == "exited"
        await asyncio.sleep(0.5)  # longer than the pause that was due
        assert actions(d, ref).count("start") == starts
        assert d.entry(running).status == "exited"
        await d.clean()


@pytest.mark.parametrize(
    ("policy", "stop_signal", "sent", "again"),
    [
        ("always", "", "USR1", False),
        ("unless-stopped", "", "USR1", False),
        ("always", "HUP", "USR1", True),
        ("unless-stopped", "HUP", "USR1", False),
        ("always", "HUP", "HUP", False),
        ("on-failure", "HUP", "USR1", True),
    ],
)
@scenario
async def test_a_signal_by_request_may_end_the_restarts(
    lab: Lab, policy: str, stop_signal: str, sent: str, again: bool
) -> None:
    """As Docker 28.5 does: without a stop signal of the container's own, any signal means that it shall end."""
    async with lab.daemon() as d:
        await d.image()
        program = "trap 'exit 3' USR1 HUP; echo ready; while :; do sleep 0.02; done"
        ref = await d.run("sh", "-c", program, RestartPolicy={"Name": policy}, StopSignal=stop_signal)
        await d.logged(ref, "ready")
        await stop.kill(d.engine, ref, sent)
        await d.until(lambda: "die" in actions(d, ref))
        assert d.entry(ref).record.manually_stopped
        if again:
            await d.until(lambda: d.entry(ref).record.restart_count == 1 and d.entry(ref).status == "running")
        else:
            assert d.entry(ref).status == "exited"
            assert d.entry(ref).restart_task is None
        await d.clean()


@scenario
async def test_kill_calls_a_due_restart_off(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("false", RestartPolicy={"Name": "always"})
        entry = d.entry(ref)
        # In the pause, which is long enough by then; the status is the same while the start itself holds the lock.
        paused = lambda: entry.status == "restarting" and not entry.lock.locked()  # noqa: E731
        await d.until(lambda: entry.record.restart_count >= 4 and paused())
        await stop.kill(d.engine, ref)
        assert (d.entry(ref).status, d.entry(ref).restart_task) == ("exited", None)
        assert "kill" not in actions(d, ref)
        await d.clean()


@scenario
async def test_events_of_a_paused_container_that_is_stopped(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run(*FOREVER, AutoRemove=True)
        await stop.pause(d.engine, ref)
        await d.stop(ref)
        await d.until(lambda: d.engine.containers.get(ref) is None)
        own = [action for action in actions(d, ref) if " " not in action]
        assert own == ["create", "start", "pause", "kill", "unpause", "kill", "stop", "die", "destroy"]


@scenario
async def test_always_starts_again_after_a_crash_of_the_program(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run(*FOREVER, RestartPolicy={"Name": "unless-stopped"})
        pid = d.entry(ref).record.state.pid
        os.kill(pid, signal.SIGKILL)
        await d.until(lambda: d.entry(ref).status == "running" and d.entry(ref).record.state.pid not in (0, pid))
        assert d.entry(ref).record.restart_count == 1
        assert d.entry(ref).record.host_config.RestartPolicy == RestartRule("unless-stopped", 0)
        await d.clean()


@scenario
async def test_top_shows_the_containers_processes(lab: Lab) -> None:
    async with lab.daemon() as d:
        await d.image()
        ref = await d.run("sh", "-c", "sleep 1000 & exec sleep 2000", User="nobody")
        await d.until(lambda: names(d, ref) == ["sleep", "sleep"])
        titles, rows = await top.top(d.engine, ref)
        assert titles == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
        assert sorted(row[-1] for row in rows) == ["sleep 1000", "sleep 2000"]
        assert rows[0][1] == str(d.entry(ref).record.state.pid)
        titles, rows = await top.top(d.engine, ref, "-o pid,comm")
        assert (titles, [row[1] for row in rows]) == (["PID", "COMMAND"], ["sleep", "sleep"])
        with pytest.raises(Internal, match=r"^Couldn't find PID field in ps output$"):
            await top.top(d.engine, ref, "-o user")
        await d.stop(ref)
        with pytest.raises(Conflict, match=f"^container {ref} is not running$"):
            await top.top(d.engine, ref)
        await d.clean()


def names(d: Daemon, ref: str) -> list[str]:
    """What runs in the container's cgroup."""
    pids = open_cgroup(d.engine.cgroup_path(ref, d.entry(ref).record)).pids()
    return [Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids]
